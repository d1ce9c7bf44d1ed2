//! Norms over a part of each sample: layer, group and instance norm.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use serde::Deserialize;

use crate::models::Builder;
use crate::models::init::Fill;
use crate::ops::{self, Activation};
use crate::weights::Layer;

/// The keys of `type: LN` and `type: LN2d`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct LayerNormConfig {
    /// Whether weight and bias are trained.
    pub requires_grad: bool,
    #[serde(deserialize_with = "crate::config::above_zero")]
    pub eps: f64,
}

impl Default for LayerNormConfig {
    fn default() -> Self {
        Self { requires_grad: true, eps: 1e-5 }
    }
}

/// The keys of `type: GN`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct GroupNormConfig {
    /// How many groups the channels are cut into.
    #[serde(deserialize_with = "crate::config::positive")]
    pub num_groups: usize,
    /// Whether weight and bias are trained.
    #[serde(default = "crate::config::default::yes")]
    pub requires_grad: bool,
    #[serde(default = "crate::config::default::ratio::<1, 100000>")]
    #[serde(deserialize_with = "crate::config::above_zero")]
    pub eps: f64,
}

/// The keys of `type: IN`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct InstanceNormConfig {
    /// Whether weight and bias are trained.
    pub requires_grad: bool,
    #[serde(deserialize_with = "crate::config::above_zero")]
    pub eps: f64,
    /// Whether it has a weight and a bias; torch's has none unless asked.
    pub affine: bool,
}

impl Default for InstanceNormConfig {
    fn default() -> Self {
        Self { requires_grad: true, eps: 1e-5, affine: false }
    }
}

/// Weight and bias of a norm, ones and zeros at first.
fn affine(
    length: usize,
    layer: Layer,
    requires_grad: bool,
    builder: &Builder,
) -> [Param<Tensor<1>>; 2] {
    [1.0, 0.0].map(|it| {
        let param = builder.parameter([length], layer, Fill::Constant(it));
        if requires_grad { param } else { param.set_require_grad(false) }
    })
}

impl LayerNormConfig {
    /// A norm of `length` channels.
    pub fn init(&self, length: usize, builder: &Builder) -> LayerNorm {
        let [weight, bias] = affine(length, Layer::LayerNorm, self.requires_grad, builder);
        LayerNorm { weight, bias, eps: self.eps }
    }
}

impl GroupNormConfig {
    pub(super) fn init(&self, channels: usize, builder: &Builder) -> GroupNorm {
        let [weight, bias] = affine(channels, Layer::GroupNorm, self.requires_grad, builder);
        GroupNorm { weight, bias, groups: self.num_groups, eps: self.eps }
    }
}

impl InstanceNormConfig {
    pub(super) fn init(&self, channels: usize, builder: &Builder) -> InstanceNorm {
        let parts =
            self.affine.then(|| affine(channels, Layer::InstanceNorm, self.requires_grad, builder));
        let (weight, bias) = parts.map(|[weight, bias]| (weight, bias)).unzip();
        InstanceNorm { weight, bias, eps: self.eps }
    }
}

/// torch's `LayerNorm` over one axis.
#[derive(Module, Debug)]
pub struct LayerNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    eps: f64,
}

impl LayerNorm {
    /// Normalises the last axis.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::layer_norm(x, self.weight.val(), self.bias.val(), self.eps)
    }

    /// Normalises the channels of each pixel of `[n, c, h, w]`.
    pub fn forward_maps(&self, x: Tensor<4>, activation: Activation) -> Tensor<4> {
        ops::activate(self.forward(x.permute([0, 2, 3, 1])).permute([0, 3, 1, 2]), activation)
    }
}

/// torch's `GroupNorm`.
#[derive(Module, Debug)]
pub struct GroupNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    groups: usize,
    eps: f64,
}

impl GroupNorm {
    pub(super) fn forward(&self, x: Tensor<4>, activation: Activation) -> Tensor<4> {
        ops::activate(
            ops::group_norm(x, self.weight.val(), self.bias.val(), self.groups, self.eps),
            activation,
        )
    }
}

/// torch's `InstanceNorm2d`.
#[derive(Module, Debug)]
pub struct InstanceNorm {
    weight: Option<Param<Tensor<1>>>,
    bias: Option<Param<Tensor<1>>>,
    eps: f64,
}

impl InstanceNorm {
    pub(super) fn forward(&self, x: Tensor<4>, activation: Activation) -> Tensor<4> {
        let ([_, channels, ..], device) = (x.dims(), x.device());
        let weight =
            self.weight.as_ref().map_or_else(|| Tensor::ones([channels], &device), Param::val);
        let bias =
            self.bias.as_ref().map_or_else(|| Tensor::zeros([channels], &device), Param::val);
        ops::activate(ops::group_norm(x, weight, bias, channels, self.eps), activation)
    }
}
