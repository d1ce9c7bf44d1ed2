//! HRNet (Wang et al. 2019): branches of several resolutions, side by side from the first stage to
//! the last, which exchange what they found after every module.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

use super::Backbone;
use super::block::{BOTTLENECK_EXPANSION, Block, BlockConfig, Inner};
use super::resnet::Style;
use crate::config::{OneOrMany, default};
use crate::models::contract::{BackboneSpec, Feature, Initial, RunBackbone};
use crate::models::layer::{
    Conv2d, ConvConfig, InterpolationMode, Larger, Norm, NormConfig, ReLU, square,
};
use crate::models::{Builder, Forward, InitConfig, ModelError};
use crate::ops::{self, Activation};

/// The keys of `type: HRNet`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct HRNetConfig {
    /// The four stages.
    pub extra: HRNetStages,
    #[serde(default = "default::n::<3>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub in_channels: usize,
    #[serde(default)]
    pub conv_cfg: Option<ConvConfig>,
    #[serde(default = "NormConfig::batch")]
    pub norm_cfg: NormConfig,
    /// All norms use their running statistics in training too.
    #[serde(default)]
    pub norm_eval: bool,
    /// Keep each block's input alone and compute the rest again in the backward pass: less memory,
    /// more time.
    #[serde(default)]
    pub with_cp: bool,
    /// The stem and this many stages neither train nor update statistics; -1 freezes nothing.
    #[serde(default = "default::i::<-1>")]
    pub frozen_stages: i64,
    /// Without effect, as in mmseg, whose HRNet always has an `init_cfg`.
    #[serde(default)]
    pub zero_init_residual: bool,
    /// Whether the last module gives all maps, not the largest alone.
    #[serde(default = "default::yes")]
    pub multiscale_output: bool,
    #[serde(default)]
    pub pretrained: Option<String>,
    #[serde(default)]
    pub init_cfg: Option<OneOrMany<InitConfig>>,
}

/// `extra`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct HRNetStages {
    pub stage1: HRNetStage,
    pub stage2: HRNetStage,
    pub stage3: HRNetStage,
    pub stage4: HRNetStage,
}

/// A stage of `extra`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct HRNetStage {
    #[serde(deserialize_with = "crate::config::positive")]
    pub num_modules: usize,
    #[serde(deserialize_with = "crate::config::positive")]
    pub num_branches: usize,
    pub block: HRNetBlock,
    /// For each branch.
    #[serde(deserialize_with = "crate::config::positive")]
    pub num_blocks: Vec<usize>,
    /// Channels of each branch's inner convolutions.
    #[serde(deserialize_with = "crate::config::positive")]
    pub num_channels: Vec<usize>,
}

/// What a stage's branches are made of.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum HRNetBlock {
    Basic,
    Bottleneck,
}

impl HRNetStage {
    /// Channels of each branch's maps.
    fn widths(&self) -> Vec<usize> {
        let expansion = if self.block == HRNetBlock::Basic { 1 } else { BOTTLENECK_EXPANSION };
        self.num_channels.iter().map(|it| it * expansion).collect()
    }
}

/// Channels after the stem.
const STEM: usize = 64;

