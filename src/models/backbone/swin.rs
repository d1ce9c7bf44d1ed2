//! Swin Transformer (Liu et al. 2021): attention within windows that are shifted from one block to
//! the next, over maps that are halved from stage to stage.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor};
use serde::Deserialize;

use super::Backbone;
use crate::config::{OneOrMany, default};
use crate::models::contract::{BackboneSpec, Feature, Initial, RunBackbone};
use crate::models::init::Fill;
use crate::models::layer::{
    ActConfig, DropPath, Dropout, FeedForward, LayerNorm, Linear, Padding, PatchConfig, PatchEmbed,
    PatchMerging, TokenNormConfig, WindowMasks, Windows, attend, drop_path_rates, to_map,
};
use crate::models::{Builder, Forward, InitConfig, ModelError};
use crate::ops;
use crate::weights::Layer;

/// The keys of `type: SwinTransformer`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct SwinTransformerConfig {
    /// Side, or height and width, of the images that position embeddings are made for.
    #[serde(default = "default_pretrain_size")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub pretrain_img_size: OneOrMany<usize>,
    #[serde(default = "default::n::<3>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub in_channels: usize,
    /// Channels of the first stage; each stage doubles them.
    #[serde(default = "default::n::<96>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub embed_dims: usize,
    #[serde(default = "default::n::<4>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub patch_size: usize,
    #[serde(default = "default::n::<7>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub window_size: usize,
    /// How many times wider a block is inside.
    #[serde(default = "default::f::<4>")]
    #[serde(deserialize_with = "crate::config::above_zero")]
    pub mlp_ratio: f64,
    /// Blocks of each stage.
    #[serde(default = "default_depths")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub depths: Vec<usize>,
    #[serde(default = "default_heads")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub num_heads: Vec<usize>,
    /// The first is that of the patches.
    #[serde(default = "default_strides")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub strides: Vec<usize>,
    /// The stages whose output the heads see.
    #[serde(default = "default_out_indices")]
    pub out_indices: Vec<usize>,
    #[serde(default = "default::yes")]
    pub qkv_bias: bool,
    /// What scores are multiplied with; one over the root of a head's channels unless given.
    #[serde(default)]
    #[serde(deserialize_with = "crate::config::above_zero")]
    pub qk_scale: Option<f64>,
    /// Whether patches are normalised.
    #[serde(default = "default::yes")]
    pub patch_norm: bool,
    #[serde(default)]
    #[serde(deserialize_with = "crate::config::below_one")]
    pub drop_rate: f64,
    #[serde(default)]
    #[serde(deserialize_with = "crate::config::below_one")]
    pub attn_drop_rate: f64,
    /// That of the last block; those before have less.
    #[serde(default = "default::ratio::<1, 10>")]
    #[serde(deserialize_with = "crate::config::below_one")]
    pub drop_path_rate: f64,
    /// Whether a learnt position is added to each patch: images then have one size.
    #[serde(default)]
    pub use_abs_pos_embed: bool,
    #[serde(default = "ActConfig::gelu")]
    pub act_cfg: ActConfig,
    #[serde(default)]
    pub norm_cfg: TokenNormConfig,
    /// Keep each block's input alone and compute the rest again in the backward pass: less memory,
    /// more time.
    #[serde(default)]
    pub with_cp: bool,
    /// The patches and this many stages are not trained; -1 freezes nothing.
    #[serde(default = "default::i::<-1>")]
    pub frozen_stages: i64,
    #[serde(default)]
    pub pretrained: Option<String>,
    #[serde(default)]
    pub init_cfg: Option<OneOrMany<InitConfig>>,
}

fn default_pretrain_size() -> OneOrMany<usize> {
    OneOrMany(vec![224])
}
fn default_depths() -> Vec<usize> {
    vec![2, 2, 6, 2]
}
fn default_heads() -> Vec<usize> {
    vec![3, 6, 12, 24]
}
fn default_strides() -> Vec<usize> {
    vec![4, 2, 2, 2]
}
fn default_out_indices() -> Vec<usize> {
    vec![0, 1, 2, 3]
}

