//! The head of Semantic FPN (Kirillov et al. 2019): every level of a pyramid is brought to the
//! largest one's size step by step, and all are added.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

use super::{Decode, DecodeConfig, Head, InputTransform};
use crate::config::Both;
use crate::models::contract::{Feature, HeadKeys, RunHead, Seen};
use crate::models::layer::{Conv2d, ConvModule, InterpolationMode, Larger, square};
use crate::models::{Builder, Forward, ModelError};

/// The keys of `type: FPNHead`.
pub type FPNHeadConfig = Both<DecodeConfig, FPNHeadKeys>;

/// Its own keys.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct FPNHeadKeys {
    /// How many pixels of the image one of each level is wide; the first is the smallest.
    #[serde(deserialize_with = "crate::config::positive")]
    pub feature_strides: Vec<usize>,
}

impl FPNHeadKeys {
    /// How many convolutions a level has, each followed by a doubling unless it is the first
    /// level's size.
    fn steps(&self, stride: usize) -> usize {
        let levels = (stride as f64).log2() - (self.feature_strides[0] as f64).log2();
        (levels as usize).max(1)
    }
}

impl HeadKeys for FPNHeadKeys {
    fn transform(&self, _: &DecodeConfig) -> Option<InputTransform> {
        Some(InputTransform::MultipleSelect)
    }

    fn check(&self, shared: &DecodeConfig, _: &[Feature]) -> Result<(), ModelError> {
        shared.maps_as_they_are()?;
        let (strides, maps) = (&self.feature_strides, shared.in_channels.len());
        if strides.len() != maps {
            let problem =
                format!("has {} numbers, and there are {maps} feature maps", strides.len());
            return Err(ModelError::config("feature_strides", problem));
        }
        if strides.iter().min() != strides.first() {
            let problem = format!("the first has to be the smallest, got {strides:?}");
            return Err(ModelError::config("feature_strides", problem));
        }
        Ok(())
    }

    fn build(
        &self,
        shared: &DecodeConfig,
        inputs: &[Feature],
        builder: &Builder,
    ) -> Result<Head, ModelError> {
        let (conv_seg, decode) = shared.build_with(self.transform(shared), inputs, builder)?;
        let (channels, module) = (shared.channels, shared.conv_module());
        let level = |(&input, &stride): (&usize, &usize)| {
            let step = |index| {
                let input = if index == 0 { input } else { channels };
                let conv = module.init([input, channels], 3, square(1, 1, 1), builder);
                let larger = stride != self.feature_strides[0];
                let doubling = larger.then(|| {
                    let (mode, align_corners) = (InterpolationMode::Bilinear, shared.align_corners);
                    Step::Larger(Larger { scale_factor: 2, mode, align_corners })
                });
                std::iter::once(Step::Conv(conv)).chain(doubling)
            };
            (0..self.steps(stride)).flat_map(step).collect()
        };
        let scale_heads = shared.in_channels.iter().zip(&self.feature_strides).map(level).collect();
        Ok(FPNHead { conv_seg, scale_heads, decode }.into())
    }
}

/// Levels, each convolved and enlarged.
#[derive(Module, Debug)]
pub struct FPNHead {
    conv_seg: Conv2d,
    scale_heads: Vec<Vec<Step>>,
    #[module(skip)]
    decode: Decode,
}

#[derive(Module, Debug)]
enum Step {
    Conv(ConvModule),
    Larger(Larger),
}

impl RunHead for FPNHead {
    fn forward(&self, seen: Seen, ctx: &Forward) -> Tensor<4> {
        let maps = self.decode.select_each(seen.features);
        let scaled = self.scale_heads.iter().zip(maps).map(|(steps, map)| {
            steps.iter().fold(map, |x, step| match step {
                Step::Conv(conv) => conv.forward(x, ctx),
                Step::Larger(doubling) => doubling.forward(x),
            })
        });
        let sum = scaled.reduce(|sum, x| {
            let [.., height, width] = sum.dims();
            sum + self.decode.resize(x, [height, width])
        });
        let x = sum.expect("checked: there is a level");
        self.decode.classify(&self.conv_seg, x, ctx)
    }

    fn decode(&self) -> &Decode {
        &self.decode
    }
}
