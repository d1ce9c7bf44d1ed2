//! Batch norm, over this rank's batch (`BN`) or all ranks' (`SyncBN`).

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor};
use serde::Deserialize;

use crate::models::init::Fill;
use crate::models::{Builder, Forward};
use crate::ops::{self, Activation};
use crate::weights::Layer;

/// The keys of `type: BN` and `type: SyncBN`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct BatchNormConfig {
    /// Whether weight and bias are trained.
    pub requires_grad: bool,
    /// How far running statistics move towards a batch's.
    #[serde(deserialize_with = "crate::config::share")]
    pub momentum: f64,
    #[serde(deserialize_with = "crate::config::above_zero")]
    pub eps: f64,
}

impl Default for BatchNormConfig {
    fn default() -> Self {
        Self { requires_grad: true, momentum: 0.1, eps: 1e-5 }
    }
}

impl BatchNormConfig {
    pub(super) fn init(&self, channels: usize, sync: bool, builder: &Builder) -> BatchNorm {
        let of = Layer::BatchNorm;
        let trained = |value: f64| {
            let param = builder.parameter([channels], of, Fill::Constant(value));
            if self.requires_grad { param } else { param.set_require_grad(false) }
        };
        BatchNorm {
            weight: trained(1.0),
            bias: trained(0.0),
            running_mean: builder.buffer(Tensor::zeros([channels], builder.device()), of),
            running_var: builder.buffer(Tensor::ones([channels], builder.device()), of),
            num_batches_tracked: builder.counter(of),
            options: Options {
                momentum: self.momentum,
                eps: self.eps,
                sync,
                frozen: builder.is_norm_eval(),
            },
        }
    }
}

/// torch's `BatchNorm2d`.
#[derive(Module, Debug)]
pub struct BatchNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    running_mean: Param<Tensor<1>>,
    running_var: Param<Tensor<1>>,
    /// Training passes so far, 64 bits wide.
    num_batches_tracked: Param<Tensor<1, Int>>,
    #[module(skip)]
    options: Options,
}

#[derive(Debug, Clone, Copy)]
struct Options {
    momentum: f64,
    eps: f64,
    sync: bool,
    /// Normalises by the running statistics in training too, and leaves them alone.
    frozen: bool,
}

impl BatchNorm {
    /// Normalises `[n, c, h, w]`, then applies `activation`, in place where that is possible.
    pub(super) fn forward(&self, x: Tensor<4>, activation: Activation, ctx: &Forward) -> Tensor<4> {
        let Options { momentum, eps, sync, frozen } = self.options;
        let group = if sync { ctx.group } else { None };
        let mut training = ctx.training && !frozen;
        if let (Some(starved), true) = (ctx.probe, training) {
            let [n, _, height, width] = x.dims();
            if n * height * width == 1 && group.is_none_or(|it| it.world() == 1) {
                starved.note(&self.weight.val());
            }
            training = false;
        }
        if training {
            let _ = ops::to_tch(&self.num_batches_tracked.val()).g_add_scalar_(1);
        }
        let options = ops::BatchNorm { training, momentum, eps, activation, group };
        let (mean, var) = (self.running_mean.val(), self.running_var.val());
        ops::batch_norm(x, self.weight.val(), self.bias.val(), &mean, &var, options)
    }
}
