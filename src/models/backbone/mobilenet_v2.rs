//! MobileNetV2 (Sandler et al. 2018).

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

use super::Backbone;
use crate::config::{OneOrMany, default};
use crate::models::contract::{BackboneSpec, Feature, Initial, RunBackbone};
use crate::models::layer::{
    ActConfig, ConvConfig, ConvModule, ConvModuleConfig, InplaceConfig, InvertedConfig,
    InvertedResidual, NormConfig, make_divisible, square,
};
use crate::models::{Builder, Forward, InitConfig, ModelError};

/// The keys of `type: MobileNetV2`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct MobileNetV2Config {
    /// How many times wider than the paper's it is.
    #[serde(default = "default::f::<1>")]
    #[serde(deserialize_with = "crate::config::above_zero")]
    pub widen_factor: f64,
    #[serde(default = "default_strides")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub strides: Vec<usize>,
    #[serde(default = "default::list::<1, 7>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub dilations: Vec<usize>,
    /// The layers whose output the heads see.
    #[serde(default = "default_out_indices")]
    pub out_indices: Vec<usize>,
    /// The first convolution and this many layers are not trained; -1 freezes nothing.
    #[serde(default = "default::i::<-1>")]
    pub frozen_stages: i64,
    #[serde(default)]
    pub conv_cfg: Option<ConvConfig>,
    #[serde(default = "NormConfig::batch")]
    pub norm_cfg: NormConfig,
    #[serde(default = "relu6")]
    pub act_cfg: ActConfig,
    /// All norms use their running statistics in training too.
    #[serde(default)]
    pub norm_eval: bool,
    /// Keep each block's input alone and compute the rest again in the backward pass: less memory,
    /// more time.
    #[serde(default)]
    pub with_cp: bool,
    #[serde(default)]
    pub pretrained: Option<String>,
    #[serde(default)]
    pub init_cfg: Option<OneOrMany<InitConfig>>,
}

fn default_strides() -> Vec<usize> {
    vec![1, 2, 2, 2, 1, 2, 1]
}
fn default_out_indices() -> Vec<usize> {
    vec![1, 2, 4, 6]
}
fn relu6() -> ActConfig {
    ActConfig::ReLU6(InplaceConfig::default())
}

/// How many times wider each layer's blocks are inside, its channels, and how many blocks it has.
const LAYERS: [(usize, usize, usize); 7] =
    [(1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1)];

impl BackboneSpec for MobileNetV2Config {
    fn check(&self, image: Feature) -> Result<Vec<Feature>, ModelError> {
        image.matches(3)?;
        super::one_for_each_layer("strides", &self.strides, 7)?;
        super::one_for_each_layer("dilations", &self.dilations, 7)?;
        super::stages_that_are("out_indices", &self.out_indices, 7)?;
        if let Some(stride) = self.strides.iter().find(|it| **it > 2) {
            let problem = format!("expected 1 or 2, got {stride}");
            return Err(ModelError::config("strides", problem));
        }
        if !(-1..7).contains(&self.frozen_stages) {
            let problem = format!("expected -1 to 6, got {}", self.frozen_stages);
            return Err(ModelError::config("frozen_stages", problem));
        }
        let mut stride = image.stride * 2;
        let maps = (0..LAYERS.len()).map(|layer| {
            stride *= self.strides[layer];
            Feature { channels: self.width(layer), stride }
        });
        let maps: Vec<Feature> = maps.collect();
        Ok(super::chosen(maps, &self.out_indices))
    }

    fn build(&self, _: Feature, builder: &Builder) -> Result<Backbone, ModelError> {
        Ok(builder.norm_eval(self.norm_eval, || self.init(builder)).into())
    }

    fn initial(&self) -> Initial {
        Initial { rules: vec![InitConfig::kaiming()], zeros: None }
    }

    fn pretrained(&self) -> Option<&str> {
        self.pretrained.as_deref()
    }

    fn init_cfg(&self) -> Option<&[InitConfig]> {
        self.init_cfg.as_deref()
    }
}

impl MobileNetV2Config {
    fn first(&self) -> usize {
        make_divisible(32.0 * self.widen_factor)
    }

    fn width(&self, layer: usize) -> usize {
        make_divisible(LAYERS[layer].1 as f64 * self.widen_factor)
    }

    fn init(&self, builder: &Builder) -> MobileNetV2 {
        let module = ConvModuleConfig {
            norm_cfg: Some(self.norm_cfg.clone()),
            act_cfg: Some(self.act_cfg.clone()),
        };
        // As in mmseg, the norm of a frozen first convolution takes part as ever.
        let conv1 = builder.untrained(self.frozen_stages >= 0, || {
            module.init([3, self.first()], 3, square(2, 1, 1), builder)
        });
        let layer = |layer: usize| -> Vec<InvertedResidual> {
            let (expand_ratio, _, blocks) = LAYERS[layer];
            let input = if layer == 0 { self.first() } else { self.width(layer - 1) };
            let output = self.width(layer);
            let block = |index| {
                let first = index == 0;
                let config = InvertedConfig {
                    channels: [if first { input } else { output }, output],
                    stride: if first { self.strides[layer] } else { 1 },
                    expand_ratio,
                    dilation: if first { self.dilations[layer] } else { 1 },
                    module: &module,
                };
                InvertedResidual::new(config, builder)
            };
            builder.frozen(self.frozen_stages > layer as i64, || (0..blocks).map(block).collect())
        };
        MobileNetV2 {
            conv1,
            layer1: layer(0),
            layer2: layer(1),
            layer3: layer(2),
            layer4: layer(3),
            layer5: layer(4),
            layer6: layer(5),
            layer7: layer(6),
            out_indices: self.out_indices.clone(),
            with_cp: self.with_cp,
        }
    }
}

/// A MobileNetV2.
#[derive(Module, Debug)]
pub struct MobileNetV2 {
    conv1: ConvModule,
    layer1: Vec<InvertedResidual>,
    layer2: Vec<InvertedResidual>,
    layer3: Vec<InvertedResidual>,
    layer4: Vec<InvertedResidual>,
    layer5: Vec<InvertedResidual>,
    layer6: Vec<InvertedResidual>,
    layer7: Vec<InvertedResidual>,
    #[module(skip)]
    out_indices: Vec<usize>,
    #[module(skip)]
    with_cp: bool,
}

impl RunBackbone for MobileNetV2 {
    /// `[n, 3, h, w]` to the outputs of the layers in `out_indices`.
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Vec<Tensor<4>> {
        let mut x = self.conv1.forward(x, ctx);
        let mut maps = Vec::with_capacity(LAYERS.len());
        for layer in [
            &self.layer1,
            &self.layer2,
            &self.layer3,
            &self.layer4,
            &self.layer5,
            &self.layer6,
            &self.layer7,
        ] {
            for block in layer {
                x = if self.with_cp {
                    ctx.recomputed(block, [x], |block, [x], ctx| block.forward(x, ctx))
                } else {
                    block.forward(x, ctx)
                };
            }
            maps.push(x.clone());
        }
        super::chosen(maps, &self.out_indices)
    }
}
