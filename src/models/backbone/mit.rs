//! The Mix Transformer of SegFormer (Xie et al. 2021): tokens of overlapping patches, attention to
//! a smaller map, and a convolution in place of position embeddings.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

use super::Backbone;
use crate::config::{OneOrMany, default};
use crate::models::contract::{BackboneSpec, Feature, Initial, RunBackbone};
use crate::models::layer::{
    Act, ActConfig, Conv2d, DropPath, Dropout, LayerNorm, Padding, PatchConfig, PatchEmbed,
    ReducedAttention, ReducedConfig, TokenNormConfig, drop_path_rates, square, to_map, to_tokens,
};
use crate::models::{Builder, Forward, InitConfig, ModelError};
use crate::ops;

/// The keys of `type: MixVisionTransformer`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct MixVisionTransformerConfig {
    #[serde(default = "default::n::<3>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub in_channels: usize,
    /// Channels of each head.
    #[serde(default = "default::n::<64>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub embed_dims: usize,
    #[serde(default = "default::n::<4>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub num_stages: usize,
    #[serde(default = "default_layers")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub num_layers: Vec<usize>,
    #[serde(default = "default_heads")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub num_heads: Vec<usize>,
    #[serde(default = "default_patches")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub patch_sizes: Vec<usize>,
    #[serde(default = "default_strides")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub strides: Vec<usize>,
    /// How many times smaller than a stage's map the one is that it attends to.
    #[serde(default = "default_reductions")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub sr_ratios: Vec<usize>,
    /// The stages whose output the heads see.
    #[serde(default = "default_out_indices")]
    pub out_indices: Vec<usize>,
    /// How many times wider a layer is inside.
    #[serde(default = "default::n::<4>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub mlp_ratio: usize,
    #[serde(default = "default::yes")]
    pub qkv_bias: bool,
    #[serde(default)]
    #[serde(deserialize_with = "crate::config::below_one")]
    pub drop_rate: f64,
    #[serde(default)]
    #[serde(deserialize_with = "crate::config::below_one")]
    pub attn_drop_rate: f64,
    /// That of the last layer; those before have less.
    #[serde(default)]
    #[serde(deserialize_with = "crate::config::below_one")]
    pub drop_path_rate: f64,
    #[serde(default = "ActConfig::gelu")]
    pub act_cfg: ActConfig,
    #[serde(default = "default_norm")]
    pub norm_cfg: TokenNormConfig,
    /// Keep each layer's input alone and compute the rest again in the backward pass: less memory,
    /// more time.
    #[serde(default)]
    pub with_cp: bool,
    #[serde(default)]
    pub pretrained: Option<String>,
    #[serde(default)]
    pub init_cfg: Option<OneOrMany<InitConfig>>,
}

fn default_layers() -> Vec<usize> {
    vec![3, 4, 6, 3]
}
fn default_heads() -> Vec<usize> {
    vec![1, 2, 4, 8]
}
fn default_patches() -> Vec<usize> {
    vec![7, 3, 3, 3]
}
fn default_strides() -> Vec<usize> {
    vec![4, 2, 2, 2]
}
fn default_reductions() -> Vec<usize> {
    vec![8, 4, 2, 1]
}
fn default_out_indices() -> Vec<usize> {
    vec![0, 1, 2, 3]
}
fn default_norm() -> TokenNormConfig {
    TokenNormConfig::with_eps(1e-6)
}

impl BackboneSpec for MixVisionTransformerConfig {
    fn check(&self, image: Feature) -> Result<Vec<Feature>, ModelError> {
        image.matches(self.in_channels)?;
        for (key, found) in [
            ("num_layers", &self.num_layers),
            ("num_heads", &self.num_heads),
            ("patch_sizes", &self.patch_sizes),
            ("strides", &self.strides),
            ("sr_ratios", &self.sr_ratios),
        ] {
            super::one_for_each_stage(key, found, self.num_stages)?;
        }
        super::stages_that_are("out_indices", &self.out_indices, self.num_stages)?;
        let mut stride = image.stride;
        let stages = (0..self.num_stages).map(|stage| {
            stride *= self.strides[stage];
            Feature { channels: self.width(stage), stride }
        });
        let stages: Vec<Feature> = stages.collect();
        Ok(super::chosen(stages, &self.out_indices))
    }

