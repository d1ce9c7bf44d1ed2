//! Twins (Chu et al. 2021): PCPVT, which attends to a smaller map, and SVT, which does so in every
//! other layer and within windows in the others; both know places by a convolution.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

use super::Backbone;
use crate::config::{Both, OneOrMany, default};
use crate::models::contract::{BackboneSpec, Feature, Initial, RunBackbone};
use crate::models::layer::{
    ActConfig, Conv2d, DropPath, Dropout, FeedForward, LayerNorm, Linear, Padding, PatchConfig,
    PatchEmbed, ReducedAttention, ReducedConfig, TokenNormConfig, WindowMasks, Windows, attend,
    drop_path_rates, square, to_map, to_tokens,
};
use crate::models::{Builder, Forward, InitConfig, ModelError};
use crate::ops;

/// The keys of `type: PCPVT`.
pub type PCPVTConfig = Both<TwinsConfig, PCPVTKeys>;

/// The keys of `type: SVT`.
pub type SVTConfig = Both<TwinsConfig, SVTKeys>;

/// The keys that both have; what is left out takes the default of the `type`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct TwinsConfig {
    #[serde(default = "default::n::<3>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub in_channels: usize,
    /// Channels of each stage.
    #[serde(default)]
    #[serde(deserialize_with = "crate::config::positive")]
    pub embed_dims: Option<Vec<usize>>,
    #[serde(default = "default_strides")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub patch_sizes: Vec<usize>,
    #[serde(default = "default_strides")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub strides: Vec<usize>,
    #[serde(default)]
    #[serde(deserialize_with = "crate::config::positive")]
    pub num_heads: Option<Vec<usize>>,
    /// How many times wider a layer is inside.
    #[serde(default)]
    #[serde(deserialize_with = "crate::config::positive")]
    pub mlp_ratios: Option<Vec<usize>>,
    /// The stages whose output the heads see.
    #[serde(default = "default_out_indices")]
    pub out_indices: Vec<usize>,
    #[serde(default)]
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
    pub drop_path_rate: Option<f64>,
    /// Of patches and of outputs; layers have their own.
    #[serde(default)]
    pub norm_cfg: TokenNormConfig,
    /// Layers of each stage.
    #[serde(default)]
    #[serde(deserialize_with = "crate::config::positive")]
    pub depths: Option<Vec<usize>>,
    /// How many times smaller than a stage's map the one is that it attends to.
    #[serde(default)]
    #[serde(deserialize_with = "crate::config::positive")]
    pub sr_ratios: Option<Vec<usize>>,
    /// Whether a stage's output is normalised.
    #[serde(default)]
    pub norm_after_stage: Option<bool>,
    #[serde(default)]
    pub pretrained: Option<String>,
    #[serde(default)]
    pub init_cfg: Option<OneOrMany<InitConfig>>,
}

/// PCPVT has no keys of its own.
#[derive(Debug, Clone, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct PCPVTKeys {}

/// SVT's own keys.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct SVTKeys {
    /// Sides of each stage's windows, by the name that mmseg has for it.
    #[serde(default = "default_windows")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub windiow_sizes: Vec<usize>,
}

fn default_strides() -> Vec<usize> {
    vec![4, 2, 2, 2]
}
fn default_out_indices() -> Vec<usize> {
    vec![0, 1, 2, 3]
}
fn default_windows() -> Vec<usize> {
    vec![7; 3]
}

/// The settings in force.
#[derive(Debug)]
struct Twins<'a> {
    config: &'a TwinsConfig,
    widths: Vec<usize>,
    heads: Vec<usize>,
    ratios: Vec<usize>,
    depths: Vec<usize>,
    reductions: Vec<usize>,
    drop_path: f64,
    norm_after_stage: bool,
    /// Of SVT.
    windows: Option<&'a [usize]>,
}

/// The defaults of PCPVT and of SVT, of the keys that both have.
#[derive(Debug)]
pub struct TwinsDefaults {
    embed_dims: &'static [usize],
    num_heads: &'static [usize],
    mlp_ratios: &'static [usize],
    depths: &'static [usize],
    sr_ratios: &'static [usize],
    drop_path_rate: f64,
    norm_after_stage: bool,
}

