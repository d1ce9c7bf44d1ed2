//! Batch norm, over this rank's batch (`BN`) or all ranks' (`SyncBN`).

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Int, Tensor};
use serde::Deserialize;

use crate::models::Forward;
use crate::ops::{self, Activation};

/// `norm_cfg`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub enum NormConfig {
    /// Statistics of this rank's batch.
    BN(BatchNormConfig),
    /// Statistics of all ranks' batches.
    SyncBN(BatchNormConfig),
}

impl NormConfig {
    /// Takes the statistics of all ranks' batches from now on.
    pub(crate) fn synchronize(&mut self) {
        if let Self::BN(config) = self {
            *self = Self::SyncBN(config.clone());
        }
    }

    /// A norm of `channels` channels.
    pub fn init(&self, channels: usize, device: &Device) -> BatchNorm {
        let (config, sync) = match self {
            Self::BN(config) => (config, false),
            Self::SyncBN(config) => (config, true),
        };
        config.init(channels, sync, device)
    }
}

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
    fn init(&self, channels: usize, sync: bool, device: &Device) -> BatchNorm {
        let trained = |value: Tensor<1>| Param::from_tensor(value).set_require_grad(self.requires_grad);
        let buffer = |value: Tensor<1>| Param::initialized(ParamId::new(), value);
        let counter = ops::from_tch(tch::Tensor::zeros([1], (tch::Kind::Int64, ops::place(device))), device);
        BatchNorm {
            weight: trained(Tensor::ones([channels], device)),
            bias: trained(Tensor::zeros([channels], device)),
            running_mean: buffer(Tensor::zeros([channels], device)),
            running_var: buffer(Tensor::ones([channels], device)),
            num_batches_tracked: Param::initialized(ParamId::new(), counter),
            options: Options { momentum: self.momentum, eps: self.eps, sync, frozen: false },
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
    /// The same norm, using its running statistics in training too (torch's `eval()`).
    #[must_use]
    pub fn freeze_statistics(mut self) -> Self {
        self.options.frozen = true;
        self
    }

    /// Normalises `[n, c, h, w]`, then applies `activation` in place.
    pub fn forward(&self, x: Tensor<4>, activation: Activation, ctx: &Forward) -> Tensor<4> {
        let Options { momentum, eps, sync, frozen } = self.options;
        let group = if sync { ctx.group } else { None };
        let mut training = ctx.training && !frozen;
        if let (Some(starved), true) = (ctx.probe, training) {
            let [n, _, height, width] = x.dims();
            if n * height * width == 1 && group.is_none_or(|it| it.world() == 1) {
                starved.note(self.weight.id);
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
