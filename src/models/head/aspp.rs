//! The head of DeepLabV3 (Chen et al. 2017).

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

use super::{Decode, DecodeConfig, Head};
use crate::config::Both;
use crate::models::contract::{Feature, HeadSpec, RunHead, Seen};
use crate::models::layer::{AtrousConfig, AtrousPyramid, Conv2d, Inline};
use crate::models::{Builder, Forward, ModelError};

/// The keys of `type: ASPPHead`.
pub type ASPPHeadConfig = Both<DecodeConfig, ASPPKeys>;

/// Its own keys.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ASPPKeys {
    /// The dilation of each branch.
    #[serde(default = "AtrousPyramid::default_dilations")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub dilations: Vec<usize>,
}

impl HeadSpec for ASPPHeadConfig {
    fn check(&self, _: &[Feature]) -> Result<(), ModelError> {
        self.shared.one_map()
    }

    fn build(&self, inputs: &[Feature], builder: &Builder) -> Result<Head, ModelError> {
        let (conv_seg, decode) = self.shared.build(inputs, builder)?;
        let channels = [self.shared.input_channels(), self.shared.channels];
        let module = &self.shared.conv_module();
        let config =
            AtrousConfig { dilations: &self.dilations, channels, separable: false, module };
        let pyramid = Inline::Here(AtrousPyramid::new(config, builder));
        Ok(ASPPHead { conv_seg, pyramid, decode }.into())
    }
}

/// An atrous pyramid and a classifier.
#[derive(Module, Debug)]
pub struct ASPPHead {
    conv_seg: Conv2d,
    pyramid: Inline<AtrousPyramid>,
    #[module(skip)]
    decode: Decode,
}

impl RunHead for ASPPHead {
    fn forward(&self, seen: Seen, ctx: &Forward) -> Tensor<4> {
        let x = self.decode.select(seen.features); // [n, c, h, w]
        let x = self.pyramid.forward(x, self.decode.align_corners(), ctx);
        self.decode.classify(&self.conv_seg, x, ctx)
    }

    fn decode(&self) -> &Decode {
        &self.decode
    }
}