/// What tells PCPVT and SVT apart.
pub trait TwinsKeys: std::fmt::Debug + Clone + Send + Sync + 'static {
    const DEFAULTS: TwinsDefaults;

    /// Sides of the windows of each stage, where every other layer has some.
    fn windows(&self) -> Option<&[usize]>;
}

impl TwinsKeys for PCPVTKeys {
    const DEFAULTS: TwinsDefaults = TwinsDefaults {
        embed_dims: &[64, 128, 256, 512],
        num_heads: &[1, 2, 4, 8],
        mlp_ratios: &[4; 4],
        depths: &[3, 4, 6, 3],
        sr_ratios: &[8, 4, 2, 1],
        drop_path_rate: 0.0,
        norm_after_stage: false,
    };

    fn windows(&self) -> Option<&[usize]> {
        None
    }
}

impl TwinsKeys for SVTKeys {
    const DEFAULTS: TwinsDefaults = TwinsDefaults {
        embed_dims: &[64, 128, 256],
        num_heads: &[1, 2, 4],
        mlp_ratios: &[4; 3],
        depths: &[4; 3],
        sr_ratios: &[4, 2, 1],
        drop_path_rate: 0.2,
        norm_after_stage: true,
    };

    fn windows(&self) -> Option<&[usize]> {
        Some(&self.windiow_sizes)
    }
}

impl<K: TwinsKeys> Both<TwinsConfig, K> {
    fn settings(&self) -> Twins<'_> {
        let (config, defaults) = (&self.shared, K::DEFAULTS);
        let or = |given: &Option<Vec<usize>>, default: &[usize]| {
            given.clone().unwrap_or_else(|| default.to_vec())
        };
        Twins {
            config,
            widths: or(&config.embed_dims, defaults.embed_dims),
            heads: or(&config.num_heads, defaults.num_heads),
            ratios: or(&config.mlp_ratios, defaults.mlp_ratios),
            depths: or(&config.depths, defaults.depths),
            reductions: or(&config.sr_ratios, defaults.sr_ratios),
            drop_path: config.drop_path_rate.unwrap_or(defaults.drop_path_rate),
            norm_after_stage: config.norm_after_stage.unwrap_or(defaults.norm_after_stage),
            windows: self.own.windows(),
        }
    }
}

impl<K: TwinsKeys> BackboneSpec for Both<TwinsConfig, K> {
    fn check(&self, image: Feature) -> Result<Vec<Feature>, ModelError> {
        self.settings().outputs(image)
    }

    fn build(&self, _: Feature, builder: &Builder) -> Result<Backbone, ModelError> {
        Ok(self.settings().init(builder).into())
    }

    fn initial(&self) -> Initial {
        Initial { rules: InitConfig::transformer(), zeros: None }
    }

    fn pretrained(&self) -> Option<&str> {
        self.shared.pretrained.as_deref()
    }

    fn init_cfg(&self) -> Option<&[InitConfig]> {
        self.shared.init_cfg.as_deref()
    }
}

