//! ResNet (He et al. 2015), and the variants V1c and V1d of "Bag of Tricks" (He et al. 2018), with
//! dilated stages.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

use super::block::{BOTTLENECK_EXPANSION, Block, BlockConfig, Inner};
use super::split_attention::SplitConfig;
use crate::config::{Both, NotOffered, OneOrMany, default};
use crate::models::contract::{BackboneSpec, Feature, Initial, RunBackbone};
use crate::models::layer::{Conv2d, ConvConfig, Norm, NormConfig, ReLU, square};
use crate::models::{Builder, Forward, InitConfig, ModelError};
use crate::ops::{self, Activation};

/// Which convolution of a bottleneck has the stride.
#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Style {
    /// The 3×3 convolution.
    #[default]
    Pytorch,
    /// The first 1×1 convolution.
    Caffe,
}

/// The keys of `type: ResNet`, and of its variants.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ResNetConfig {
    /// 18, 34, 50, 101 or 152; 200 of a ResNeSt.
    pub depth: usize,
    #[serde(default = "default::n::<3>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub in_channels: usize,
    #[serde(default = "default::n::<64>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub stem_channels: usize,
    /// Channels of the first stage's inner convolutions; each stage doubles them.
    #[serde(default = "default::n::<64>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub base_channels: usize,
    #[serde(default = "default::n::<4>")]
    pub num_stages: usize,
    #[serde(default = "default_strides")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub strides: Vec<usize>,
    #[serde(default = "default_dilations")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub dilations: Vec<usize>,
    /// The stages whose output the heads see.
    #[serde(default = "default_out_indices")]
    pub out_indices: Vec<usize>,
    #[serde(default)]
    pub style: Style,
    /// Three 3×3 convolutions in place of the 7×7 one.
    #[serde(default)]
    pub deep_stem: bool,
    /// Average before the 1×1 convolution of a downsampling shortcut.
    #[serde(default)]
    pub avg_down: bool,
    /// The stem and this many stages neither train nor update statistics; -1 freezes nothing.
    #[serde(default = "default::i::<-1>")]
    pub frozen_stages: i64,
    #[serde(default)]
    pub conv_cfg: Option<ConvConfig>,
    #[serde(default = "NormConfig::batch")]
    pub norm_cfg: NormConfig,
    /// All norms use their running statistics in training too.
    #[serde(default)]
    pub norm_eval: bool,
    /// The dilation of each block of the last stage.
    #[serde(default)]
    #[serde(deserialize_with = "crate::config::positive")]
    pub multi_grid: Option<Vec<usize>>,
    /// The first block of a dilated stage has half the dilation.
    #[serde(default)]
    pub contract_dilation: bool,
    /// Keep each block's input alone and compute the rest again in the backward pass: less memory,
    /// more time.
    #[serde(default)]
    pub with_cp: bool,
    /// The last norm of every block starts at zero.
    #[serde(default = "default::yes")]
    pub zero_init_residual: bool,
    #[serde(default)]
    pub dcn: Option<NotOffered>,
    /// Stages with deformable convolutions: none.
    #[serde(default)]
    #[serde(deserialize_with = "crate::config::all_false")]
    pub stage_with_dcn: Vec<bool>,
    #[serde(default)]
    pub plugins: Option<NotOffered>,
    #[serde(default)]
    pub pretrained: Option<String>,
    #[serde(default)]
    pub init_cfg: Option<OneOrMany<InitConfig>>,
}

fn default_strides() -> Vec<usize> {
    vec![1, 2, 2, 2]
}
fn default_dilations() -> Vec<usize> {
    vec![1; 4]
}
fn default_out_indices() -> Vec<usize> {
    vec![0, 1, 2, 3]
}

/// The keys of `type: ResNeXt`.
pub type ResNeXtConfig = Both<ResNetConfig, ResNeXtKeys>;

/// The keys of `type: ResNeSt`.
pub type ResNeStConfig = Both<ResNetConfig, ResNeStKeys>;

/// ResNeXt's own keys.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ResNeXtKeys {
    /// Groups of a block's 3×3 convolution.
    #[serde(default = "default::n::<1>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub groups: usize,
    /// Channels of a group, for 64 base channels.
    #[serde(default = "default::n::<4>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub base_width: usize,
}

/// ResNeSt's own keys.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ResNeStKeys {
    /// Groups of a block's 3×3 convolution.
    #[serde(default = "default::n::<1>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub groups: usize,
    /// Channels of a group, for 64 base channels.
    #[serde(default = "default::n::<4>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub base_width: usize,
    /// Splits that the attention weighs against each other.
    #[serde(default = "default::n::<2>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub radix: usize,
    /// How many times narrower the attention is inside.
    #[serde(default = "default::n::<4>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub reduction_factor: usize,
    /// Whether a block halves the size by a mean after its 3×3 convolution.
    #[serde(default = "default::yes")]
    pub avg_down_stride: bool,
}

