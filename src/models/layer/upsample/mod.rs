//! Layers that make feature maps larger, as mmseg's `upsample_cfg` names them.

mod deconv_module;
mod interp_conv;

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

pub use deconv_module::{DeconvModule, DeconvModuleConfig};
pub use interp_conv::{
    InterpConv, InterpConvConfig, InterpolationConfig, InterpolationMode, Larger,
};

use super::ConvModuleConfig;
use crate::models::{Builder, Forward, ModelError};

/// `upsample_cfg`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub enum UpsampleConfig {
    /// Interpolation, and a convolution after or before it.
    InterpConv(InterpConvConfig),
    /// A transposed convolution.
    DeconvModule(DeconvModuleConfig),
}

impl Default for UpsampleConfig {
    fn default() -> Self {
        Self::InterpConv(InterpConvConfig::default())
    }
}

impl UpsampleConfig {
    /// How many times larger it makes height and width. Errors name its keys.
    pub fn check(&self) -> Result<f64, ModelError> {
        match self {
            Self::InterpConv(it) => it.check(),
            Self::DeconvModule(it) => it.check(),
        }
    }

    /// From `input` to `output` channels, with the norm and the activation of `layers`.
    pub fn init(
        &self,
        channels: [usize; 2],
        layers: &ConvModuleConfig,
        builder: &Builder,
    ) -> Upsample {
        match self {
            Self::InterpConv(it) => Upsample::InterpConv(it.init(channels, layers, builder)),
            Self::DeconvModule(it) => Upsample::DeconvModule(it.init(channels, layers, builder)),
        }
    }
}

/// A layer that makes feature maps larger.
#[derive(Module, Debug)]
pub enum Upsample {
    InterpConv(InterpConv),
    DeconvModule(DeconvModule),
}

impl Upsample {
    /// `[n, in, h, w]` to `[n, out, h', w']`.
    pub fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        match self {
            Self::InterpConv(it) => it.forward(x, ctx),
            Self::DeconvModule(it) => it.forward(x, ctx),
        }
    }
}
