//! MSCAN, the backbone of SegNeXt (Guo et al. 2022): attention made of depthwise strips of several
//! lengths.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use serde::Deserialize;

use super::Backbone;
use crate::config::{OneOrMany, default};
use crate::models::contract::{BackboneSpec, Feature, Initial, RunBackbone};
use crate::models::layer::{
    Act, ActConfig, BatchNormConfig, Conv2d, DropPath, Dropout, Kernel, LayerNorm, Norm,
    NormConfig, TokenNormConfig, add_scaled, drop_path_rates, layer_scale, normed, square, to_map,
    to_tokens,
};
use crate::models::{Builder, Forward, InitConfig, ModelError};
use crate::ops::{self, Activation};

/// The keys of `type: MSCAN`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct MSCANConfig {
    #[serde(default = "default::n::<3>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub in_channels: usize,
    #[serde(default = "default_widths")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub embed_dims: Vec<usize>,
    /// How many times wider a block is inside.
    #[serde(default = "default::list::<4, 4>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub mlp_ratios: Vec<usize>,
    #[serde(default)]
    #[serde(deserialize_with = "crate::config::below_one")]
    pub drop_rate: f64,
    /// That of the last block; those before have less.
    #[serde(default)]
    #[serde(deserialize_with = "crate::config::below_one")]
    pub drop_path_rate: f64,
    #[serde(default = "default_depths")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub depths: Vec<usize>,
    /// Four.
    #[serde(default = "default::n::<4>")]
    pub num_stages: usize,
    /// A square kernel, and three strips.
    #[serde(default = "default_kernels")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub attention_kernel_sizes: Vec<OneOrMany<usize>>,
    #[serde(default = "default_paddings")]
    pub attention_kernel_paddings: Vec<OneOrMany<usize>>,
    #[serde(default = "ActConfig::gelu")]
    pub act_cfg: ActConfig,
    #[serde(default = "default_norm")]
    pub norm_cfg: NormConfig,
    #[serde(default)]
    pub pretrained: Option<String>,
    #[serde(default)]
    pub init_cfg: Option<OneOrMany<InitConfig>>,
}

fn default_widths() -> Vec<usize> {
    vec![64, 128, 256, 512]
}
fn default_depths() -> Vec<usize> {
    vec![3, 4, 6, 3]
}
fn default_kernels() -> Vec<OneOrMany<usize>> {
    [vec![5], vec![1, 7], vec![1, 11], vec![1, 21]].map(OneOrMany).to_vec()
}
fn default_paddings() -> Vec<OneOrMany<usize>> {
    [vec![2], vec![0, 3], vec![0, 5], vec![0, 10]].map(OneOrMany).to_vec()
}
fn default_norm() -> NormConfig {
    NormConfig::SyncBN(BatchNormConfig::default())
}

/// Kernel and padding of the square one and of the three strips, as (height, width).
type Strips = [([usize; 2], [usize; 2]); 4];

/// What the factors of residual branches begin as.
const SCALE: f64 = 1e-2;

impl BackboneSpec for MSCANConfig {
    fn check(&self, image: Feature) -> Result<Vec<Feature>, ModelError> {
        image.matches(self.in_channels)?;
        if self.num_stages != 4 {
            let problem = format!("expected 4, got {}", self.num_stages);
            return Err(ModelError::config("num_stages", problem));
        }
        super::one_for_each_stage("embed_dims", &self.embed_dims, 4)?;
        super::one_for_each_stage("mlp_ratios", &self.mlp_ratios, 4)?;
        super::one_for_each_stage("depths", &self.depths, 4)?;
        self.strips()?;
        self.embed_dims.iter().try_for_each(|&it| self.norm_cfg.check(it))?;
        let stages = self.embed_dims.iter().enumerate();
        Ok(stages
            .map(|(stage, &channels)| Feature { channels, stride: image.stride * (4 << stage) })
            .collect())
    }

