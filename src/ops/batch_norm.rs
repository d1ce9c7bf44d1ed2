//! Batch norm, with ATen's kernels, running statistics updated in place, and a ReLU on top that costs no memory.
//!
//! The ReLU writes over the norm's output, which only the ReLU's own backward reads: the norm's needs its input.

use burn::tensor::Tensor;
use burn_tch::TchTensor;
use segslurm_native::aten;

use super::border::primitive;
use super::error::{computed, refuse};
use super::function::{Function, ternary};
use super::relu::rectify_grad;
use super::sync_batch_norm::SyncNorm;
use crate::dist::Group;

/// What follows the norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activation {
    #[default]
    None,
    ReLU,
}

/// Options of [`batch_norm`].
#[derive(Debug, Clone, Copy)]
pub struct BatchNorm<'a> {
    /// Normalise by the batch's statistics and move the running ones towards them; else normalise by the running ones.
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
        Self { training: false, momentum: 0.1, eps: 1e-5, activation: Activation::None, group: None }
    }
}

/// Normalises `x` `[n, c, h, w]` per channel, then scales by `weight` `[c]` and shifts by `bias` `[c]`.
///
/// When training, `running_mean` and `running_var` `[c]` change in place (the variance without bias, as in PyTorch).
/// Both modes are differentiable in `x`, `weight` and `bias`.
pub fn batch_norm(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    running_mean: &Tensor<1>,
    running_var: &Tensor<1>,
    options: BatchNorm,
) -> Tensor<4> {
    let [n, channels, height, width] = x.dims();
    let sizes = [weight.dims(), bias.dims(), running_mean.dims(), running_var.dims()];
    assert!(
        sizes == [[channels]; 4],
        "batch_norm: the input has {channels} channels, but weight, bias, running mean and variance have {sizes:?}"
    );
    if options.training && n * height * width == 1 && options.group.is_none_or(|it| it.world() == 1) {
        let shape = x.dims().map(|it| it as i64).to_vec();
        refuse("batch_norm", &[shape], "training needs more than one value per channel; use a larger batch or image");
    }
    if let Some(group) = options.group.filter(|group| options.training && group.world() > 1) {
        let norm = SyncNorm {
            running_mean: primitive(running_mean.clone()),
            running_var: primitive(running_var.clone()),
            momentum: options.momentum,
            eps: options.eps,
            relu: options.activation == Activation::ReLU,
            group: group.clone(),
        };
        return ternary(x, weight, bias, norm);
    }
    let norm = Norm {
        running_mean: primitive(running_mean.clone()),
        running_var: primitive(running_var.clone()),
        training: options.training,
        momentum: options.momentum,
        eps: options.eps,
        relu: options.activation == Activation::ReLU,
    };
    ternary(x, weight, bias, norm)
}

#[derive(Debug, Clone)]
struct Norm {
    running_mean: TchTensor,
    running_var: TchTensor,
    training: bool,
    momentum: f64,
    eps: f64,
    relu: bool,
}

#[derive(Debug, Clone)]
struct Saved {
    x: TchTensor,
    weight: TchTensor,
    bias: TchTensor,
    /// Where it is positive, the ReLU let the gradient through.
    rectified: Option<TchTensor>,
    mean: TchTensor,
    invstd: TchTensor,
    reserve: TchTensor,
    implementation: i64,
}

impl Norm {
    fn native<'a>(&'a self, weight: &'a TchTensor, bias: &'a TchTensor) -> aten::BatchNorm<'a> {
        aten::BatchNorm {
            weight: &weight.tensor,
            bias: &bias.tensor,
            running_mean: &self.running_mean.tensor,
            running_var: &self.running_var.tensor,
            training: self.training,
            momentum: self.momentum,
            eps: self.eps,
        }
    }
}

impl Function<3> for Norm {
    type Saved = Saved;