/// The keys of `type: ResNetV1c`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(transparent)]
pub struct ResNetV1cConfig(pub ResNetConfig);

/// The keys of `type: ResNetV1d`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(transparent)]
pub struct ResNetV1dConfig(pub ResNetConfig);

/// The three kinds of ResNet, which have the same keys.
trait Variant: std::fmt::Debug + Clone + Send + Sync + 'static {
    fn keys(&self) -> &ResNetConfig;

    /// The settings that the network has in fact.
    fn network(&self) -> ResNetConfig;

    /// What its blocks have between their first and their last convolution.
    fn inner(&self) -> Inner {
        Inner::Plain
    }
}

impl Variant for ResNetConfig {
    fn keys(&self) -> &ResNetConfig {
        self
    }

    fn network(&self) -> ResNetConfig {
        self.clone()
    }
}

impl Variant for ResNetV1cConfig {
    fn keys(&self) -> &ResNetConfig {
        &self.0
    }

    fn network(&self) -> ResNetConfig {
        ResNetConfig { deep_stem: true, avg_down: false, ..self.0.clone() }
    }
}

impl Variant for ResNetV1dConfig {
    fn keys(&self) -> &ResNetConfig {
        &self.0
    }

    fn network(&self) -> ResNetConfig {
        ResNetConfig { deep_stem: true, avg_down: true, ..self.0.clone() }
    }
}

impl Variant for ResNeXtConfig {
    fn keys(&self) -> &ResNetConfig {
        &self.shared
    }

    fn network(&self) -> ResNetConfig {
        self.shared.clone()
    }

    fn inner(&self) -> Inner {
        Inner::Grouped { groups: self.groups, base_width: self.base_width }
    }
}

impl Variant for ResNeStConfig {
    fn keys(&self) -> &ResNetConfig {
        &self.shared
    }

    /// It is a V1d.
    fn network(&self) -> ResNetConfig {
        ResNetConfig { deep_stem: true, avg_down: true, ..self.shared.clone() }
    }

    fn inner(&self) -> Inner {
        Inner::Split(SplitConfig {
            groups: self.groups,
            base_width: self.base_width,
            radix: self.radix,
            reduction_factor: self.reduction_factor,
            avg_down_stride: self.avg_down_stride,
        })
    }
}

impl<V: Variant> BackboneSpec for V {
    fn check(&self, image: Feature) -> Result<Vec<Feature>, ModelError> {
        self.network().outputs(image, self.inner())
    }

    fn build(&self, _: Feature, builder: &Builder) -> Result<super::Backbone, ModelError> {
        Ok(self.network().built(self.inner(), builder)?.into())
    }

    fn initial(&self) -> Initial {
        self.keys().initial()
    }

    fn pretrained(&self) -> Option<&str> {
        self.keys().pretrained.as_deref()
    }

    fn init_cfg(&self) -> Option<&[InitConfig]> {
        self.keys().init_cfg.as_deref()
    }
}

impl ResNetConfig {
    /// He et al. 2015, but that the last norm of every block starts at zero, so that a block starts
    /// as the identity.
    fn initial(&self) -> Initial {
        let last = if self.depth < 50 { ".bn2" } else { ".bn3" };
        Initial {
            rules: vec![InitConfig::kaiming()],
            zeros: self.zero_init_residual.then_some(last),
        }
    }

    fn built(&self, inner: Inner, builder: &Builder) -> Result<ResNet, ModelError> {
        builder.norm_eval(self.norm_eval, || self.init(inner, builder))
    }

    /// The maps of the stages in `out_indices`.
    fn outputs(&self, image: Feature, inner: Inner) -> Result<Vec<Feature>, ModelError> {
        let stages = self.stages(image, inner)?;
        Ok(super::chosen(stages, &self.out_indices))
    }

    /// The maps of all stages.
    fn stages(&self, image: Feature, inner: Inner) -> Result<Vec<Feature>, ModelError> {
        let (blocks, bottleneck) = self.architecture(inner)?;
        self.verify(blocks)?;
        if !bottleneck && inner != Inner::Plain {
            let problem = format!("expected 50, 101 or 152, got {}", self.depth);
            return Err(ModelError::config("depth", problem));
        }
        inner.check(self.base_channels)?;
        image.matches(self.in_channels)?;
        let expansion = if bottleneck { BOTTLENECK_EXPANSION } else { 1 };
        let mut stride = 4;
        let stages = (0..self.num_stages).map(|stage| {
            stride *= self.strides[stage];
            Feature { channels: (self.base_channels << stage) * expansion, stride }
        });
        Ok(stages.collect())
    }

