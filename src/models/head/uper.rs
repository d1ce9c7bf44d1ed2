//! The head of UPerNet (Xiao et al. 2018): pyramid pooling at the top of a feature pyramid, all of
//! whose levels are joined.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

use super::{Decode, DecodeConfig, Head, InputTransform};
use crate::config::Both;
use crate::models::contract::{Feature, HeadSpec, RunHead, Seen};
use crate::models::layer::{Conv2d, ConvModule, PyramidPooling, square};
use crate::models::{Builder, Forward, ModelError};
use crate::ops;

/// The keys of `type: UPerHead`.
pub type UPerHeadConfig = Both<DecodeConfig, UPerKeys>;

/// Its own keys.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct UPerKeys {
    /// Sides of the grids that the last map is averaged over.
    #[serde(default = "PyramidPooling::default_scales")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub pool_scales: Vec<usize>,
}

impl HeadSpec for UPerHeadConfig {
    fn transform(&self) -> Option<InputTransform> {
        Some(InputTransform::MultipleSelect)
    }

    fn check(&self, _: &[Feature]) -> Result<(), ModelError> {
        self.shared.maps_as_they_are()
    }

    fn build(&self, inputs: &[Feature], builder: &Builder) -> Result<Head, ModelError> {
        let (conv_seg, decode) = self.shared.build_with(self.transform(), inputs, builder)?;
        let (channels, module) = (self.shared.channels, self.shared.conv_module());
        let of = |input, kernel: usize| {
            module.init([input, channels], kernel, square(1, kernel / 2, 1), builder)
        };
        let maps = &self.shared.in_channels;
        let (last, below) = (maps[maps.len() - 1], &maps[..maps.len() - 1]);
        let psp_modules =
            PyramidPooling::new(&self.pool_scales, [last, channels], &module, builder);
        let bottleneck = of(last + self.pool_scales.len() * channels, 3);
        let lateral_convs = below.iter().map(|&input| of(input, 1)).collect();
        let fpn_convs = below.iter().map(|_| of(channels, 3)).collect();
        let fpn_bottleneck = of(maps.len() * channels, 3);
        Ok(UPerHead {
            conv_seg,
            psp_modules,
            bottleneck,
            lateral_convs,
            fpn_convs,
            fpn_bottleneck,
            decode,
        }
        .into())
    }
}

/// Levels from the top down, each the map and the level above it; all joined at the first one's
/// size.
#[derive(Module, Debug)]
pub struct UPerHead {
    conv_seg: Conv2d,
    psp_modules: PyramidPooling,
    bottleneck: ConvModule,
    lateral_convs: Vec<ConvModule>,
    fpn_convs: Vec<ConvModule>,
    fpn_bottleneck: ConvModule,
    #[module(skip)]
    decode: Decode,
}

impl RunHead for UPerHead {
    fn forward(&self, seen: Seen, ctx: &Forward) -> Tensor<4> {
        let maps = self.decode.select_each(seen.features);
        let mut levels: Vec<Tensor<4>> = self
            .lateral_convs
            .iter()
            .zip(&maps)
            .map(|(conv, map)| conv.forward(map.clone(), ctx))
            .collect();
        let top = maps[maps.len() - 1].clone();
        let pooled = ops::concat(self.psp_modules.forward(top, self.decode.align_corners(), ctx));
        levels.push(self.bottleneck.forward(pooled, ctx));
        let size = |x: &Tensor<4>| [x.dims()[2], x.dims()[3]];
        for level in (1..levels.len()).rev() {
            let above = self.decode.resize(levels[level].clone(), size(&levels[level - 1]));
            levels[level - 1] = levels[level - 1].clone() + above;
        }
        let first = size(&levels[0]);
        let joined = levels.into_iter().enumerate().map(|(level, x)| {
            let x = self
                .fpn_convs
                .get(level)
                .map_or_else(|| x.clone(), |conv| conv.forward(x.clone(), ctx));
            self.decode.resize(x, first)
        });
        let x = self.fpn_bottleneck.forward(ops::concat(joined.collect()), ctx);
        self.decode.classify(&self.conv_seg, x, ctx)
    }

    fn decode(&self) -> &Decode {
        &self.decode
    }
}