    fn forward(&self, [x, weight, bias]: [TchTensor; 3], _: [bool; 3]) -> (TchTensor, Saved) {
        let normed = aten::batch_norm(&x.tensor, &self.native(&weight, &bias), self.relu);
        let (y, state) = computed("batch_norm", [&x.tensor], normed);
        let y = TchTensor::new(y);
        let saved = Saved {
            x,
            weight,
            bias,
            rectified: self.relu.then(|| y.clone()),
            mean: TchTensor::new(state.mean),
            invstd: TchTensor::new(state.invstd),
            reserve: TchTensor::new(state.reserve),
            implementation: state.implementation,
        };
        (y, saved)
    }

    fn backward(&self, saved: Saved, grad: TchTensor, tracked: [bool; 3]) -> [Option<TchTensor>; 3] {
        let Saved { x, weight, bias, rectified, mean, invstd, reserve, implementation } = saved;
        let grad = match rectified {
            Some(y) => rectify_grad(&grad, &y),
            None => grad,
        };
        let state = aten::BatchNormState { mean: mean.tensor, invstd: invstd.tensor, reserve: reserve.tensor, implementation };
        let grads = aten::batch_norm_backward(&grad.tensor, &x.tensor, &self.native(&weight, &bias), &state, tracked);
        let grads = computed("batch_norm backward", [&grad.tensor, &x.tensor], grads);
        [grads.input, grads.weight, grads.bias].map(|grad| grad.map(TchTensor::new))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, activation};

    use super::super::reference::{assert_close, check, constant, flat, moments, normalized, refused, values};
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
        if activation == Activation::ReLU { activation::relu(x) } else { x }
    }

    #[test]
    fn training_and_evaluation_match_the_reference_and_finite_differences() {
        for activation in [Activation::None, Activation::ReLU] {
            for training in [true, false] {
                let options = BatchNorm { training, activation, ..BatchNorm::default() };
                check(
                    &inputs(),
                    |x| {
                        let (mean, var) = running(&Device::libtorch());
                        batch_norm(x[0].clone().reshape(SHAPE), x[1].clone(), x[2].clone(), &mean, &var, options)
                    },
                    |x| {
                        let input = x[0].clone().reshape(SHAPE);
                        let (mean, var) = if training { moments(input.clone()) } else { running(&input.device()) };
                        act(normalized(input, x[1].clone(), x[2].clone(), mean, var, 1e-5), activation)
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
        let expected_var = constant(&[0.5, 1.5, 4.0], [3], &device) * 0.7 + batch_var * (30.0 / 29.0 * 0.3);
        assert_close("mean", &flat(&mean), &flat(&expected_mean), 1e-12);
        assert_close("variance", &flat(&var), &flat(&expected_var), 1e-12);
        assert_eq!(Vec::<f64>::try_from(seen_mean).expect("flat"), flat(&mean));
        assert_eq!(Vec::<f64>::try_from(seen_var).expect("flat"), flat(&var));
    }

    #[test]
    fn a_frozen_norm_still_passes_the_gradient_on() {
        let device = Device::libtorch().autodiff();
        let x = constant(&values(90, 1), SHAPE, &device).require_grad();
        let (weight, bias) = (constant(&[2.0; 3], [3], &device), constant(&[0.0; 3], [3], &device));
        let (mean, var) = running(&device);
        let mut grads = batch_norm(x.clone(), weight, bias, &mean, &var, BatchNorm::default()).sum().backward();
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
        let options = BatchNorm { training: true, activation: Activation::ReLU, ..BatchNorm::default() };
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
        let (bias, mean, var) = (from_tch(float(0.0), &device), from_tch(float(0.0), &device), from_tch(float(1.0), &device));
        let options = BatchNorm { training: true, activation: Activation::ReLU, ..BatchNorm::default() };
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
        let x = Tensor::zeros([1, 3, 1, 1], &device);
        let error = refused(|| batch_norm(x, one.clone(), zero.clone(), &zero, &one, options));
        assert!(error.starts_with("batch_norm of [1, 3, 1, 1]: training needs more than one value per channel"), "{error}");
    }
}