    /// Blocks per stage, and whether they are bottlenecks.
    fn architecture(&self, inner: Inner) -> Result<([usize; 4], bool), ModelError> {
        Ok(match self.depth {
            18 => ([2, 2, 2, 2], false),
            34 => ([3, 4, 6, 3], false),
            50 => ([3, 4, 6, 3], true),
            101 => ([3, 4, 23, 3], true),
            152 => ([3, 8, 36, 3], true),
            200 if matches!(inner, Inner::Split(_)) => ([3, 24, 36, 3], true),
            depth => {
                let problem =
                    format!("no ResNet has depth {depth}; expected 18, 34, 50, 101 or 152");
                return Err(ModelError::config("depth", problem));
            }
        })
    }

    fn verify(&self, blocks: [usize; 4]) -> Result<(), ModelError> {
        let stages = self.num_stages;
        if !(1..=4).contains(&stages) {
            return Err(ModelError::config("num_stages", format!("expected 1 to 4, got {stages}")));
        }
        for (key, values) in [("strides", &self.strides), ("dilations", &self.dilations)] {
            if values.len() != stages {
                let problem = format!(
                    "expected one value for each of the {stages} stages, got {}",
                    values.len()
                );
                return Err(ModelError::config(key, problem));
            }
            if values.contains(&0) {
                return Err(ModelError::config(key, "expected positive values, got 0"));
            }
        }
        if self.out_indices.is_empty() {
            return Err(ModelError::config("out_indices", "expected at least one stage, got none"));
        }
        if let Some(index) = self.out_indices.iter().find(|&&it| it >= stages) {
            let problem = format!(
                "there is no stage {index}: num_stages is {stages}, and the first stage is 0"
            );
            return Err(ModelError::config("out_indices", problem));
        }
        if !(-1..=stages as i64).contains(&self.frozen_stages) {
            let problem = format!("expected -1 to {stages}, got {}", self.frozen_stages);
            return Err(ModelError::config("frozen_stages", problem));
        }
        let last = blocks[stages - 1];
        match &self.multi_grid {
            Some(grid) if grid.len() < last || grid.contains(&0) => {
                let problem = format!(
                    "expected {last} positive dilations, one for each block of the last stage, got \
                     {grid:?}"
                );
                return Err(ModelError::config("multi_grid", problem));
            }
            _ => {}
        }
        for channels in [self.stem_channels, self.base_channels] {
            self.norm_cfg.check(channels)?;
        }
        if self.deep_stem && self.stem_channels < 2 {
            return Err(ModelError::config("stem_channels", "a deep stem needs at least 2"));
        }
        Ok(())
    }

    /// Builds the network with zeros as weights; errors name keys below `backbone`.
    fn init(&self, inner: Inner, builder: &Builder) -> Result<ResNet, ModelError> {
        let (blocks, bottleneck) = self.architecture(inner)?;
        self.verify(blocks)?;
        let (conv1, bn1, stem) = builder.frozen(self.frozen_stages >= 0, || {
            if self.deep_stem {
                return (None, None, Some(self.deep_stem(builder)));
            }
            let channels = [self.in_channels, self.stem_channels];
            let conv = Conv2d::new(channels, 7, square(2, 3, 1), builder);
            (Some(conv), Some(self.norm_cfg.init(self.stem_channels, builder)), None)
        });
        let expansion = if bottleneck { BOTTLENECK_EXPANSION } else { 1 };
        let width = |stage: usize| (self.base_channels << stage) * expansion;
        let mut layers = (0..4).map(|stage| {
            if stage >= self.num_stages {
                return Vec::new();
            }
            let input = if stage == 0 { self.stem_channels } else { width(stage - 1) };
            builder.frozen(self.frozen_stages > stage as i64, || {
                self.stage(stage, blocks[stage], input, (bottleneck, inner), builder)
            })
        });
        let mut next = || layers.next().unwrap_or_default();
        let (layer1, layer2, layer3, layer4) = (next(), next(), next(), next());
        let (out_indices, with_cp) = (self.out_indices.clone(), self.with_cp);
        Ok(ResNet { conv1, bn1, stem, layer1, layer2, layer3, layer4, out_indices, with_cp })
    }

    fn deep_stem(&self, builder: &Builder) -> DeepStem {
        let (half, full) = (self.stem_channels / 2, self.stem_channels);
        let conv =
            |input, output, stride| Conv2d::new([input, output], 3, square(stride, 1, 1), builder);
        let norm = |channels| self.norm_cfg.init(channels, builder);
        let first = (conv(self.in_channels, half, 2), norm(half), ReLU {});
        let second = (conv(half, half, 1), norm(half), ReLU {});
        let third = (conv(half, full, 1), norm(full), ReLU {});
        (first.0, first.1, first.2, second.0, second.1, second.2, third.0, third.1, third.2)
    }

