//! CGNet (Wu et al. 2018): blocks that join what is near with what is around, weighed by the whole
//! image.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

use super::Backbone;
use crate::config::{OneOrMany, default};
use crate::models::contract::{BackboneSpec, Feature, Initial, RunBackbone};
use crate::models::layer::{
    Act, ActConfig, Conv2d, ConvConfig, ConvModule, ConvModuleConfig, Linear, Norm, NormConfig,
    PReLUConfig, ReLU, normed, square,
};
use crate::models::{Builder, Forward, InitConfig, ModelError};
use crate::ops::{self, Activation};

/// The keys of `type: CGNet`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct CGNetConfig {
    #[serde(default = "default::n::<3>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub in_channels: usize,
    /// Channels of the stem and of the two levels.
    #[serde(default = "default_channels")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub num_channels: Vec<usize>,
    /// Blocks of each level.
    #[serde(default = "default_blocks")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub num_blocks: Vec<usize>,
    /// That of what is around, for each level.
    #[serde(default = "default_dilations")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub dilations: Vec<usize>,
    /// How many times narrower the weighing is inside, for each level.
    #[serde(default = "default_reductions")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub reductions: Vec<usize>,
    #[serde(default)]
    pub conv_cfg: Option<ConvConfig>,
    #[serde(default = "NormConfig::batch")]
    pub norm_cfg: NormConfig,
    /// A PReLU has a slope for each channel.
    #[serde(default = "prelu")]
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

fn default_channels() -> Vec<usize> {
    vec![32, 64, 128]
}
fn default_blocks() -> Vec<usize> {
    vec![3, 21]
}
fn default_dilations() -> Vec<usize> {
    vec![2, 4]
}
fn default_reductions() -> Vec<usize> {
    vec![8, 16]
}
fn prelu() -> ActConfig {
    ActConfig::PReLU(PReLUConfig { num_parameters: 1, init: 0.25 })
}

/// A PReLU for so many channels.
fn slopes(channels: usize) -> ActConfig {
    ActConfig::PReLU(PReLUConfig { num_parameters: channels, init: 0.25 })
}

impl BackboneSpec for CGNetConfig {
    fn check(&self, image: Feature) -> Result<Vec<Feature>, ModelError> {
        image.matches(self.in_channels)?;
        super::one_for_each_layer("num_channels", &self.num_channels, 3)?;
        for (key, found) in [
            ("num_blocks", &self.num_blocks),
            ("dilations", &self.dilations),
            ("reductions", &self.reductions),
        ] {
            super::one_for_each_layer(key, found, 2)?;
        }
        for (level, &reduction) in self.reductions.iter().enumerate() {
            if reduction > self.num_channels[level + 1] {
                let problem =
                    format!("expected at most the channels of the level, got {reduction}");
                return Err(ModelError::config("reductions", problem));
            }
        }
        let widths = self.widths();
        widths.iter().try_for_each(|&it| self.norm_cfg.check(it))?;
        let maps = widths.into_iter().enumerate();
        Ok(maps
            .map(|(level, channels)| Feature { channels, stride: image.stride * (2 << level) })
            .collect())
    }

    fn build(&self, _: Feature, builder: &Builder) -> Result<Backbone, ModelError> {
        Ok(builder.norm_eval(self.norm_eval, || self.init(builder)).into())
    }

    fn initial(&self) -> Initial {
        Initial { rules: InitConfig::kaiming_and_no_slopes(), zeros: None }
    }

    fn pretrained(&self) -> Option<&str> {
        self.pretrained.as_deref()
    }

    fn init_cfg(&self) -> Option<&[InitConfig]> {
        self.init_cfg.as_deref()
    }
}

impl CGNetConfig {
    /// Channels of the three maps.
    fn widths(&self) -> [usize; 3] {
        let [stem, first, second] = [0, 1, 2].map(|it: usize| self.num_channels[it]);
        [stem + self.in_channels, 2 * first + self.in_channels, 2 * second]
    }

    fn module(&self, channels: usize) -> ConvModuleConfig {
        let act_cfg = match &self.act_cfg {
            ActConfig::PReLU(it) => {
                ActConfig::PReLU(PReLUConfig { num_parameters: channels, ..it.clone() })
            }
            other => other.clone(),
        };
        ConvModuleConfig { norm_cfg: Some(self.norm_cfg.clone()), act_cfg: Some(act_cfg) }
    }

    fn init(&self, builder: &Builder) -> CGNet {
        let first = self.num_channels[0];
        let stem = (0..3).map(|index| {
            let (input, stride) = if index == 0 { (self.in_channels, 2) } else { (first, 1) };
            self.module(first).init([input, first], 3, square(stride, 1, 1), builder)
        });
        let [width0, width1, width2] = self.widths();
        let norm_prelu = |width| (self.norm_cfg.init(width, builder), slopes(width).init(builder));
        let level = |level: usize, input: usize| -> Vec<GuidedBlock> {
            let output = self.num_channels[level + 1];
            let block = |index| {
                let input = if index == 0 { input } else { output };
                self.block(level, [input, output], index == 0, builder)
            };
            (0..self.num_blocks[level]).map(block).collect()
        };
        CGNet {
            stem: stem.collect(),
            norm_prelu_0: norm_prelu(width0),
            level1: level(0, width0),
            norm_prelu_1: norm_prelu(width1),
            level2: level(1, width1),
            norm_prelu_2: norm_prelu(width2),
            with_cp: self.with_cp,
        }
    }

