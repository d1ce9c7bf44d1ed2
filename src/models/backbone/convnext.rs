//! ConvNeXt (Liu et al. 2022), as mmpretrain has it: blocks of a wide depthwise convolution and two
//! linear layers.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use serde::Deserialize;

use super::Backbone;
use super::arch::{Arch, ArchTable};
use crate::config::{OneOrMany, default};
use crate::models::contract::{BackboneSpec, Feature, Initial, RunBackbone};
use crate::models::layer::{
    Act, ActConfig, Conv2d, DropPath, LayerNorm, LayerNormConfig, Linear, add_scaled,
    drop_path_rates, layer_scale, square, to_map, to_tokens,
};
use crate::models::{Builder, Forward, InitConfig, ModelError};
use crate::ops::{self, Activation};

/// The keys of `type: mmpretrain.ConvNeXt`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ConvNeXtConfig {
    /// A name, or `depths` and `channels` of each stage.
    #[serde(default = "default_arch")]
    pub arch: Arch<ConvNeXtArch>,
    #[serde(default = "default::n::<3>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub in_channels: usize,
    #[serde(default = "default::n::<4>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub stem_patch_size: usize,
    #[serde(default = "default_norm")]
    pub norm_cfg: MapNormConfig,
    #[serde(default = "ActConfig::gelu")]
    pub act_cfg: ActConfig,
    /// Whether blocks have linear layers, not convolutions of 1×1.
    #[serde(default = "default::yes")]
    pub linear_pw_conv: bool,
    /// ConvNeXt V2's normalisation of responses is not offered.
    #[serde(default)]
    #[serde(deserialize_with = "crate::config::only_false")]
    pub use_grn: bool,
    /// That of the last block; those before have less.
    #[serde(default)]
    #[serde(deserialize_with = "crate::config::below_one")]
    pub drop_path_rate: f64,
    /// What the factors of residual branches begin as; 0 for none.
    #[serde(default = "default::ratio::<1, 1000000>")]
    #[serde(deserialize_with = "crate::config::not_negative")]
    pub layer_scale_init_value: f64,
    /// The stages whose output the heads see; negative numbers count from the last.
    #[serde(default = "last")]
    pub out_indices: OneOrMany<i64>,
    /// The first so many stages are not trained.
    #[serde(default)]
    pub frozen_stages: usize,
    /// Outputs are maps, so this has to be false.
    #[serde(default = "default::yes")]
    pub gap_before_final_norm: bool,
    /// Keep each block's input alone and compute the rest again in the backward pass: less memory,
    /// more time.
    #[serde(default)]
    pub with_cp: bool,
    #[serde(default)]
    pub init_cfg: Option<OneOrMany<InitConfig>>,
}

/// `norm_cfg` of feature maps: there is one kind.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub enum MapNormConfig {
    LN2d(LayerNormConfig),
}

/// Blocks and channels of each stage.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ConvNeXtArch {
    #[serde(deserialize_with = "crate::config::positive")]
    pub depths: Vec<usize>,
    #[serde(deserialize_with = "crate::config::positive")]
    pub channels: Vec<usize>,
}

impl ArchTable for ConvNeXtArch {
    const NAMES: &'static [&'static str] =
        &["atto", "femto", "pico", "nano", "tiny", "small", "base", "large", "xlarge", "huge"];

    fn named(name: &str) -> Option<Self> {
        let (depths, first) = match name {
            "atto" => ([2, 2, 6, 2], 40),
            "femto" => ([2, 2, 6, 2], 48),
            "pico" => ([2, 2, 6, 2], 64),
            "nano" => ([2, 2, 8, 2], 80),
            "tiny" => ([3, 3, 9, 3], 96),
            "small" => ([3, 3, 27, 3], 96),
            "base" => ([3, 3, 27, 3], 128),
            "large" => ([3, 3, 27, 3], 192),
            "xlarge" => ([3, 3, 27, 3], 256),
            "huge" => ([3, 3, 27, 3], 352),
            _ => return None,
        };
        let channels = (0..4).map(|stage| first << stage).collect();
        Some(Self { depths: depths.to_vec(), channels })
    }
}