    fn build(&self, _: Feature, builder: &Builder) -> Result<Backbone, ModelError> {
        let [_, second, third, fourth] = [0, 1, 2, 3].map(|it: usize| self.embed_dims[it]);
        let first = self.embed_dims[0];
        let mut rates = drop_path_rates(self.drop_path_rate, self.depths.iter().sum()).into_iter();
        let strips = self.strips()?;
        let mut blocks = |stage: usize| -> Vec<MSCABlock> {
            let made = |_| self.block(stage, &strips, rates.next().unwrap_or_default(), builder);
            (0..self.depths[stage]).map(made).collect()
        };
        let embed = |channels: [usize; 2]| OverlapPatchEmbed {
            proj: Conv2d::new(channels, 3, square(2, 1, 1), builder).with_bias(builder),
            norm: self.norm_cfg.init(channels[1], builder),
        };
        let norm = |channels| TokenNormConfig::default().init(channels, builder);
        Ok(MSCAN {
            patch_embed1: self.stem(builder),
            block1: blocks(0),
            norm1: norm(first),
            patch_embed2: embed([first, second]),
            block2: blocks(1),
            norm2: norm(second),
            patch_embed3: embed([second, third]),
            block3: blocks(2),
            norm3: norm(third),
            patch_embed4: embed([third, fourth]),
            block4: blocks(3),
            norm4: norm(fourth),
        }
        .into())
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

impl MSCANConfig {
    /// Kernels and paddings of the square one and of the three strips.
    fn strips(&self) -> Result<Strips, ModelError> {
        let pair = |values: &OneOrMany<usize>| match values[..] {
            [side] => Some([side; 2]),
            [height, width] => Some([height, width]),
            _ => None,
        };
        let four = |key: &'static str, found: &[OneOrMany<usize>]| {
            let pairs: Option<Vec<[usize; 2]>> = found.iter().map(pair).collect();
            pairs.and_then(|it| <[[usize; 2]; 4]>::try_from(it).ok()).ok_or_else(|| {
                ModelError::config(key, "expected four values, each a number or two")
            })
        };
        let kernels = four("attention_kernel_sizes", &self.attention_kernel_sizes)?;
        let paddings = four("attention_kernel_paddings", &self.attention_kernel_paddings)?;
        let strips = [0, 1, 2, 3].map(|it| (kernels[it], paddings[it]));
        if strips
            .iter()
            .any(|(kernel, padding)| (0..2).any(|axis| kernel[axis] != 2 * padding[axis] + 1))
        {
            let problem = "half of each kernel, so that sizes stay";
            return Err(ModelError::config("attention_kernel_paddings", problem));
        }
        Ok(strips)
    }

    fn stem(&self, builder: &Builder) -> StemConv {
        let (full, half) = (self.embed_dims[0], self.embed_dims[0] / 2);
        let conv = |channels| Conv2d::new(channels, 3, square(2, 1, 1), builder).with_bias(builder);
        let norm = |channels| self.norm_cfg.init(channels, builder);
        StemConv {
            proj: (
                conv([self.in_channels, half]),
                norm(half),
                ActConfig::gelu().init(builder),
                conv([half, full]),
                norm(full),
            ),
        }
    }

    fn block(&self, stage: usize, strips: &Strips, drop_path: f64, builder: &Builder) -> MSCABlock {
        let channels = self.embed_dims[stage];
        let pointwise =
            |channels| Conv2d::new(channels, 1, square(1, 0, 1), builder).with_bias(builder);
        let depthwise = |channels: usize, kernel: [usize; 2], padding: [usize; 2]| {
            let conv = ops::Conv { padding, groups: channels, ..ops::Conv::default() };
            Conv2d::new([channels; 2], Kernel(kernel), conv, builder).with_bias(builder)
        };
        let strip = |index: usize| {
            let (kernel, padding) = strips[index];
            let turned = |[height, width]: [usize; 2]| [width, height];
            [
                depthwise(channels, kernel, padding),
                depthwise(channels, turned(kernel), turned(padding)),
            ]
        };
        let norm1 = self.norm_cfg.init(channels, builder);
        let proj_1 = pointwise([channels; 2]);
        let activation = self.act_cfg.init(builder);
        let conv0 = depthwise(channels, strips[0].0, strips[0].1);
        let ([conv0_1, conv0_2], [conv1_1, conv1_2], [conv2_1, conv2_2]) =
            (strip(1), strip(2), strip(3));
        let conv3 = pointwise([channels; 2]);
        let spatial_gating_unit =
            MSCAAttention { conv0, conv0_1, conv0_2, conv1_1, conv1_2, conv2_1, conv2_2, conv3 };
        let attn = SpatialAttention {
            proj_1,
            activation,
            spatial_gating_unit,
            proj_2: pointwise([channels; 2]),
        };
        let inner = channels * self.mlp_ratios[stage];
        MSCABlock {
            layer_scale_1: layer_scale(channels, SCALE, builder),
            layer_scale_2: layer_scale(channels, SCALE, builder),
            norm1,
            attn,
            norm2: self.norm_cfg.init(channels, builder),
            mlp: Mlp {
                fc1: pointwise([channels, inner]),
                dwconv: depthwise(inner, [3; 2], [1; 2]),
                act: self.act_cfg.init(builder),
                fc2: pointwise([inner, channels]),
                drop: Dropout::new(self.drop_rate),
            },
            drop_path: DropPath::new(drop_path),
        }
    }
}

/// A multi-scale convolutional attention network.
#[derive(Module, Debug)]
pub struct MSCAN {
    patch_embed1: StemConv,
    block1: Vec<MSCABlock>,
    norm1: LayerNorm,
    patch_embed2: OverlapPatchEmbed,
    block2: Vec<MSCABlock>,
    norm2: LayerNorm,
    patch_embed3: OverlapPatchEmbed,
    block3: Vec<MSCABlock>,
    norm3: LayerNorm,
    patch_embed4: OverlapPatchEmbed,
    block4: Vec<MSCABlock>,
    norm4: LayerNorm,
}

#[derive(Module, Debug)]
struct StemConv {
    proj: (Conv2d, Norm, Act, Conv2d, Norm),
}

#[derive(Module, Debug)]
struct OverlapPatchEmbed {
    proj: Conv2d,
    norm: Norm,
}

#[derive(Module, Debug)]
struct MSCABlock {
    layer_scale_1: Param<Tensor<1>>,
    layer_scale_2: Param<Tensor<1>>,
    norm1: Norm,
    attn: SpatialAttention,
    norm2: Norm,
    mlp: Mlp,
    drop_path: DropPath,
}

/// mmseg's `MSCASpatialAttention`.
#[derive(Module, Debug)]
struct SpatialAttention {
    proj_1: Conv2d,
    activation: Act,
    spatial_gating_unit: MSCAAttention,
    proj_2: Conv2d,
}

#[derive(Module, Debug)]
struct MSCAAttention {
    conv0: Conv2d,
    conv0_1: Conv2d,
    conv0_2: Conv2d,
    conv1_1: Conv2d,
    conv1_2: Conv2d,
    conv2_1: Conv2d,
    conv2_2: Conv2d,
    conv3: Conv2d,
}

#[derive(Module, Debug)]
struct Mlp {
    fc1: Conv2d,
    dwconv: Conv2d,
    act: Act,
    fc2: Conv2d,
    drop: Dropout,
}

impl RunBackbone for MSCAN {
    /// `[n, c, h, w]` to the maps of all stages.
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Vec<Tensor<4>> {
        let stage = |x: Tensor<4>, blocks: &[MSCABlock], norm: &LayerNorm| {
            let x = blocks.iter().fold(x, |x, block| block.forward(x, ctx));
            let [.., height, width] = x.dims();
            to_map(norm.forward(to_tokens(x)), [height, width])
        };
        let first = stage(self.patch_embed1.forward(x, ctx), &self.block1, &self.norm1);
        let next = |x: &Tensor<4>, embed: &OverlapPatchEmbed| embed.forward(x.clone(), ctx);
        let second = stage(next(&first, &self.patch_embed2), &self.block2, &self.norm2);
        let third = stage(next(&second, &self.patch_embed3), &self.block3, &self.norm3);
        let fourth = stage(next(&third, &self.patch_embed4), &self.block4, &self.norm4);
        vec![first, second, third, fourth]
    }
}

impl StemConv {
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let (first, norm1, act, second, norm4) = &self.proj;
        let x = normed(first.forward(x), Some(norm1), Some(act), ctx);
        norm4.forward(second.forward(x), Activation::None, ctx)
    }
}