impl BackboneSpec for SwinTransformerConfig {
    fn check(&self, image: Feature) -> Result<Vec<Feature>, ModelError> {
        image.matches(self.in_channels)?;
        let stages = self.depths.len();
        if !(1..=4).contains(&stages) {
            let problem = format!("expected 1 to 4 stages, got {stages}");
            return Err(ModelError::config("depths", problem));
        }
        super::one_for_each_stage("num_heads", &self.num_heads, stages)?;
        super::one_for_each_stage("strides", &self.strides, stages)?;
        super::stages_that_are("out_indices", &self.out_indices, stages)?;
        if self.strides[0] != self.patch_size {
            let problem =
                format!("the first is that of the patches, which are {} wide", self.patch_size);
            return Err(ModelError::config("strides", problem));
        }
        if !matches!(self.pretrain_img_size.len(), 1 | 2) {
            let problem = "expected a side, or a height and a width";
            return Err(ModelError::config("pretrain_img_size", problem));
        }
        for (stage, &heads) in self.num_heads.iter().enumerate() {
            let width = self.width(stage);
            if !width.is_multiple_of(heads) {
                let problem =
                    format!("{heads} heads do not divide the {width} channels of stage {stage}");
                return Err(ModelError::config("num_heads", problem));
            }
        }
        if !(-1..=stages as i64).contains(&self.frozen_stages) {
            let problem = format!("expected -1 to {stages}, got {}", self.frozen_stages);
            return Err(ModelError::config("frozen_stages", problem));
        }
        let mut stride = image.stride;
        let stages = (0..stages).map(|stage| {
            stride *= self.strides[stage];
            Feature { channels: self.width(stage), stride }
        });
        let stages: Vec<Feature> = stages.collect();
        Ok(super::chosen(stages, &self.out_indices))
    }

    fn build(&self, _: Feature, builder: &Builder) -> Result<Backbone, ModelError> {
        let norm_of = |stage: usize| {
            builder.frozen(self.freezes(stage), || {
                self.out_indices
                    .contains(&stage)
                    .then(|| self.norm_cfg.init(self.width(stage), builder))
            })
        };
        let patches = PatchConfig {
            channels: [self.in_channels, self.embed_dims],
            kernel: self.patch_size,
            stride: self.patch_size,
            padding: Padding::Corner,
        };
        let patch_norm = self.patch_norm.then_some(&self.norm_cfg);
        let (absolute_pos_embed, patch_embed) = builder.frozen(self.frozen_stages >= 0, || {
            let embed = self.use_abs_pos_embed.then(|| self.positions(builder));
            (embed, PatchEmbed::new(patches, patch_norm, builder))
        });
        let mut rates = drop_path_rates(self.drop_path_rate, self.depths.iter().sum()).into_iter();
        let stages = (0..self.depths.len()).map(|stage| {
            builder.frozen(self.freezes(stage), || {
                let blocks = (0..self.depths[stage])
                    .map(|index| {
                        let rate = rates.next().unwrap_or_default();
                        self.block(stage, index % 2 == 1, rate, builder)
                    })
                    .collect();
                let width = self.width(stage);
                let downsample = (stage + 1 < self.depths.len()).then(|| {
                    let stride = self.strides[stage + 1];
                    PatchMerging::new([width, 2 * width], stride, patch_norm, builder)
                });
                SwinStage { blocks, downsample }
            })
        });
        Ok(SwinTransformer {
            absolute_pos_embed,
            patch_embed,
            drop_after_pos: Dropout::new(self.drop_rate),
            stages: stages.collect(),
            norm0: norm_of(0),
            norm1: norm_of(1),
            norm2: norm_of(2),
            norm3: norm_of(3),
            masks: WindowMasks::default(),
            with_cp: self.with_cp,
        }
        .into())
    }

    fn initial(&self) -> Initial {
        Initial { rules: vec![InitConfig::linear()], zeros: None }
    }

    fn pretrained(&self) -> Option<&str> {
        self.pretrained.as_deref()
    }

    fn init_cfg(&self) -> Option<&[InitConfig]> {
        self.init_cfg.as_deref()
    }
}

/// A truncated normal with a deviation of 0.02.
const NARROW: Fill = Fill::TruncNormal { mean: 0.0, std: 0.02, a: -2.0, b: 2.0 };

impl SwinTransformerConfig {
    fn width(&self, stage: usize) -> usize {
        self.embed_dims << stage
    }