fn default_arch() -> Arch<ConvNeXtArch> {
    Arch::Named("tiny".to_owned())
}
fn default_norm() -> MapNormConfig {
    MapNormConfig::LN2d(LayerNormConfig { eps: 1e-6, ..LayerNormConfig::default() })
}
fn last() -> OneOrMany<i64> {
    OneOrMany(vec![-1])
}

impl BackboneSpec for ConvNeXtConfig {
    fn check(&self, image: Feature) -> Result<Vec<Feature>, ModelError> {
        image.matches(self.in_channels)?;
        let ConvNeXtArch { depths, channels } = self.arch.get()?;
        let stages = depths.len();
        if !(1..=4).contains(&stages) || channels.len() != stages {
            let problem = "expected depths and channels of 1 to 4 stages";
            return Err(ModelError::config("arch", problem));
        }
        if self.gap_before_final_norm {
            let problem = "heads see maps, not their means; write false";
            return Err(ModelError::config("gap_before_final_norm", problem));
        }
        if self.frozen_stages > stages {
            let problem = format!("there are {stages} stages, got {}", self.frozen_stages);
            return Err(ModelError::config("frozen_stages", problem));
        }
        let chosen = self.chosen(stages)?;
        let maps = channels.into_iter().enumerate().map(|(stage, channels)| Feature {
            channels,
            stride: image.stride * (self.stem_patch_size << stage),
        });
        Ok(super::chosen(maps.collect(), &chosen))
    }

    fn build(&self, _: Feature, builder: &Builder) -> Result<Backbone, ModelError> {
        let ConvNeXtArch { depths, channels } = self.arch.get()?;
        let chosen = self.chosen(depths.len())?;
        let norm = |channels| self.norm(channels, builder);
        let conv = |channels, kernel| {
            Conv2d::new(channels, kernel, square(kernel, 0, 1), builder).with_bias(builder)
        };
        let frozen = |stage: usize| stage < self.frozen_stages;
        let downsample = |stage: usize| {
            builder.frozen(frozen(stage), || {
                if stage == 0 {
                    let stem = conv([self.in_channels, channels[0]], self.stem_patch_size);
                    return Downsample::Stem((stem, norm(channels[0])));
                }
                let pair = [channels[stage - 1], channels[stage]];
                Downsample::Between((norm(pair[0]), conv(pair, 2)))
            })
        };
        let mut rates = drop_path_rates(self.drop_path_rate, depths.iter().sum()).into_iter();
        let mut stage = |stage: usize| -> Vec<ConvNeXtBlock> {
            builder.frozen(frozen(stage), || {
                let block =
                    |_| self.block(channels[stage], rates.next().unwrap_or_default(), builder);
                (0..depths[stage]).map(block).collect()
            })
        };
        let output = |stage: usize| chosen.contains(&stage).then(|| norm(channels[stage]));
        Ok(ConvNeXt {
            downsample_layers: (0..depths.len()).map(downsample).collect(),
            stages: (0..depths.len()).map(&mut stage).collect(),
            norm0: output(0),
            norm1: output(1),
            norm2: output(2),
            norm3: output(3),
            with_cp: self.with_cp,
        }
        .into())
    }

    fn initial(&self) -> Initial {
        Initial { rules: vec![InitConfig::narrow()], zeros: None }
    }

    fn init_cfg(&self) -> Option<&[InitConfig]> {
        self.init_cfg.as_deref()
    }

    fn has_ordered_layers(&self) -> bool {
        true
    }
}

impl ConvNeXtConfig {
    fn norm(&self, channels: usize, builder: &Builder) -> LayerNorm {
        let MapNormConfig::LN2d(config) = &self.norm_cfg;
        config.init(channels, builder)
    }

    fn chosen(&self, stages: usize) -> Result<Vec<usize>, ModelError> {
        super::counted_from_either_end("out_indices", &self.out_indices, stages)
    }

