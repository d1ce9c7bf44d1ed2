//! Batch norm, with ATen's kernels, running statistics updated in place, and an activation on top
//! that costs no memory.
//!
//! The activation writes over the norm's output, which only its own backward reads: the norm's
//! needs its input.

use burn::tensor::Tensor;
use segslurm_native::NativeError;
use segslurm_native::call::{Arg, call};

use super::activation::{Activation, activate};
use super::axis::is_channels_last;
use super::border::Handle;
use super::count;
use super::error::{computed, refuse};
use super::function::{Function, apply};
use super::memory_format::MemoryFormat;
use super::sync_batch_norm::SyncNorm;
use crate::dist::Group;

/// Options of [`batch_norm`].
#[derive(Debug, Clone, Copy)]
pub struct BatchNorm<'a> {
    /// Normalise by the batch's statistics and move the running ones towards them; else normalise
    /// by the running ones.
    pub training: bool,
    /// How far the running statistics move towards the batch's, from 0 to 1.
    pub momentum: f64,
    pub eps: f64,
    pub activation: Activation,
    /// The ranks whose batches are normalised as one (SyncBN); `None` for this rank alone.
    pub group: Option<&'a Group>,
}

impl Default for BatchNorm<'_> {
    fn default() -> Self {
        Self {
            training: false,
            momentum: 0.1,
            eps: 1e-5,
            activation: Activation::None,
            group: None,
        }
    }
}

/// Normalises `x` `[n, c, …]` per channel, then scales by `weight` `[c]` and shifts by `bias`
/// `[c]`.
///
/// When training, `running_mean` and `running_var` `[c]` change in place (the variance without
/// bias, as in PyTorch). Both modes are differentiable in `x`, `weight` and `bias`.
pub fn batch_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    running_mean: &Tensor<1>,
    running_var: &Tensor<1>,
    options: BatchNorm,
) -> Tensor<D> {
    let (shape, channels) = (x.dims(), x.dims()[1]);
    let each = shape.iter().product::<usize>() / channels.max(1);
    let sizes = [weight.dims(), bias.dims(), running_mean.dims(), running_var.dims()];
    assert!(
        sizes == [[channels]; 4],
        "batch_norm: the input has {channels} channels, but weight, bias, running mean and \
         variance have {sizes:?}"
    );
    if options.training && each == 1 && options.group.is_none_or(|it| it.world() == 1) {
        let shape = shape.map(|it| it as i64).to_vec();
        refuse(
            "batch_norm",
            &[shape],
            "training needs more than one value per channel; use a larger batch or image",
        );
    }
    // What needs its own input computes after the norm.
    let (activation, after) = match options.activation {
        it if it.follows_from_output() => (it, Activation::None),
        it => (Activation::None, it),
    };
    if let Some(group) = options.group.filter(|group| options.training && group.world() > 1) {
        let norm = SyncNorm {
            running_mean: Handle::of(running_mean.clone()),
            running_var: Handle::of(running_var.clone()),
            momentum: options.momentum,
            eps: options.eps,
            activation,
            group: group.clone(),
        };
        return activate(apply([x.into(), weight.into(), bias.into()], norm), after);
    }
    let norm = Norm {
        running_mean: Handle::of(running_mean.clone()),
        running_var: Handle::of(running_var.clone()),
        training: options.training,
        momentum: options.momentum,
        eps: options.eps,
        activation,
    };
    activate(apply([x.into(), weight.into(), bias.into()], norm), after)
}

/// ATen's batch norm, by the implementation (native, cuDNN, MIOpen) that PyTorch would choose.
pub(super) struct Kernel<'a> {
    pub(super) weight: &'a tch::Tensor,
    pub(super) bias: &'a tch::Tensor,
    pub(super) running_mean: &'a tch::Tensor,
    pub(super) running_var: &'a tch::Tensor,
    pub(super) training: bool,
    pub(super) momentum: f64,
    pub(super) eps: f64,
}

