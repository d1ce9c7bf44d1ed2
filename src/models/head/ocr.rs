//! The head of OCRNet (Yuan et al. 2019): each pixel sees the mean features of the classes, as the
//! head before it tells them apart.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

use super::{Decode, DecodeConfig, Head};
use crate::config::{Both, default};
use crate::models::contract::{Feature, HeadKeys, RunHead, Seen};
use crate::models::layer::{
    Conv2d, ConvModule, Inline, SelfAttention, SelfAttentionConfig, square,
};
use crate::models::{Builder, Forward, ModelError};
use crate::ops;

/// The keys of `type: OCRHead`.
pub type OCRHeadConfig = Both<DecodeConfig, OCRKeys>;

/// Its own keys.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct OCRKeys {
    /// Channels of queries, keys and values.
    #[serde(deserialize_with = "crate::config::positive")]
    pub ocr_channels: usize,
    /// What the logits of the head before are multiplied with before their softmax.
    #[serde(default = "default::n::<1>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub scale: usize,
}

impl HeadKeys for OCRKeys {
    const SEES_PREVIOUS: bool = true;

    fn check(&self, shared: &DecodeConfig, _: &[Feature]) -> Result<(), ModelError> {
        shared.one_map()?;
        if self.scale != 1 {
            let problem = format!("mmseg's head runs with 1 alone, got {}", self.scale);
            return Err(ModelError::config("scale", problem));
        }
        Ok(())
    }

    fn build(
        &self,
        shared: &DecodeConfig,
        inputs: &[Feature],
        builder: &Builder,
    ) -> Result<Head, ModelError> {
        let (conv_seg, decode) = shared.build(inputs, builder)?;
        let (channels, module) = (shared.channels, shared.conv_module());
        let attention = SelfAttention::new(
            SelfAttentionConfig {
                input: channels,
                inner: self.ocr_channels,
                output: channels,
                query_convs: 2,
                module: &module,
            },
            builder,
        );
        let object_context_block = ObjectContext {
            attention: Inline::Here(attention),
            bottleneck: module.init([2 * channels, channels], 1, square(1, 0, 1), builder),
        };
        let input = shared.input_channels();
        let bottleneck = module.init([input, channels], 3, square(1, 1, 1), builder);
        Ok(OCRHead { conv_seg, object_context_block, bottleneck, decode }.into())
    }
}

/// Pixels, and what they take from the classes.
#[derive(Module, Debug)]
pub struct OCRHead {
    conv_seg: Conv2d,
    object_context_block: ObjectContext,
    bottleneck: ConvModule,
    #[module(skip)]
    decode: Decode,
}

/// mmseg's `ObjectAttentionBlock`.
#[derive(Module, Debug)]
struct ObjectContext {
    attention: Inline<SelfAttention>,
    bottleneck: ConvModule,
}

impl RunHead for OCRHead {
    fn forward(&self, seen: Seen, ctx: &Forward) -> Tensor<4> {
        let previous = seen.previous.expect("checked: a head comes before this one").clone();
        let features = self.bottleneck.forward(self.decode.select(seen.features), ctx);
        let [n, channels, height, width] = features.dims();
        let [_, classes, ..] = previous.dims();
        let shares = ops::softmax(previous.reshape([n, classes, height * width]), 2);
        let pixels = features.clone().permute([0, 2, 3, 1]).reshape([n, height * width, channels]);
        let means = ops::matmul(shares, pixels); // [n, classes, channels]
        let means = means.reshape([n, classes, 1, channels]).permute([0, 3, 1, 2]);
        let ObjectContext { attention, bottleneck } = &self.object_context_block;
        let context = attention.forward(features.clone(), means, ctx);
        let x = bottleneck.forward(ops::concat(vec![context, features]), ctx);
        self.decode.classify(&self.conv_seg, x, ctx)
    }

    fn decode(&self) -> &Decode {
        &self.decode
    }
}