    fn build(&self, _: Feature, builder: &Builder) -> Result<Backbone, ModelError> {
        let rates = drop_path_rates(self.drop_path_rate, self.num_layers.iter().sum());
        let mut rates = rates.into_iter();
        let stage = |stage: usize| {
            let input = if stage == 0 { self.in_channels } else { self.width(stage - 1) };
            let (kernel, width) = (self.patch_sizes[stage], self.width(stage));
            let patches = PatchConfig {
                channels: [input, width],
                kernel,
                stride: self.strides[stage],
                padding: Padding::Around(kernel / 2),
            };
            let patch_embed = PatchEmbed::new(patches, Some(&self.norm_cfg), builder);
            let layers = (0..self.num_layers[stage])
                .map(|_| self.layer(stage, rates.next().unwrap_or_default(), builder))
                .collect();
            (patch_embed, layers, self.norm_cfg.init(width, builder))
        };
        let layers = (0..self.num_stages).map(stage).collect();
        let (out_indices, with_cp) = (self.out_indices.clone(), self.with_cp);
        Ok(MixVisionTransformer { layers, out_indices, with_cp }.into())
    }

    fn initial(&self) -> Initial {
        Initial { rules: InitConfig::transformer(), zeros: None }
    }

    fn pretrained(&self) -> Option<&str> {
        self.pretrained.as_deref()
    }

    fn init_cfg(&self) -> Option<&[InitConfig]> {
        self.init_cfg.as_deref()
    }
}

impl MixVisionTransformerConfig {
    fn width(&self, stage: usize) -> usize {
        self.embed_dims * self.num_heads[stage]
    }

    fn layer(&self, stage: usize, drop_path: f64, builder: &Builder) -> MixLayer {
        let width = self.width(stage);
        let inner = self.mlp_ratio * width;
        let conv = |channels, kernel, conv| {
            Conv2d::new(channels, kernel, conv, builder).with_bias(builder)
        };
        let norm1 = self.norm_cfg.init(width, builder);
        let attention = ReducedConfig {
            channels: width,
            heads: self.num_heads[stage],
            bias: self.qkv_bias,
            ratio: self.sr_ratios[stage],
            dropout: [self.attn_drop_rate, self.drop_rate],
            norm_cfg: &self.norm_cfg,
        };
        let attn = ReducedAttention::new(attention, builder);
        let norm2 = self.norm_cfg.init(width, builder);
        let by_channel = ops::Conv { groups: inner, ..square(1, 1, 1) };
        let ffn = MixFFN {
            layers: (
                conv([width, inner], 1, square(1, 0, 1)),
                conv([inner; 2], 3, by_channel),
                self.act_cfg.init(builder),
                Dropout::new(self.drop_rate),
                conv([inner, width], 1, square(1, 0, 1)),
                Dropout::new(self.drop_rate),
            ),
        };
        MixLayer { norm1, attn, norm2, ffn, drop_path: DropPath::new(drop_path) }
    }
}

/// A Mix Transformer.
#[derive(Module, Debug)]
pub struct MixVisionTransformer {
    layers: Vec<(PatchEmbed, Vec<MixLayer>, LayerNorm)>,
    #[module(skip)]
    out_indices: Vec<usize>,
    #[module(skip)]
    with_cp: bool,
}

/// mmseg's `TransformerEncoderLayer`.
#[derive(Module, Debug)]
struct MixLayer {
    norm1: LayerNorm,
    attn: ReducedAttention,
    norm2: LayerNorm,
    ffn: MixFFN,
    drop_path: DropPath,
}

/// mmseg's `MixFFN`.
#[derive(Module, Debug)]
struct MixFFN {
    layers: (Conv2d, Conv2d, Act, Dropout, Conv2d, Dropout),
}

impl RunBackbone for MixVisionTransformer {
    /// `[n, c, h, w]` to the maps of the stages in `out_indices`.
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Vec<Tensor<4>> {
        let mut map = x;
        let mut maps = Vec::with_capacity(self.layers.len());
        for (patch_embed, layers, norm) in &self.layers {
            let (x, size) = patch_embed.forward(map);
            let x = layers.iter().fold(x, |x, layer| {
                if self.with_cp {
                    ctx.recomputed(layer, [x], move |layer, [x], ctx| layer.forward(x, size, ctx))
                } else {
                    layer.forward(x, size, ctx)
                }
            });
            map = to_map(norm.forward(x), size);
            maps.push(map.clone());
        }
        super::chosen(maps, &self.out_indices)
    }
}

impl MixLayer {
    fn forward(&self, x: Tensor<3>, size: [usize; 2], ctx: &Forward) -> Tensor<3> {
        let seen = self.attn.forward(self.norm1.forward(x.clone()), size, ctx);
        let x = x + self.drop_path.forward(seen, ctx);
        let made = self.ffn.forward(self.norm2.forward(x.clone()), size, ctx);
        x + self.drop_path.forward(made, ctx)
    }
}

impl MixFFN {
    fn forward(&self, x: Tensor<3>, size: [usize; 2], ctx: &Forward) -> Tensor<3> {
        let (first, positions, act, inner, last, dropout) = &self.layers;
        let x = positions.forward(first.forward(to_map(x, size)));
        let x = last.forward(inner.forward(act.forward(x), ctx));
        to_tokens(dropout.forward(x, ctx))
    }
}
