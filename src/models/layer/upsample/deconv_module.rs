//! mmseg's `DeconvModule`: a transposed convolution with its norm and activation.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

use crate::models::layer::conv_module::normed;
use crate::models::layer::{Act, ConvModuleConfig, ConvTranspose2d, Norm, square};
use crate::models::{Builder, Forward, ModelError};

/// The keys of `type: DeconvModule`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct DeconvModuleConfig {
    #[serde(deserialize_with = "crate::config::positive")]
    pub kernel_size: usize,
    #[serde(deserialize_with = "crate::config::positive")]
    pub scale_factor: usize,
}

impl Default for DeconvModuleConfig {
    fn default() -> Self {
        Self { kernel_size: 4, scale_factor: 2 }
    }
}

impl DeconvModuleConfig {
    /// How many times larger it makes height and width.
    pub(super) fn check(&self) -> Result<f64, ModelError> {
        let Self { kernel_size, scale_factor } = *self;
        if kernel_size < scale_factor || !(kernel_size - scale_factor).is_multiple_of(2) {
            let problem = format!(
                "expected scale_factor, {scale_factor}, or an even number more, got {kernel_size}"
            );
            return Err(ModelError::config("upsample_cfg.kernel_size", problem));
        }
        Ok(scale_factor as f64)
    }

    pub(super) fn init(
        &self,
        channels: [usize; 2],
        layers: &ConvModuleConfig,
        builder: &Builder,
    ) -> DeconvModule {
        let padding = (self.kernel_size - self.scale_factor) / 2;
        let conv = square(self.scale_factor, padding, 1);
        let conv = ConvTranspose2d::new(channels, self.kernel_size, conv, builder);
        let norm = layers.norm_cfg.as_ref().map(|it| it.init(channels[1], builder));
        let act = layers.act_cfg.as_ref().map(|it| it.init(builder));
        DeconvModule { deconv_upsamping: (conv, norm, act) }
    }
}

/// A transposed convolution, its norm and its activation, under mmseg's spelling.
#[derive(Module, Debug)]
pub struct DeconvModule {
    deconv_upsamping: (ConvTranspose2d, Option<Norm>, Option<Act>),
}

impl DeconvModule {
    /// `[n, in, h, w]` to `[n, out, h', w']`.
    pub fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let (conv, norm, act) = &self.deconv_upsamping;
        normed(conv.forward(x), norm.as_ref(), act.as_ref(), ctx)
    }
}
