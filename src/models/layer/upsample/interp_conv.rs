//! mmseg's `InterpConv`: interpolation and a convolution, in either order.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

use crate::config::default;
use crate::models::layer::{ConvConfig, ConvModule, ConvModuleConfig, square};
use crate::models::{Builder, Forward, ModelError};
use crate::ops;

/// The keys of `type: InterpConv`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct InterpConvConfig {
    pub conv_cfg: Option<ConvConfig>,
    /// The convolution comes before the interpolation.
    pub conv_first: bool,
    #[serde(deserialize_with = "crate::config::positive")]
    pub kernel_size: usize,
    #[serde(deserialize_with = "crate::config::positive")]
    pub stride: usize,
    pub padding: usize,
    pub upsample_cfg: InterpolationConfig,
}

impl Default for InterpConvConfig {
    fn default() -> Self {
        Self {
            conv_cfg: None,
            conv_first: false,
            kernel_size: 1,
            stride: 1,
            padding: 0,
            upsample_cfg: InterpolationConfig::default(),
        }
    }
}

/// How an [`InterpConv`] interpolates.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct InterpolationConfig {
    #[serde(default = "default::n::<2>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub scale_factor: usize,
    #[serde(default)]
    pub mode: InterpolationMode,
    /// Corner pixels stay on corner pixels; not of `nearest`.
    #[serde(default)]
    pub align_corners: Option<bool>,
}

impl Default for InterpolationConfig {
    fn default() -> Self {
        Self { scale_factor: 2, mode: InterpolationMode::Bilinear, align_corners: Some(false) }
    }
}

/// `mode` of [`InterpolationConfig`]; a config that gives the section without it gets torch's
/// default.
#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum InterpolationMode {
    #[default]
    Nearest,
    Bilinear,
    Bicubic,
}

impl InterpolationMode {
    /// `x` `[n, c, h, w]` at `size` (height, width).
    pub fn resize(self, x: Tensor<4>, size: [usize; 2], align_corners: bool) -> Tensor<4> {
        match self {
            Self::Nearest => ops::resize_nearest(x, size),
            Self::Bilinear => ops::resize_bilinear(x, size, align_corners),
            Self::Bicubic => ops::resize_bicubic(x, size, align_corners),
        }
    }
}

impl InterpConvConfig {
    /// How many times larger it makes height and width.
    pub(super) fn check(&self) -> Result<f64, ModelError> {
        let InterpolationConfig { mode, align_corners, scale_factor } = &self.upsample_cfg;
        if *mode == InterpolationMode::Nearest && *align_corners == Some(true) {
            let problem = "is for bilinear and bicubic, but mode is nearest";
            return Err(ModelError::config("upsample_cfg.upsample_cfg.align_corners", problem));
        }
        if 2 * self.padding + 1 != self.kernel_size {
            let problem =
                format!("{} with a kernel of {} changes the size", self.padding, self.kernel_size);
            return Err(ModelError::config("upsample_cfg.padding", problem));
        }
        Ok(*scale_factor as f64 / self.stride as f64)
    }

    pub(super) fn init(
        &self,
        channels: [usize; 2],
        layers: &ConvModuleConfig,
        builder: &Builder,
    ) -> InterpConv {
        let conv = square(self.stride, self.padding, 1);
        let conv = layers.init(channels, self.kernel_size, conv, builder);
        let InterpolationConfig { scale_factor, mode, align_corners } = self.upsample_cfg.clone();
        let larger =
            Larger { scale_factor, mode, align_corners: align_corners.unwrap_or_default() };
        InterpConv {
            interp_upsample: if self.conv_first {
                Order::ConvFirst((conv, larger))
            } else {
                Order::ConvLast((larger, conv))
            },
        }
    }
}

/// Interpolation and a convolution.
#[derive(Module, Debug)]
pub struct InterpConv {
    interp_upsample: Order,
}

#[derive(Module, Debug)]
enum Order {
    ConvFirst((ConvModule, Larger)),
    ConvLast((Larger, ConvModule)),
}

impl InterpConv {
    /// `[n, in, h, w]` to `[n, out, h', w']`.
    pub fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        match &self.interp_upsample {
            Order::ConvFirst((conv, larger)) => larger.forward(conv.forward(x, ctx)),
            Order::ConvLast((larger, conv)) => conv.forward(larger.forward(x), ctx),
        }
    }
}

/// Interpolation to a multiple of the size: mmseg's `Upsample`.
#[derive(Module, Debug)]
pub struct Larger {
    pub scale_factor: usize,
    #[module(skip)]
    pub mode: InterpolationMode,
    pub align_corners: bool,
}

impl Larger {
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [.., height, width] = x.dims();
        let size = [height * self.scale_factor, width * self.scale_factor];
        self.mode.resize(x, size, self.align_corners)
    }
}