    fn freezes(&self, stage: usize) -> bool {
        self.frozen_stages > stage as i64
    }

    fn positions(&self, builder: &Builder) -> Param<Tensor<3>> {
        let sizes = &self.pretrain_img_size;
        let [height, width] = [sizes[0], sizes[sizes.len() - 1]].map(|it| it / self.patch_size);
        builder.parameter([1, height * width, self.embed_dims], Layer::Own, NARROW)
    }

    fn block(&self, stage: usize, shifted: bool, drop_path: f64, builder: &Builder) -> SwinBlock {
        let (width, heads) = (self.width(stage), self.num_heads[stage]);
        let norm1 = self.norm_cfg.init(width, builder);
        let side = self.window_size;
        let places = (2 * side - 1) * (2 * side - 1);
        let relative_position_bias_table = builder.parameter([places, heads], Layer::Own, NARROW);
        let index = ops::indices(&relative_positions(side), builder.device());
        let relative_position_index = builder.index(index.reshape([side * side, side * side]));
        let linear = |channels, bias| {
            if bias {
                Linear::new(channels, builder)
            } else {
                Linear::without_bias(channels, builder)
            }
        };
        let w_msa = WindowAttention {
            relative_position_bias_table,
            relative_position_index,
            qkv: linear([width, 3 * width], self.qkv_bias),
            proj: linear([width, width], true),
            heads,
            scale: self.qk_scale,
            attn_drop: self.attn_drop_rate,
            proj_drop: Dropout::new(self.drop_rate),
        };
        let attn = ShiftedWindows { w_msa, side, shift: if shifted { side / 2 } else { 0 } };
        let norm2 = self.norm_cfg.init(width, builder);
        let inner = (self.mlp_ratio * width as f64) as usize;
        let ffn = FeedForward::new([width, inner], &self.act_cfg, self.drop_rate, builder);
        SwinBlock { norm1, attn, norm2, ffn, drop_path: DropPath::new(drop_path) }
    }
}

/// Which row of the table the bias between two places of a window is, as mmseg counts them.
fn relative_positions(side: usize) -> Vec<i64> {
    let place = |at: usize| (2 * side - 1) * (at / side) + at % side;
    let tokens = side * side;
    let pairs = (0..tokens).flat_map(|row| (0..tokens).map(move |column| (row, column)));
    pairs.map(|(row, column)| (place(row) + place(tokens - 1 - column)) as i64).collect()
}

/// A Swin Transformer.
#[derive(Module, Debug)]
pub struct SwinTransformer {
    absolute_pos_embed: Option<Param<Tensor<3>>>,
    patch_embed: PatchEmbed,
    drop_after_pos: Dropout,
    stages: Vec<SwinStage>,
    norm0: Option<LayerNorm>,
    norm1: Option<LayerNorm>,
    norm2: Option<LayerNorm>,
    norm3: Option<LayerNorm>,
    #[module(skip)]
    masks: WindowMasks,
    #[module(skip)]
    with_cp: bool,
}

/// mmseg's `SwinBlockSequence`.
#[derive(Module, Debug)]
struct SwinStage {
    blocks: Vec<SwinBlock>,
    downsample: Option<PatchMerging>,
}

#[derive(Module, Debug)]
struct SwinBlock {
    norm1: LayerNorm,
    attn: ShiftedWindows,
    norm2: LayerNorm,
    ffn: FeedForward,
    drop_path: DropPath,
}

/// mmseg's `ShiftWindowMSA`.
#[derive(Module, Debug)]
struct ShiftedWindows {
    w_msa: WindowAttention,
    side: usize,
    shift: usize,
}

/// mmseg's `WindowMSA`.
#[derive(Module, Debug)]
struct WindowAttention {
    /// `[places, heads]`
    relative_position_bias_table: Param<Tensor<2>>,
    /// `[tokens, tokens]`
    relative_position_index: Param<Tensor<2, Int>>,
    qkv: Linear,
    proj: Linear,
    heads: usize,
    #[module(skip)]
    scale: Option<f64>,
    attn_drop: f64,
    proj_drop: Dropout,
}