/// What the forward pass leaves for the backward: the batch's statistics (empty in evaluation), and
/// which implementation ran, with that one's own notes.
#[derive(Debug, Clone)]
pub(super) struct Computed {
    mean: Handle,
    invstd: Handle,
    reserve: Handle,
    implementation: i64,
}

impl Kernel<'_> {
    /// The norm of `x`, with its activation over it; running statistics are updated in place when
    /// training.
    pub(super) fn forward(
        &self,
        x: &tch::Tensor,
        activation: Activation,
    ) -> Result<(Handle, Computed), NativeError> {
        let Self { weight, bias, running_mean, running_var, training, momentum, eps } = *self;
        let arguments: [Arg; 9] = [
            x.into(),
            weight.into(),
            bias.into(),
            running_mean.into(),
            running_var.into(),
            training.into(),
            momentum.into(),
            eps.into(),
            true.into(),
        ];
        let mut results = call(c"aten::_batch_norm_impl_index", &arguments)?;
        let mut y = Handle::new(results.tensor()?);
        let mut next = || results.optional().map(|it| Handle::new(it.unwrap_or_default()));
        let (mean, invstd, reserve) = (next()?, next()?, next()?);
        let implementation = results.int()?;
        activation.write(&mut y);
        Ok((y, Computed { mean, invstd, reserve, implementation }))
    }

    /// The gradients of input, weight and bias (before any activation), of those that `mask` names.
    pub(super) fn backward(
        &self,
        grad: &tch::Tensor,
        x: &tch::Tensor,
        computed: &Computed,
        mask: [bool; 3],
    ) -> Result<[Option<tch::Tensor>; 3], NativeError> {
        // cuDNN wants the gradient in the layout of the input.
        let format =
            if is_channels_last(x) { MemoryFormat::ChannelsLast } else { MemoryFormat::Contiguous };
        let dense = format.dense(grad);
        let Computed { mean, invstd, reserve, implementation } = computed;
        let arguments: [Arg; 12] = [
            (*implementation).into(),
            x.into(),
            (&dense).into(),
            self.weight.into(),
            self.running_mean.into(),
            self.running_var.into(),
            (&**mean).into(),
            (&**invstd).into(),
            self.training.into(),
            self.eps.into(),
            (&mask).into(),
            (&**reserve).into(),
        ];
        let mut results = call(c"aten::_batch_norm_impl_index_backward", &arguments)?;
        Ok([results.optional()?, results.optional()?, results.optional()?])
    }
}

#[derive(Debug, Clone)]
struct Norm {
    running_mean: Handle,
    running_var: Handle,
    training: bool,
    momentum: f64,
    eps: f64,
    activation: Activation,
}

#[derive(Debug, Clone)]
struct Saved {
    x: Handle,
    weight: Handle,
    bias: Handle,
    /// The output, where an activation's gradient follows from it.
    activated: Option<Handle>,
    computed: Computed,
}

impl Norm {
    fn kernel<'a>(&'a self, weight: &'a tch::Tensor, bias: &'a tch::Tensor) -> Kernel<'a> {
        let Self { running_mean, running_var, training, momentum, eps, .. } = self;
        Kernel {
            weight,
            bias,
            running_mean,
            running_var,
            training: *training,
            momentum: *momentum,
            eps: *eps,
        }
    }
}

impl Function<3> for Norm {
    const NAME: &'static str = "batch_norm";

    fn multiply_adds(&self, _: [&[i64]; 3], output: &[i64]) -> u64 {
        2 * count::values(output)
    }

    type Saved = Saved;

    fn forward(&self, [x, weight, bias]: [Handle; 3], _: [bool; 3]) -> (Handle, Saved) {
        let normed = self.kernel(&weight, &bias).forward(&x, self.activation);
        let (y, found) = computed("batch_norm", [&x], normed);
        let activated = (self.activation != Activation::None).then(|| y.clone());
        (y, Saved { x, weight, bias, activated, computed: found })
    }