impl OverlapPatchEmbed {
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        self.norm.forward(self.proj.forward(x), Activation::None, ctx)
    }
}

impl MSCABlock {
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let seen = self.attn.forward(self.norm1.forward(x.clone(), Activation::None, ctx));
        let x = add_scaled(x, seen, &self.layer_scale_1, &self.drop_path, ctx);
        let made = self.mlp.forward(self.norm2.forward(x.clone(), Activation::None, ctx), ctx);
        add_scaled(x, made, &self.layer_scale_2, &self.drop_path, ctx)
    }
}

impl SpatialAttention {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let gated = self.activation.forward(self.proj_1.forward(x.clone()));
        self.proj_2.forward(self.spatial_gating_unit.forward(gated)) + x
    }
}

impl MSCAAttention {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let square = self.conv0.forward(x.clone());
        let strip = |first: &Conv2d, second: &Conv2d| second.forward(first.forward(square.clone()));
        let sum = square.clone()
            + strip(&self.conv0_1, &self.conv0_2)
            + strip(&self.conv1_1, &self.conv1_2)
            + strip(&self.conv2_1, &self.conv2_2);
        self.conv3.forward(sum) * x
    }
}

impl Mlp {
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let x = self.act.forward(self.dwconv.forward(self.fc1.forward(x)));
        let x = self.fc2.forward(self.drop.forward(x, ctx));
        self.drop.forward(x, ctx)
    }
}
