//! mmcv's `ConvModule`: convolution, norm, activation.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::Deserialize;

use super::{BatchNorm, Conv2d, NormConfig};
use crate::models::Forward;
use crate::ops::{self, Activation};

/// `act_cfg`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub enum ActConfig {
    ReLU(ReLUConfig),
}

impl Default for ActConfig {
    fn default() -> Self {
        Self::ReLU(ReLUConfig::default())
    }
}

/// The keys of `type: ReLU`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ReLUConfig {
    /// Written over its input; the result is the same either way, and here it always is where nothing else reads it.
    pub inplace: bool,
}

impl Default for ReLUConfig {
    fn default() -> Self {
        Self { inplace: true }
    }
}

/// What the convolutions of a head have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvModuleConfig {
    pub norm_cfg: Option<NormConfig>,
    pub act_cfg: Option<ActConfig>,
}

impl ConvModuleConfig {
    /// Convolution from `input` to `output` channels; it has a bias if no norm follows.
    pub fn init(&self, channels: [usize; 2], kernel: usize, conv: ops::Conv, device: &Device) -> ConvModule {
        let convolution = Conv2d::new(channels, kernel, conv, device);
        let (convolution, bn) = match &self.norm_cfg {
            Some(norm) => (convolution, Some(norm.init(channels[1], device))),
            None => (convolution.with_bias(device), None),
        };
        let activation = match self.act_cfg {
            Some(ActConfig::ReLU(_)) => Activation::ReLU,
            None => Activation::None,
        };
        ConvModule { conv: convolution, bn, activation }
    }
}

/// Convolution, batch norm and ReLU, the latter two optional.
#[derive(Module, Debug)]
pub struct ConvModule {
    conv: Conv2d,
    bn: Option<BatchNorm>,
    #[module(skip)]
    activation: Activation,
}

impl ConvModule {
    /// `[n, in, h, w]` to `[n, out, h', w']`.
    pub fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let x = self.conv.forward(x);
        match (&self.bn, self.activation) {
            (Some(bn), activation) => bn.forward(x, activation, ctx),
            (None, Activation::ReLU) => ops::relu(x),
            (None, Activation::None) => x,
        }
    }
}