impl Twins<'_> {
    fn outputs(&self, image: Feature) -> Result<Vec<Feature>, ModelError> {
        image.matches(self.config.in_channels)?;
        let stages = self.depths.len();
        super::one_for_each_stage("embed_dims", &self.widths, stages)?;
        // mmseg reads as many of these as there are stages.
        for (key, found) in [
            ("patch_sizes", &self.config.patch_sizes),
            ("strides", &self.config.strides),
            ("num_heads", &self.heads),
            ("mlp_ratios", &self.ratios),
            ("sr_ratios", &self.reductions),
        ] {
            super::one_for_each_stage(key, &found[..stages.min(found.len())], stages)?;
        }
        if let Some(windows) = self.windows {
            super::one_for_each_stage(
                "windiow_sizes",
                &windows[..stages.min(windows.len())],
                stages,
            )?;
        }
        if self.config.out_indices.is_empty() {
            let problem = "expected at least one stage, got none";
            return Err(ModelError::config("out_indices", problem));
        }
        for (stage, (width, heads)) in self.widths.iter().zip(&self.heads).enumerate() {
            if !width.is_multiple_of(*heads) {
                let problem =
                    format!("{heads} heads do not divide the {width} channels of stage {stage}");
                return Err(ModelError::config("num_heads", problem));
            }
        }
        let mut stride = image.stride;
        let stages = self.widths.iter().zip(&self.config.strides).map(|(&channels, factor)| {
            stride *= factor;
            Feature { channels, stride }
        });
        let stages: Vec<Feature> = stages.collect();
        Ok(super::chosen(stages, &self.config.out_indices))
    }

    fn init(&self, builder: &Builder) -> TwinsTransformer {
        let config = self.config;
        let stages = self.depths.len();
        let patch_embed = |stage: usize| {
            let input = if stage == 0 { config.in_channels } else { self.widths[stage - 1] };
            let patches = PatchConfig {
                channels: [input, self.widths[stage]],
                kernel: config.patch_sizes[stage],
                stride: config.strides[stage],
                padding: Padding::Corner,
            };
            PatchEmbed::new(patches, Some(&config.norm_cfg), builder)
        };
        let mut rates = drop_path_rates(self.drop_path, self.depths.iter().sum()).into_iter();
        let mut layers = |stage: usize| {
            let one = |index| {
                let local = self.windows.filter(|_| index % 2 == 0).map(|it| it[stage]);
                self.layer(stage, local, rates.next().unwrap_or_default(), builder)
            };
            (0..self.depths[stage]).map(one).collect()
        };
        let position = |&width: &usize| {
            let conv = ops::Conv { groups: width, ..square(1, 1, 1) };
            PositionEncoding { proj: Conv2d::new([width; 2], 3, conv, builder).with_bias(builder) }
        };
        TwinsTransformer {
            patch_embeds: (0..stages).map(patch_embed).collect(),
            drop: Dropout::new(config.drop_rate),
            layers: (0..stages).map(&mut layers).collect(),
            position_encodings: self.widths.iter().map(position).collect(),
            norm_list: self
                .norm_after_stage
                .then(|| self.widths.iter().map(|&it| config.norm_cfg.init(it, builder)).collect()),
            masks: WindowMasks::default(),
            out_indices: config.out_indices.clone(),
        }
    }

    fn layer(
        &self,
        stage: usize,
        local: Option<usize>,
        drop_path: f64,
        builder: &Builder,
    ) -> TwinsLayer {
        let (config, width, heads) = (self.config, self.widths[stage], self.heads[stage]);
        // Layers have this norm whatever norm_cfg says.
        let norm_cfg = &TokenNormConfig::default();
        let norm1 = norm_cfg.init(width, builder);
        let dropout = [config.attn_drop_rate, config.drop_rate];
        let attn = match local {
            Some(side) => {
                let qkv = [width, 3 * width];
                TwinsAttention::Local(LocalAttention {
                    qkv: if config.qkv_bias {
                        Linear::new(qkv, builder)
                    } else {
                        Linear::without_bias(qkv, builder)
                    },
                    proj: Linear::new([width; 2], builder),
                    heads,
                    side,
                    attn_drop: config.attn_drop_rate,
                    proj_drop: Dropout::new(config.drop_rate),
                })
            }
            None => {
                let (bias, ratio) = (config.qkv_bias, self.reductions[stage]);
                let reduced =
                    ReducedConfig { channels: width, heads, bias, ratio, dropout, norm_cfg };
                TwinsAttention::Global(ReducedAttention::new(reduced, builder))
            }
        };
        let norm2 = norm_cfg.init(width, builder);
        let inner = self.ratios[stage] * width;
        let ffn = FeedForward::new([width, inner], &ActConfig::gelu(), config.drop_rate, builder);
        TwinsLayer { norm1, attn, norm2, ffn, drop_path: DropPath::new(drop_path) }
    }
}