    fn block(
        &self,
        level: usize,
        [input, output]: [usize; 2],
        downsample: bool,
        builder: &Builder,
    ) -> GuidedBlock {
        let channels = if downsample { output } else { output / 2 };
        let (kernel, stride) = if downsample { (3, 2) } else { (1, 1) };
        let conv1x1 = self.module(channels).init(
            [input, channels],
            kernel,
            square(stride, kernel / 2, 1),
            builder,
        );
        let depthwise = |dilation| {
            let conv = ops::Conv { groups: channels, ..square(1, dilation, dilation) };
            Conv2d::new([channels; 2], 3, conv, builder)
        };
        let bottleneck =
            downsample.then(|| Conv2d::new([2 * channels, output], 1, square(1, 0, 1), builder));
        let inner = output / self.reductions[level];
        let fc =
            (Linear::new([output, inner], builder), ReLU {}, Linear::new([inner, output], builder));
        GuidedBlock {
            conv1x1,
            f_loc: depthwise(1),
            f_sur: depthwise(self.dilations[level]),
            bn: self.norm_cfg.init(2 * channels, builder),
            activate: slopes(2 * channels).init(builder),
            bottleneck,
            f_glo: GlobalContext { fc },
        }
    }
}

/// A context guided network.
#[derive(Module, Debug)]
pub struct CGNet {
    stem: Vec<ConvModule>,
    norm_prelu_0: (Norm, Act),
    level1: Vec<GuidedBlock>,
    norm_prelu_1: (Norm, Act),
    level2: Vec<GuidedBlock>,
    norm_prelu_2: (Norm, Act),
    #[module(skip)]
    with_cp: bool,
}

/// mmseg's `ContextGuidedBlock`; one that halves the size has a `bottleneck`.
#[derive(Module, Debug)]
struct GuidedBlock {
    conv1x1: ConvModule,
    f_loc: Conv2d,
    f_sur: Conv2d,
    bn: Norm,
    activate: Act,
    bottleneck: Option<Conv2d>,
    f_glo: GlobalContext,
}

/// mmseg's `GlobalContextExtractor`.
#[derive(Module, Debug)]
struct GlobalContext {
    fc: (Linear, ReLU, Linear),
}

impl RunBackbone for CGNet {
    /// `[n, c, h, w]` to maps at a half, a quarter and an eighth of the size.
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Vec<Tensor<4>> {
        let halved = |x| ops::avg_pool2d(x, [3, 3], [2, 2], [1, 1], false, true);
        let image2 = halved(x.clone());
        let image4 = halved(image2.clone());
        let finish =
            |maps, (norm, act): &(Norm, Act)| normed(ops::concat(maps), Some(norm), Some(act), ctx);
        let x = self.stem.iter().fold(x, |x, conv| conv.forward(x, ctx));
        let first = finish(vec![x, image2], &self.norm_prelu_0);
        let (down, x) = self.level(&self.level1, first.clone(), ctx);
        let second = finish(vec![x, down, image4], &self.norm_prelu_1);
        let (down, x) = self.level(&self.level2, second.clone(), ctx);
        let third = finish(vec![down, x], &self.norm_prelu_2);
        vec![first, second, third]
    }
}

impl CGNet {
    /// What a level's first block gives, and its last.
    fn level(&self, blocks: &[GuidedBlock], x: Tensor<4>, ctx: &Forward) -> (Tensor<4>, Tensor<4>) {
        let run = |block: &GuidedBlock, x| {
            if self.with_cp {
                ctx.recomputed(block, [x], |block, [x], ctx| block.forward(x, ctx))
            } else {
                block.forward(x, ctx)
            }
        };
        let down = run(&blocks[0], x);
        let last = blocks[1..].iter().fold(down.clone(), |x, block| run(block, x));
        (down, last)
    }
}

impl GuidedBlock {
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let y = self.conv1x1.forward(x.clone(), ctx);
        let joined = ops::concat(vec![self.f_loc.forward(y.clone()), self.f_sur.forward(y)]);
        let y = normed(joined, Some(&self.bn), Some(&self.activate), ctx);
        match &self.bottleneck {
            Some(conv) => self.f_glo.forward(conv.forward(y)),
            None => x + self.f_glo.forward(y),
        }
    }
}

impl GlobalContext {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [n, channels, ..] = x.dims();
        let mean = ops::adaptive_avg_pool2d(x.clone(), [1, 1]).reshape([n, channels]);
        let (first, _, second) = &self.fc;
        let inner = ops::activate(first.forward::<2>(mean), Activation::ReLU);
        let weights = ops::activate(second.forward(inner), Activation::Sigmoid);
        x * weights.reshape([n, channels, 1, 1])
    }
}
