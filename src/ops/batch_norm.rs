//! Batch norm, with ATen's kernels, running statistics updated in place, and a ReLU on top that costs no memory.
//!
//! The ReLU writes over the norm's output, which only the ReLU's own backward reads: the norm's needs its input.

use burn::tensor::Tensor;
use burn_tch::TchTensor;
use segslurm_native::aten;

use super::border::primitive;
use super::function::{Function, computed, ternary};
use super::relu::rectify_grad;
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
    assert!(
        !options.training || n * height * width > 1,
        "batch_norm: training needs more than one value per channel, but the input is {:?}; use a larger batch or image",
        x.dims()
    );
    let norm = Norm {
        running_mean: primitive(running_mean),
        running_var: primitive(running_var),
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
        let (y, state) = computed("batch_norm", aten::batch_norm(&x.tensor, &self.native(&weight, &bias), self.relu));
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
            Some(y) => rectify_grad(grad, &y),
            None => grad,
        };
        let state = aten::BatchNormState { mean: mean.tensor, invstd: invstd.tensor, reserve: reserve.tensor, implementation };
        let grads = aten::batch_norm_backward(&grad.tensor, &x.tensor, &self.native(&weight, &bias), &state, tracked);
        let grads = computed("batch_norm backward", grads);
        [grads.input, grads.weight, grads.bias].map(|grad| grad.map(TchTensor::new))
    }
}