    fn stage(
        &self,
        stage: usize,
        blocks: usize,
        input: usize,
        (bottleneck, inner): (bool, Inner),
        builder: &Builder,
    ) -> Vec<Block> {
        let (stride, dilation) = (self.strides[stage], self.dilations[stage]);
        let multi_grid = self.multi_grid.as_ref().filter(|_| stage == self.num_stages - 1);
        let planes = self.base_channels << stage;
        let output = if bottleneck { planes * BOTTLENECK_EXPANSION } else { planes };
        let build = |index: usize| {
            let first = index == 0;
            let dilation = match multi_grid {
                Some(grid) => grid[index],
                None if first && self.contract_dilation && dilation > 1 => dilation / 2,
                None => dilation,
            };
            let config = BlockConfig {
                input: if first { input } else { output },
                planes,
                stride: if first { stride } else { 1 },
                dilation,
                style: self.style,
                avg_down: self.avg_down,
                norm_cfg: &self.norm_cfg,
                inner,
                base_channels: self.base_channels,
            };
            let downsample = first && (stride != 1 || input != output);
            if bottleneck {
                config.bottleneck(downsample, builder)
            } else {
                config.basic(downsample, builder)
            }
        };
        (0..blocks).map(build).collect()
    }
}

type DeepStem = (Conv2d, Norm, ReLU, Conv2d, Norm, ReLU, Conv2d, Norm, ReLU);

/// A residual network; either `conv1` and `bn1` are its stem, or `stem` is.
#[derive(Module, Debug)]
pub struct ResNet {
    conv1: Option<Conv2d>,
    bn1: Option<Norm>,
    stem: Option<DeepStem>,
    layer1: Vec<Block>,
    layer2: Vec<Block>,
    layer3: Vec<Block>,
    layer4: Vec<Block>,
    #[module(skip)]
    out_indices: Vec<usize>,
    #[module(skip)]
    with_cp: bool,
}

impl RunBackbone for ResNet {
    /// `[n, 3, h, w]` to the outputs of the stages in `out_indices`, first stage first.
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Vec<Tensor<4>> {
        let mut x = ops::max_pool2d(self.stem(x, ctx), [3, 3], [2, 2], [1, 1]);
        let mut features = Vec::with_capacity(self.out_indices.len());
        for stage in 0..4 {
            x = self.stage(stage, x, ctx);
            if self.out_indices.contains(&stage) {
                features.push(x.clone());
            }
        }
        features
    }
}

impl ResNet {
    /// `[n, 3, h, w]` to a map of half the size.
    pub(super) fn stem(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        match (&self.stem, &self.conv1, &self.bn1) {
            (Some((conv0, bn1, _, conv3, bn4, _, conv6, bn7, _)), ..) => {
                let x = bn1.forward(conv0.forward(x), Activation::ReLU, ctx);
                let x = bn4.forward(conv3.forward(x), Activation::ReLU, ctx);
                bn7.forward(conv6.forward(x), Activation::ReLU, ctx)
            }
            (None, Some(conv), Some(bn)) => bn.forward(conv.forward(x), Activation::ReLU, ctx),
            (None, ..) => unreachable!("a ResNet has one of the two stems"),
        }
    }

    /// One stage; none changes nothing.
    pub(super) fn stage(&self, stage: usize, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let blocks = [&self.layer1, &self.layer2, &self.layer3, &self.layer4][stage];
        blocks.iter().fold(x, |x, block| {
            if self.with_cp {
                ctx.recomputed(block, [x], |block, [x], ctx| block.forward(x, ctx))
            } else {
                block.forward(x, ctx)
            }
        })
    }
}

/// A ResNet of any of mmseg's three kinds, within another backbone.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub enum AnyResNetConfig {
    ResNet(ResNetConfig),
    ResNetV1c(ResNetV1cConfig),
    ResNetV1d(ResNetV1dConfig),
}

impl AnyResNetConfig {
    pub(super) fn spec(&self) -> &dyn BackboneSpec {
        match self {
            Self::ResNet(it) => it,
            Self::ResNetV1c(it) => it,
            Self::ResNetV1d(it) => it,
        }
    }

    fn settings(&self) -> ResNetConfig {
        match self {
            Self::ResNet(it) => it.network(),
            Self::ResNetV1c(it) => it.network(),
            Self::ResNetV1d(it) => it.network(),
        }
    }

    /// The maps of all stages.
    pub(super) fn stages(&self, image: Feature) -> Result<Vec<Feature>, ModelError> {
        self.settings().stages(image, Inner::Plain)
    }

    pub(super) fn network(&self, builder: &Builder) -> Result<ResNet, ModelError> {
        self.settings().built(Inner::Plain, builder)
    }
}