impl RunBackbone for SwinTransformer {
    /// `[n, c, h, w]` to the maps of the stages in `out_indices`.
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Vec<Tensor<4>> {
        let (mut x, mut size) = self.patch_embed.forward(x);
        if let Some(positions) = &self.absolute_pos_embed {
            let ([_, found, _], [_, expected, _]) = (x.dims(), positions.dims());
            if found != expected {
                let why = format!(
                    "{expected} patches have a position (pretrain_img_size), and an image has \
                     {found}; without use_abs_pos_embed images may have any size"
                );
                ops::refuse("SwinTransformer", &[x.dims().map(|it| it as i64).to_vec()], &why);
            }
            x = x + positions.val();
        }
        x = self.drop_after_pos.forward(x, ctx);
        let mut maps = Vec::with_capacity(self.stages.len());
        let norms = [&self.norm0, &self.norm1, &self.norm2, &self.norm3];
        for (stage, norm) in self.stages.iter().zip(norms) {
            for block in &stage.blocks {
                let mask = block.attn.mask(size, &x, &self.masks);
                x = if self.with_cp {
                    ctx.recomputed(block, [x], move |block, [x], ctx| {
                        block.forward(x, size, mask.clone(), ctx)
                    })
                } else {
                    block.forward(x, size, mask, ctx)
                };
            }
            if let Some(norm) = norm {
                maps.push(to_map(norm.forward(x.clone()), size));
            }
            if let Some(downsample) = &stage.downsample {
                (x, size) = downsample.forward(x, size);
            }
        }
        maps
    }
}

impl SwinBlock {
    fn forward(
        &self,
        x: Tensor<3>,
        size: [usize; 2],
        mask: Option<Tensor<4>>,
        ctx: &Forward,
    ) -> Tensor<3> {
        let seen = self.attn.forward(self.norm1.forward(x.clone()), size, mask, ctx);
        let x = x + self.drop_path.forward(seen, ctx);
        let made = self.ffn.forward(self.norm2.forward(x.clone()), ctx);
        x + self.drop_path.forward(made, ctx)
    }
}

impl ShiftedWindows {
    fn windows(&self, map: [usize; 2]) -> Windows {
        Windows { map, side: self.side, shift: self.shift }
    }

    /// What keeps places apart that the shift brought together.
    fn mask(&self, size: [usize; 2], x: &Tensor<3>, masks: &WindowMasks) -> Option<Tensor<4>> {
        let windows = self.windows(size);
        let [high, wide] = windows.padded();
        let band = |at: usize, size: usize| {
            usize::from(at + self.side >= size) + usize::from(at + self.shift >= size)
        };
        let region = |row: usize, column: usize| 3 * band(row, high) + band(column, wide);
        (self.shift > 0)
            .then(|| masks.get(windows, &x.device(), || windows.between(-100.0, region)))
    }

    fn forward(
        &self,
        x: Tensor<3>,
        size: [usize; 2],
        mask: Option<Tensor<4>>,
        ctx: &Forward,
    ) -> Tensor<3> {
        let windows = self.windows(size);
        windows.join(self.w_msa.forward(windows.cut(x), mask, ctx))
    }
}

impl WindowAttention {
    /// `[n · windows, tokens, c]` to the same shape.
    fn forward(&self, x: Tensor<3>, mask: Option<Tensor<4>>, ctx: &Forward) -> Tensor<3> {
        let [_, tokens, _] = x.dims();
        let places = self.relative_position_index.val().reshape([tokens * tokens]);
        let table = self.relative_position_bias_table.val().select(0, places);
        let bias = table.reshape([1, tokens, tokens, self.heads]).permute([0, 3, 1, 2]);
        let bias = match mask {
            None => bias,
            Some(mask) => bias + mask,
        };
        let dropout = if ctx.training { self.attn_drop } else { 0.0 };
        let qkv = self.qkv.forward(x);
        let mixed = attend(qkv, self.heads, Some(bias), self.scale, dropout, ctx);
        self.proj_drop.forward(self.proj.forward(mixed), ctx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_a_window_are_counted_as_mmseg_counts_them() {
        // double_step_seq and flip of a window of two.
        let expected = [4, 3, 1, 0, 5, 4, 2, 1, 7, 6, 4, 3, 8, 7, 5, 4];
        assert_eq!(relative_positions(2), expected);
    }
}
