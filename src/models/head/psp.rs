//! The pyramid pooling head of PSPNet (Zhao et al. 2017).

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

use super::{Decode, DecodeConfig, Head};
use crate::config::Both;
use crate::models::contract::{Feature, HeadSpec, RunHead, Seen};
use crate::models::layer::{Conv2d, ConvModule, PyramidPooling, square};
use crate::models::{Builder, Forward, ModelError};
use crate::ops;

/// The keys of `type: PSPHead`.
pub type PSPHeadConfig = Both<DecodeConfig, PSPKeys>;

/// Its own keys.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct PSPKeys {
    /// Sides of the grids that the pyramid averages over.
    #[serde(default = "PyramidPooling::default_scales")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub pool_scales: Vec<usize>,
}

impl HeadSpec for PSPHeadConfig {
    fn check(&self, _: &[Feature]) -> Result<(), ModelError> {
        self.shared.one_map()?;
        if self.pool_scales.is_empty() {
            return Err(ModelError::config(
                "pool_scales",
                "expected positive sides of grids, got []",
            ));
        }
        Ok(())
    }

    fn build(&self, inputs: &[Feature], builder: &Builder) -> Result<Head, ModelError> {
        let (conv_seg, decode) = self.shared.build(inputs, builder)?;
        let (input, channels) = (self.shared.input_channels(), self.shared.channels);
        let module = self.shared.conv_module();
        let psp_modules =
            PyramidPooling::new(&self.pool_scales, [input, channels], &module, builder);
        let joined = input + self.pool_scales.len() * channels;
        let bottleneck = module.init([joined, channels], 3, square(1, 1, 1), builder);
        Ok(PSPHead { conv_seg, psp_modules, bottleneck, decode }.into())
    }
}

/// Pools the feature map over grids, joins the upsampled results with it, and convolves.
#[derive(Module, Debug)]
pub struct PSPHead {
    conv_seg: Conv2d,
    psp_modules: PyramidPooling,
    bottleneck: ConvModule,
    #[module(skip)]
    decode: Decode,
}

impl RunHead for PSPHead {
    fn forward(&self, seen: Seen, ctx: &Forward) -> Tensor<4> {
        let x = self.decode.select(seen.features); // [n, c, h, w]
        let joined = self.psp_modules.forward(x, self.decode.align_corners(), ctx);
        let x = self.bottleneck.forward(ops::concat(joined), ctx);
        self.decode.classify(&self.conv_seg, x, ctx)
    }

    fn decode(&self) -> &Decode {
        &self.decode
    }
}