impl BackboneSpec for HRNetConfig {
    fn check(&self, image: Feature) -> Result<Vec<Feature>, ModelError> {
        self.verify(image)?;
        let widths = self.extra.stage4.widths();
        let outputs = if self.multiscale_output { widths.len() } else { 1 };
        let map = |(branch, &channels): (usize, &usize)| Feature {
            channels,
            stride: image.stride * (4 << branch),
        };
        Ok(widths.iter().enumerate().map(map).take(outputs).collect())
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

impl HRNetConfig {
    fn stages(&self) -> [(&'static str, &HRNetStage); 4] {
        let HRNetStages { stage1, stage2, stage3, stage4 } = &self.extra;
        [("stage1", stage1), ("stage2", stage2), ("stage3", stage3), ("stage4", stage4)]
    }

    fn verify(&self, image: Feature) -> Result<(), ModelError> {
        image.matches(self.in_channels)?;
        let mut before: Vec<usize> = Vec::new();
        for (name, stage) in self.stages() {
            let key = |key: &str| format!("extra.{name}.{key}");
            for (list, found) in
                [("num_blocks", &stage.num_blocks), ("num_channels", &stage.num_channels)]
            {
                if found.len() != stage.num_branches {
                    let problem = format!(
                        "expected a value for each of the {} branches, got {}",
                        stage.num_branches,
                        found.len()
                    );
                    return Err(ModelError::config(key(list), problem));
                }
            }
            let widths = stage.widths();
            let first = name == "stage1";
            if first && (stage.num_branches, stage.num_modules) != (1, 1) {
                let problem = "the first stage has one branch of one module";
                return Err(ModelError::config(key("num_branches"), problem));
            }
            // One stage's largest map has another width in the next one.
            let kept = if name == "stage2" { &[][..] } else { &before[..] };
            if let Some(branch) =
                (0..kept.len().min(widths.len())).find(|&it| kept[it] != widths[it])
            {
                let problem = format!(
                    "branch {branch} has {} channels, and {} in the stage before; mmseg cannot \
                     change those either",
                    widths[branch], kept[branch]
                );
                return Err(ModelError::config(key("num_channels"), problem));
            }
            widths.iter().try_for_each(|&it| self.norm_cfg.check(it))?;
            before = widths;
        }
        if !(-1..=4).contains(&self.frozen_stages) {
            let problem = format!("expected -1 to 4, got {}", self.frozen_stages);
            return Err(ModelError::config("frozen_stages", problem));
        }
        Ok(())
    }

    fn init(&self, builder: &Builder) -> HRNet {
        let HRNetStages { stage1, stage2, stage3, stage4 } = &self.extra;
        let frozen = |stage: i64| self.frozen_stages >= stage;
        let stem = |input| self.conv_norm([input, STEM], 3, 2, builder);
        let ((conv1, bn1), (conv2, bn2)) =
            builder.frozen(frozen(0), || (stem(self.in_channels), stem(STEM)));
        let layer1 = builder.frozen(frozen(1), || self.blocks(stage1, 0, STEM, builder));
        // A stage's transition to the next is frozen with it.
        let transition = |number, before: &[usize], stage: &HRNetStage| {
            builder.frozen(frozen(number), || self.transition(before, &stage.widths(), builder))
        };
        let modules = |number, stage: &HRNetStage, all| {
            builder.frozen(frozen(number), || self.modules(stage, all, builder))
        };
        HRNet {
            conv1,
            bn1,
            conv2,
            bn2,
            layer1,
            transition1: transition(1, &stage1.widths(), stage2),
            stage2: modules(2, stage2, true),
            transition2: transition(2, &stage2.widths(), stage3),
            stage3: modules(3, stage3, true),
            transition3: transition(3, &stage3.widths(), stage4),
            stage4: modules(4, stage4, self.multiscale_output),
            with_cp: self.with_cp,
        }
    }

    fn conv_norm(
        &self,
        channels: [usize; 2],
        kernel: usize,
        stride: usize,
        builder: &Builder,
    ) -> (Conv2d, Norm) {
        let conv = Conv2d::new(channels, kernel, square(stride, kernel / 2, 1), builder);
        (conv, self.norm_cfg.init(channels[1], builder))
    }

    /// The blocks of a branch, from a map of `input` channels.
    fn blocks(
        &self,
        stage: &HRNetStage,
        branch: usize,
        input: usize,
        builder: &Builder,
    ) -> Vec<Block> {
        let output = stage.widths()[branch];
        let block = |index: usize| {
            let input = if index == 0 { input } else { output };
            let config = BlockConfig {
                input,
                planes: stage.num_channels[branch],
                stride: 1,
                dilation: 1,
                style: Style::Pytorch,
                avg_down: false,
                norm_cfg: &self.norm_cfg,
                inner: Inner::Plain,
                base_channels: stage.num_channels[branch],
            };
            match stage.block {
                HRNetBlock::Basic => config.basic(input != output, builder),
                HRNetBlock::Bottleneck => config.bottleneck(input != output, builder),
            }
        };
        (0..stage.num_blocks[branch]).map(block).collect()
    }

    /// From the maps of one stage to those that the next begins with.
    fn transition(
        &self,
        before: &[usize],
        after: &[usize],
        builder: &Builder,
    ) -> Vec<Option<Transition>> {
        let step = |input, output, stride| {
            let (conv, norm) = self.conv_norm([input, output], 3, stride, builder);
            (conv, norm, ReLU {})
        };
        let last = before[before.len() - 1];
        let of = |(branch, &output): (usize, &usize)| match before.get(branch) {
            Some(&input) if input == output => None,
            Some(&input) => Some(Transition::Alike(step(input, output, 1))),
            None => {
                let steps = branch + 1 - before.len();
                let down =
                    (1..=steps).map(|it| step(last, if it == steps { output } else { last }, 2));
                Some(Transition::Smaller(down.collect()))
            }
        };
        after.iter().enumerate().map(of).collect()
    }

    /// The modules of a stage; the last gives all maps, or the first alone.
    fn modules(&self, stage: &HRNetStage, all: bool, builder: &Builder) -> Vec<HRModule> {
        let widths = stage.widths();
        let module = |index: usize| {
            let branches = (0..widths.len())
                .map(|branch| self.blocks(stage, branch, widths[branch], builder))
                .collect();
            let outputs = if all || index + 1 < stage.num_modules { widths.len() } else { 1 };
            let fuse = |to: usize| {
                (0..widths.len()).map(|from| self.fuse([from, to], &widths, builder)).collect()
            };
            let fuse_layers =
                if widths.len() == 1 { Vec::new() } else { (0..outputs).map(fuse).collect() };
            HRModule { branches, fuse_layers }
        };
        (0..stage.num_modules).map(module).collect()
    }

    /// What brings the map of one branch to the size and the channels of another.
    fn fuse(&self, [from, to]: [usize; 2], widths: &[usize], builder: &Builder) -> Option<Fuse> {
        if from == to {
            return None;
        }
        if from > to {
            let (conv, norm) = self.conv_norm([widths[from], widths[to]], 1, 1, builder);
            let larger = Larger {
                scale_factor: 1 << (from - to),
                mode: InterpolationMode::Bilinear,
                align_corners: false,
            };
            return Some(Fuse::Larger((conv, norm, larger)));
        }
        let steps = (from + 1..=to).map(|branch| {
            let output = if branch == to { widths[to] } else { widths[from] };
            let (conv, norm) = self.conv_norm([widths[from], output], 3, 2, builder);
            if branch == to { Step::Last((conv, norm)) } else { Step::Inner((conv, norm, ReLU {})) }
        });
        Some(Fuse::Smaller(steps.collect()))
    }
}

/// A high-resolution network.
#[derive(Module, Debug)]
pub struct HRNet {
    conv1: Conv2d,
    bn1: Norm,
    conv2: Conv2d,
    bn2: Norm,
    layer1: Vec<Block>,
    transition1: Vec<Option<Transition>>,
    stage2: Vec<HRModule>,
    transition2: Vec<Option<Transition>>,
    stage3: Vec<HRModule>,
    transition3: Vec<Option<Transition>>,
    stage4: Vec<HRModule>,
    #[module(skip)]
    with_cp: bool,
}

/// From a branch of one stage to one of the next.
#[derive(Module, Debug)]
enum Transition {
    Alike((Conv2d, Norm, ReLU)),
    Smaller(Vec<(Conv2d, Norm, ReLU)>),
}

/// Branches, and what each gets of the others.
#[derive(Module, Debug)]
struct HRModule {
    branches: Vec<Vec<Block>>,
    /// By the branch that gets, then the one that gives.
    fuse_layers: Vec<Vec<Option<Fuse>>>,
}

/// What is added to a branch from another one.
#[derive(Module, Debug)]
enum Fuse {
    /// Enlarged to a multiple of its size, and then to that of the branch.
    Larger((Conv2d, Norm, Larger)),
    Smaller(Vec<Step>),
}

/// A convolution that halves the size.
#[derive(Module, Debug)]
enum Step {
    Inner((Conv2d, Norm, ReLU)),
    Last((Conv2d, Norm)),
}

impl RunBackbone for HRNet {
    /// `[n, c, h, w]` to a map of each branch, the largest first.
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Vec<Tensor<4>> {
        let x = self.bn1.forward(self.conv1.forward(x), Activation::ReLU, ctx);
        let x = self.bn2.forward(self.conv2.forward(x), Activation::ReLU, ctx);
        let mut maps = vec![run(&self.layer1, x, self.with_cp, ctx)];
        for (transitions, stage) in [
            (&self.transition1, &self.stage2),
            (&self.transition2, &self.stage3),
            (&self.transition3, &self.stage4),
        ] {
            let last = maps[maps.len() - 1].clone();
            let next = |(branch, transition): (usize, &Option<Transition>)| match transition {
                None => maps[branch].clone(),
                Some(Transition::Alike((conv, norm, _))) => {
                    norm.forward(conv.forward(last.clone()), Activation::ReLU, ctx)
                }
                Some(Transition::Smaller(steps)) => {
                    steps.iter().fold(last.clone(), |x, (conv, norm, _)| {
                        norm.forward(conv.forward(x), Activation::ReLU, ctx)
                    })
                }
            };
            maps = transitions.iter().enumerate().map(next).collect();
            maps = stage.iter().fold(maps, |maps, module| module.forward(maps, self.with_cp, ctx));
        }
        maps
    }
}

fn run(blocks: &[Block], x: Tensor<4>, with_cp: bool, ctx: &Forward) -> Tensor<4> {
    blocks.iter().fold(x, |x, block| {
        if with_cp {
            ctx.recomputed(block, [x], |block, [x], ctx| block.forward(x, ctx))
        } else {
            block.forward(x, ctx)
        }
    })
}

impl HRModule {
    fn forward(&self, maps: Vec<Tensor<4>>, with_cp: bool, ctx: &Forward) -> Vec<Tensor<4>> {
        let maps: Vec<Tensor<4>> = self
            .branches
            .iter()
            .zip(maps)
            .map(|(blocks, x)| run(blocks, x, with_cp, ctx))
            .collect();
        if self.fuse_layers.is_empty() {
            return maps;
        }
        let fused = self.fuse_layers.iter().enumerate().map(|(to, layers)| {
            let [.., height, width] = maps[to].dims();
            let given = layers.iter().zip(&maps).map(|(layer, map)| match layer {
                None => map.clone(),
                Some(Fuse::Larger((conv, norm, larger))) => {
                    let x = norm.forward(conv.forward(map.clone()), Activation::None, ctx);
                    ops::resize_bilinear(larger.forward(x), [height, width], false)
                }
                Some(Fuse::Smaller(steps)) => {
                    steps.iter().fold(map.clone(), |x, step| match step {
                        Step::Inner((conv, norm, _)) => {
                            norm.forward(conv.forward(x), Activation::ReLU, ctx)
                        }
                        Step::Last((conv, norm)) => {
                            norm.forward(conv.forward(x), Activation::None, ctx)
                        }
                    })
                }
            });
            let mut given: Vec<Tensor<4>> = given.collect();
            let last = given.pop().expect("a module has branches");
            let sum = given.into_iter().reduce(|a, b| a + b).expect("more than one");
            ops::add_relu(sum, last)
        });
        fused.collect()
    }
}