    fn backward(&self, saved: Saved, grad: Handle, tracked: [bool; 3]) -> [Option<Handle>; 3] {
        let Saved { x, weight, bias, activated, computed: found } = saved;
        let grad = match activated {
            Some(y) => self.activation.grad(grad, &y),
            None => grad,
        };
        let grads = self.kernel(&weight, &bias).backward(&grad, &x, &found, tracked);
        computed("batch_norm backward", [&grad, &x], grads).map(|grad| grad.map(Handle::new))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, activation};

    use super::super::reference::{
        assert_close, check, constant, flat, moments, normalized, refused, values,
    };
    use super::super::{from_tch, gradient, to_tch};
    use super::*;

    const SHAPE: [usize; 4] = [2, 3, 3, 5];

    fn inputs() -> [Vec<f64>; 3] {
        [values(2 * 3 * 3 * 5, 1), values(3, 2), values(3, 3)]
    }

    fn running(device: &Device) -> (Tensor<1>, Tensor<1>) {
        (constant(&[0.5, -1.0, 2.0], [3], device), constant(&[0.5, 1.5, 4.0], [3], device))
    }

    fn act(x: Tensor<4>, activation: Activation) -> Tensor<4> {
        match activation {
            Activation::ReLU => activation::relu(x),
            Activation::Sigmoid => activation::sigmoid(x),
            Activation::SiLU => x.clone() * activation::sigmoid(x),
            _ => x,
        }
    }

    #[test]
    fn lines_and_lists_are_normalised_as_maps_are() {
        for shape in [[6, 3, 5], [30, 3, 1]] {
            check(
                &[values(90, 1), values(3, 2), values(3, 3)],
                |x| {
                    let (mean, var) = running(&Device::libtorch());
                    let options = BatchNorm { training: true, ..BatchNorm::default() };
                    batch_norm(
                        x[0].clone().reshape(shape),
                        x[1].clone(),
                        x[2].clone(),
                        &mean,
                        &var,
                        options,
                    )
                },
                |x| {
                    let input = x[0].clone().reshape([shape[0], shape[1], shape[2], 1]);
                    let (mean, var) = moments(input.clone());
                    normalized(input, x[1].clone(), x[2].clone(), mean, var, 1e-5).reshape(shape)
                },
            );
        }
    }

    #[test]
    fn training_and_evaluation_match_the_reference_and_finite_differences() {
        for activation in
            [Activation::None, Activation::ReLU, Activation::Sigmoid, Activation::SiLU]
        {
            for training in [true, false] {
                let options = BatchNorm { training, activation, ..BatchNorm::default() };
                check(
                    &inputs(),
                    |x| {
                        let (mean, var) = running(&Device::libtorch());
                        batch_norm(
                            x[0].clone().reshape(SHAPE),
                            x[1].clone(),
                            x[2].clone(),
                            &mean,
                            &var,
                            options,
                        )
                    },
                    |x| {
                        let input = x[0].clone().reshape(SHAPE);
                        let (mean, var) = if training {
                            moments(input.clone())
                        } else {
                            running(&input.device())
                        };
                        act(
                            normalized(input, x[1].clone(), x[2].clone(), mean, var, 1e-5),
                            activation,
                        )
                    },
                );
            }
        }
    }