    fn block(&self, channels: usize, drop_path: f64, builder: &Builder) -> ConvNeXtBlock {
        let inner = 4 * channels;
        let depthwise = ops::Conv { groups: channels, ..square(1, 3, 1) };
        let pointwise = |channels| {
            if self.linear_pw_conv {
                Pointwise::Linear(Linear::new(channels, builder))
            } else {
                let conv = Conv2d::new(channels, 1, square(1, 0, 1), builder);
                Pointwise::Conv(conv.with_bias(builder))
            }
        };
        let gamma = (self.layer_scale_init_value > 0.0)
            .then(|| layer_scale(channels, self.layer_scale_init_value, builder));
        ConvNeXtBlock {
            gamma,
            depthwise_conv: Conv2d::new([channels; 2], 7, depthwise, builder).with_bias(builder),
            norm: self.norm(channels, builder),
            pointwise_conv1: pointwise([channels, inner]),
            act: self.act_cfg.init(builder),
            pointwise_conv2: pointwise([inner, channels]),
            drop_path: DropPath::new(drop_path),
        }
    }
}

/// A ConvNeXt.
#[derive(Module, Debug)]
pub struct ConvNeXt {
    downsample_layers: Vec<Downsample>,
    stages: Vec<Vec<ConvNeXtBlock>>,
    norm0: Option<LayerNorm>,
    norm1: Option<LayerNorm>,
    norm2: Option<LayerNorm>,
    norm3: Option<LayerNorm>,
    #[module(skip)]
    with_cp: bool,
}

#[derive(Module, Debug)]
enum Downsample {
    Stem((Conv2d, LayerNorm)),
    Between((LayerNorm, Conv2d)),
}

#[derive(Module, Debug)]
struct ConvNeXtBlock {
    gamma: Option<Param<Tensor<1>>>,
    depthwise_conv: Conv2d,
    norm: LayerNorm,
    pointwise_conv1: Pointwise,
    act: Act,
    pointwise_conv2: Pointwise,
    drop_path: DropPath,
}

/// A linear layer over the channels of each pixel.
#[derive(Module, Debug)]
enum Pointwise {
    Linear(Linear),
    Conv(Conv2d),
}

impl RunBackbone for ConvNeXt {
    /// `[n, c, h, w]` to the maps of the stages in `out_indices`.
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Vec<Tensor<4>> {
        let mut x = x;
        let mut maps = Vec::with_capacity(self.stages.len());
        let norms = [&self.norm0, &self.norm1, &self.norm2, &self.norm3];
        for ((downsample, blocks), norm) in
            self.downsample_layers.iter().zip(&self.stages).zip(norms)
        {
            x = match downsample {
                Downsample::Stem((conv, norm)) => {
                    norm.forward_maps(conv.forward(x), Activation::None)
                }
                Downsample::Between((norm, conv)) => {
                    conv.forward(norm.forward_maps(x, Activation::None))
                }
            };
            for block in blocks {
                x = if self.with_cp {
                    ctx.recomputed(block, [x], |block, [x], ctx| block.forward(x, ctx))
                } else {
                    block.forward(x, ctx)
                };
            }
            if let Some(norm) = norm {
                maps.push(norm.forward_maps(x.clone(), Activation::None));
            }
        }
        maps
    }
}

impl ConvNeXtBlock {
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let [.., height, width] = x.dims();
        let y = to_tokens(self.depthwise_conv.forward(x.clone()));
        let size = [height, width];
        let y = self.act.forward(self.pointwise_conv1.forward(self.norm.forward(y), size));
        let y = to_map(self.pointwise_conv2.forward(y, size), size);
        match &self.gamma {
            Some(gamma) => add_scaled(x, y, gamma, &self.drop_path, ctx),
            None => x + self.drop_path.forward(y, ctx),
        }
    }
}

impl Pointwise {
    fn forward(&self, x: Tensor<3>, size: [usize; 2]) -> Tensor<3> {
        match self {
            Self::Linear(linear) => linear.forward(x),
            Self::Conv(conv) => to_tokens(conv.forward(to_map(x, size))),
        }
    }
}
