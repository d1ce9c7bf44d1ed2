//! The head of SegFormer (Xie et al. 2021): every map convolved, brought to the first one's size
//! and joined.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

use super::{Decode, DecodeConfig, Head, InputTransform};
use crate::config::Both;
use crate::models::contract::{Feature, HeadKeys, RunHead, Seen};
use crate::models::layer::{
    ActConfig, Conv2d, ConvModule, ConvModuleConfig, InterpolationMode, square,
};
use crate::models::{Builder, Forward, ModelError};
use crate::ops;

/// The keys of `type: SegformerHead`.
pub type SegformerHeadConfig = Both<DecodeConfig, SegformerKeys>;

/// Its own keys.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct SegformerKeys {
    /// How maps are resized.
    #[serde(default = "bilinear")]
    pub interpolate_mode: InterpolationMode,
}

fn bilinear() -> InterpolationMode {
    InterpolationMode::Bilinear
}

impl HeadKeys for SegformerKeys {
    fn transform(&self, _: &DecodeConfig) -> Option<InputTransform> {
        Some(InputTransform::MultipleSelect)
    }

    fn check(&self, shared: &DecodeConfig, _: &[Feature]) -> Result<(), ModelError> {
        shared.maps_as_they_are()
    }

    fn build(
        &self,
        shared: &DecodeConfig,
        inputs: &[Feature],
        builder: &Builder,
    ) -> Result<Head, ModelError> {
        let (conv_seg, decode) = shared.build_with(self.transform(shared), inputs, builder)?;
        let (channels, module) = (shared.channels, shared.conv_module());
        let of = |module: &ConvModuleConfig, input| {
            module.init([input, channels], 1, square(1, 0, 1), builder)
        };
        let convs = shared.in_channels.iter().map(|&input| of(&module, input)).collect();
        // mmseg's last convolution has a ReLU whatever the others have.
        let last = ConvModuleConfig { act_cfg: Some(ActConfig::default()), ..module.clone() };
        let fusion_conv = of(&last, shared.in_channels.len() * channels);
        let mode = self.interpolate_mode;
        Ok(SegformerHead { conv_seg, convs, fusion_conv, mode, decode }.into())
    }
}

/// Maps, joined at the first one's size.
#[derive(Module, Debug)]
pub struct SegformerHead {
    conv_seg: Conv2d,
    convs: Vec<ConvModule>,
    fusion_conv: ConvModule,
    #[module(skip)]
    mode: InterpolationMode,
    #[module(skip)]
    decode: Decode,
}

impl RunHead for SegformerHead {
    fn forward(&self, seen: Seen, ctx: &Forward) -> Tensor<4> {
        let maps = self.decode.select_each(seen.features);
        let [.., height, width] = maps[0].dims();
        let align_corners = self.decode.align_corners();
        let resized = self.convs.iter().zip(maps).map(|(conv, map)| {
            self.mode.resize(conv.forward(map, ctx), [height, width], align_corners)
        });
        let x = self.fusion_conv.forward(ops::concat(resized.collect()), ctx);
        self.decode.classify(&self.conv_seg, x, ctx)
    }

    fn decode(&self) -> &Decode {
        &self.decode
    }
}