    #[test]
    fn running_statistics_move_in_place_and_only_when_training() {
        let device = Device::libtorch();
        let x = constant(&values(90, 1), SHAPE, &device);
        let (one, zero) = (constant(&[1.0; 3], [3], &device), constant(&[0.0; 3], [3], &device));
        let (mean, var) = running(&device);
        let (seen_mean, seen_var) = (to_tch(&mean), to_tch(&var));
        let options = BatchNorm { momentum: 0.3, ..BatchNorm::default() };
        batch_norm(x.clone(), one.clone(), zero.clone(), &mean, &var, options);
        assert_eq!((flat(&mean), flat(&var)), (vec![0.5, -1.0, 2.0], vec![0.5, 1.5, 4.0]));

        let (batch_mean, batch_var) = moments(x.clone());
        batch_norm(x, one, zero, &mean, &var, BatchNorm { training: true, ..options });
        let expected_mean = constant(&[0.5, -1.0, 2.0], [3], &device) * 0.7 + batch_mean * 0.3;
        let expected_var =
            constant(&[0.5, 1.5, 4.0], [3], &device) * 0.7 + batch_var * (30.0 / 29.0 * 0.3);
        assert_close("mean", &flat(&mean), &flat(&expected_mean), 1e-12);
        assert_close("variance", &flat(&var), &flat(&expected_var), 1e-12);
        assert_eq!(Vec::<f64>::try_from(&*seen_mean).expect("flat"), flat(&mean));
        assert_eq!(Vec::<f64>::try_from(&*seen_var).expect("flat"), flat(&var));
    }

    #[test]
    fn a_frozen_norm_still_passes_the_gradient_on() {
        let device = Device::libtorch().autodiff();
        let x = constant(&values(90, 1), SHAPE, &device).require_grad();
        let (weight, bias) = (constant(&[2.0; 3], [3], &device), constant(&[0.0; 3], [3], &device));
        let (mean, var) = running(&device);
        let mut grads =
            batch_norm(x.clone(), weight, bias, &mean, &var, BatchNorm::default()).sum().backward();
        let grad = gradient(&x, &mut grads).expect("a gradient");
        let slope = 2.0 / (0.5_f64 + 1e-5).sqrt();
        assert!((grad.double_value(&[0, 0, 1, 1]) - slope).abs() < 1e-12);
    }

    #[test]
    fn the_input_is_left_alone() {
        let device = Device::libtorch();
        let x = constant(&values(90, 1), SHAPE, &device);
        let (one, zero) = (constant(&[1.0; 3], [3], &device), constant(&[0.0; 3], [3], &device));
        let (mean, var) = running(&device);
        let options =
            BatchNorm { training: true, activation: Activation::ReLU, ..BatchNorm::default() };
        batch_norm(x.clone(), one, zero, &mean, &var, options);
        assert_eq!(flat(&x), values(90, 1));
    }

    #[test]
    fn half_precision_input_keeps_statistics_in_full_precision() {
        let device = Device::libtorch().autodiff();
        let x = tch::Tensor::from_slice(&values(90, 1)).view([2, 3, 3, 5]);
        let float = |fill: f64| tch::Tensor::full([3], fill, (tch::Kind::Float, tch::Device::Cpu));
        let x = from_tch::<4, _>(x.to_kind(tch::Kind::BFloat16), &device).require_grad();
        let weight = from_tch::<1, _>(float(1.0), &device).require_grad();
        let (bias, mean, var) = (
            from_tch(float(0.0), &device),
            from_tch(float(0.0), &device),
            from_tch(float(1.0), &device),
        );
        let options =
            BatchNorm { training: true, activation: Activation::ReLU, ..BatchNorm::default() };
        let y = batch_norm(x.clone(), weight.clone(), bias, &mean, &var, options);
        assert_eq!(to_tch(&y).kind(), tch::Kind::BFloat16);
        let mut grads = y.sum().backward();
        assert_eq!(gradient(&x, &mut grads).expect("a gradient").kind(), tch::Kind::BFloat16);
        assert_eq!(gradient(&weight, &mut grads).expect("a gradient").kind(), tch::Kind::Float);
    }

    #[test]
    fn one_value_per_channel_cannot_train() {
        let device = Device::libtorch();
        let (one, zero) = (Tensor::ones([3], &device), Tensor::zeros([3], &device));
        let options = BatchNorm { training: true, ..BatchNorm::default() };
        let x = Tensor::<4>::zeros([1, 3, 1, 1], &device);
        let error = refused(|| batch_norm(x, one.clone(), zero.clone(), &zero, &one, options));
        assert!(
            error.starts_with(
                "batch_norm of [1, 3, 1, 1]: training needs more than one value per channel"
            ),
            "{error}"
        );
    }
}