/// A Twins transformer.
#[derive(Module, Debug)]
pub struct TwinsTransformer {
    patch_embeds: Vec<PatchEmbed>,
    drop: Dropout,
    layers: Vec<Vec<TwinsLayer>>,
    position_encodings: Vec<PositionEncoding>,
    norm_list: Option<Vec<LayerNorm>>,
    #[module(skip)]
    masks: WindowMasks,
    #[module(skip)]
    out_indices: Vec<usize>,
}

/// mmseg's `GSAEncoderLayer` and `LSAEncoderLayer`.
#[derive(Module, Debug)]
struct TwinsLayer {
    norm1: LayerNorm,
    attn: TwinsAttention,
    norm2: LayerNorm,
    ffn: FeedForward,
    drop_path: DropPath,
}

#[derive(Module, Debug)]
enum TwinsAttention {
    Global(ReducedAttention),
    Local(LocalAttention),
}

/// mmseg's `LocallyGroupedSelfAttention`.
#[derive(Module, Debug)]
struct LocalAttention {
    qkv: Linear,
    proj: Linear,
    heads: usize,
    side: usize,
    attn_drop: f64,
    proj_drop: Dropout,
}

/// mmseg's `ConditionalPositionEncoding`.
#[derive(Module, Debug)]
struct PositionEncoding {
    proj: Conv2d,
}

impl RunBackbone for TwinsTransformer {
    /// `[n, c, h, w]` to the maps of the stages in `out_indices`.
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Vec<Tensor<4>> {
        let mut map = x;
        let mut maps = Vec::with_capacity(self.layers.len());
        let stages = self.patch_embeds.iter().zip(&self.layers).zip(&self.position_encodings);
        for (stage, ((patch_embed, layers), positions)) in stages.enumerate() {
            let (x, size) = patch_embed.forward(map);
            let mut x = self.drop.forward(x, ctx);
            for (index, layer) in layers.iter().enumerate() {
                x = layer.forward(x, size, &self.masks, ctx);
                if index == 0 {
                    let map = to_map(x, size);
                    x = to_tokens(positions.proj.forward(map.clone()) + map);
                }
            }
            if let Some(norms) = &self.norm_list {
                x = norms[stage].forward(x);
            }
            map = to_map(x, size);
            maps.push(map.clone());
        }
        super::chosen(maps, &self.out_indices)
    }
}

impl TwinsLayer {
    fn forward(
        &self,
        x: Tensor<3>,
        size: [usize; 2],
        masks: &WindowMasks,
        ctx: &Forward,
    ) -> Tensor<3> {
        let normed = self.norm1.forward(x.clone());
        // As mmseg, whose global attention and FFN drop a path of their own besides.
        let seen = match &self.attn {
            TwinsAttention::Global(it) => {
                self.drop_path.forward(it.forward(normed, size, ctx), ctx)
            }
            TwinsAttention::Local(it) => it.forward(normed, size, masks, ctx),
        };
        let x = x + self.drop_path.forward(seen, ctx);
        let made = self.ffn.forward(self.norm2.forward(x.clone()), ctx);
        x + self.drop_path.forward(self.drop_path.forward(made, ctx), ctx)
    }
}

impl LocalAttention {
    fn forward(
        &self,
        x: Tensor<3>,
        size: [usize; 2],
        masks: &WindowMasks,
        ctx: &Forward,
    ) -> Tensor<3> {
        let windows = Windows { map: size, side: self.side, shift: 0 };
        let ([height, width], [high, wide]) = (size, windows.padded());
        // As mmseg, which tells padding apart only where there is some on both sides.
        let mask = (high > height && wide > width).then(|| {
            let region = |row: usize, column: usize| usize::from(row >= height || column >= width);
            masks.get(windows, &x.device(), || windows.between(-1000.0, region))
        });
        let dropout = if ctx.training { self.attn_drop } else { 0.0 };
        let qkv = self.qkv.forward(windows.cut(x));
        let mixed = attend(qkv, self.heads, mask, None, dropout, ctx);
        self.proj_drop.forward(self.proj.forward(windows.join(mixed)), ctx)
    }
}
