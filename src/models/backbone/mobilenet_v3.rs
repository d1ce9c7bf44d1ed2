//! MobileNetV3 (Howard et al. 2019), its last layers dilated in place of strides.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

use super::Backbone;
use crate::config::{OneOrMany, default};
use crate::models::contract::{BackboneSpec, Feature, Initial, RunBackbone};
use crate::models::layer::{
    ActConfig, AdaptiveConvModule, ConvConfig, ConvModule, ConvModuleConfig, InplaceConfig,
    InvertedResidualV3, InvertedV3Config, NormConfig, square,
};
use crate::models::{Builder, Forward, InitConfig, ModelError};
use crate::ops;

/// The keys of `type: MobileNetV3`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct MobileNetV3Config {
    #[serde(default)]
    pub arch: MobileNetV3Arch,
    #[serde(default)]
    pub conv_cfg: Option<ConvConfig>,
    #[serde(default = "NormConfig::batch")]
    pub norm_cfg: NormConfig,
    /// The layers whose output the heads see.
    #[serde(default = "default_out_indices")]
    pub out_indices: Vec<usize>,
    /// Layers up to this one neither train nor update statistics; -1 freezes nothing.
    #[serde(default = "default::i::<-1>")]
    pub frozen_stages: i64,
    /// How many times narrower the last blocks are.
    #[serde(default = "default::n::<1>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub reduction_factor: usize,
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

/// `arch`.
#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum MobileNetV3Arch {
    #[default]
    Small,
    Large,
}

fn default_out_indices() -> Vec<usize> {
    vec![0, 1, 12]
}

/// A row of the paper's tables: kernel, channels inside, channels, whether channels are weighed,
/// whether the activation is HSwish, stride.
type Row = (usize, usize, usize, bool, bool, usize);

const SMALL: &[Row] = &[
    (3, 16, 16, true, false, 2),
    (3, 72, 24, false, false, 2),
    (3, 88, 24, false, false, 1),
    (5, 96, 40, true, true, 2),
    (5, 240, 40, true, true, 1),
    (5, 240, 40, true, true, 1),
    (5, 120, 48, true, true, 1),
    (5, 144, 48, true, true, 1),
    (5, 288, 96, true, true, 2),
    (5, 576, 96, true, true, 1),
    (5, 576, 96, true, true, 1),
];

const LARGE: &[Row] = &[
    (3, 16, 16, false, false, 1),
    (3, 64, 24, false, false, 2),
    (3, 72, 24, false, false, 1),
    (5, 72, 40, true, false, 2),
    (5, 120, 40, true, false, 1),
    (5, 120, 40, true, false, 1),
    (3, 240, 80, false, true, 2),
    (3, 200, 80, false, true, 1),
    (3, 184, 80, false, true, 1),
    (3, 184, 80, false, true, 1),
    (3, 480, 112, true, true, 1),
    (3, 672, 112, true, true, 1),
    (5, 672, 160, true, true, 2),
    (5, 960, 160, true, true, 1),
    (5, 960, 160, true, true, 1),
];

/// What mmseg makes of a row.
#[derive(Debug, Clone, Copy)]
struct Layer {
    row: Row,
    input: usize,
    inner: usize,
    output: usize,
    stride: usize,
    dilation: usize,
}

/// Channels of the first convolution.
const FIRST: usize = 16;

impl MobileNetV3Config {
    fn rows(&self) -> &'static [Row] {
        match self.arch {
            MobileNetV3Arch::Small => SMALL,
            MobileNetV3Arch::Large => LARGE,
        }
    }

    /// Channels of the last convolution.
    fn last(&self) -> usize {
        match self.arch {
            MobileNetV3Arch::Small => 576,
            MobileNetV3Arch::Large => 960,
        }
    }

    /// The blocks. From two layers on the stride becomes a dilation.
    fn layers(&self) -> Vec<Layer> {
        let (narrow, [twice, four]) = match self.arch {
            MobileNetV3Arch::Small => (8, [4, 9]),
            MobileNetV3Arch::Large => (12, [7, 13]),
        };
        let mut input = FIRST;
        let layer = |(index, &row): (usize, &Row)| {
            let place = index + 1;
            let (_, inner, output, .., stride) = row;
            let factor = if index >= narrow { self.reduction_factor } else { 1 };
            let dilation = match place {
                _ if place >= four => 4,
                _ if place >= twice => 2,
                _ => 1,
            };
            let stride = if [twice, four].contains(&place) { 1 } else { stride };
            let layer = Layer {
                row,
                input,
                inner: inner / factor,
                output: output / factor,
                stride,
                dilation,
            };
            input = layer.output;
            layer
        };
        self.rows().iter().enumerate().map(layer).collect()
    }

    fn module(&self, act_cfg: ActConfig) -> ConvModuleConfig {
        ConvModuleConfig { norm_cfg: Some(self.norm_cfg.clone()), act_cfg: Some(act_cfg) }
    }

    fn init(&self, builder: &Builder) -> MobileNetV3 {
        let hswish = || self.module(ActConfig::HSwish(InplaceConfig::default()));
        let frozen = |place: usize| self.frozen_stages >= place as i64;
        let layer0 = builder.frozen(frozen(0), || {
            AdaptiveConvModule::new(&hswish(), [3, FIRST], 3, square(2, 0, 1), true, builder)
        });
        let layers = self.layers();
        let block = |layer: &Layer| {
            let (kernel, _, _, squeeze, swish, given) = layer.row;
            let module = if swish { hswish() } else { self.module(ActConfig::default()) };
            let config = InvertedV3Config {
                channels: [layer.input, layer.output],
                inner: layer.inner,
                kernel,
                stride: layer.stride,
                dilation: layer.dilation,
                adaptive: given == 2,
                squeeze,
                shortcut: given == 1 && layer.input == layer.output,
                module: &module,
            };
            InvertedResidualV3::new(config, builder)
        };
        let mut blocks = layers
            .iter()
            .enumerate()
            .map(|(index, layer)| builder.frozen(frozen(index + 1), || block(layer)));
        let places = layers.len();
        let input = layers[places - 1].output;
        let last = || {
            builder.frozen(frozen(places + 1), || {
                hswish().init(
                    [input, self.last()],
                    1,
                    ops::Conv { dilation: [4; 2], ..square(1, 0, 1) },
                    builder,
                )
            })
        };
        let mut next = || blocks.next().map(Stage::Block);
        let mut stages: Vec<Option<Stage>> = (0..places).map(|_| next()).collect();
        stages.push(Some(Stage::Last(last())));
        stages.resize_with(16, || None);
        let mut stages = stages.into_iter();
        let mut next = || stages.next().flatten();
        MobileNetV3 {
            layer0,
            layer1: next(),
            layer2: next(),
            layer3: next(),
            layer4: next(),
            layer5: next(),
            layer6: next(),
            layer7: next(),
            layer8: next(),
            layer9: next(),
            layer10: next(),
            layer11: next(),
            layer12: next(),
            layer13: next(),
            layer14: next(),
            layer15: next(),
            layer16: next(),
            out_indices: self.out_indices.clone(),
            with_cp: self.with_cp,
        }
    }
}

impl BackboneSpec for MobileNetV3Config {
    fn check(&self, image: Feature) -> Result<Vec<Feature>, ModelError> {
        image.matches(3)?;
        let layers = self.layers();
        let count = layers.len() + 2;
        super::stages_that_are("out_indices", &self.out_indices, count)?;
        if !(-1..count as i64).contains(&self.frozen_stages) {
            let problem = format!("expected -1 to {}, got {}", count - 1, self.frozen_stages);
            return Err(ModelError::config("frozen_stages", problem));
        }
        if layers.iter().any(|it| it.inner == 0 || it.output == 0) {
            let problem = format!("leaves a block without channels, got {}", self.reduction_factor);
            return Err(ModelError::config("reduction_factor", problem));
        }
        let mut stride = image.stride * 2;
        let mut maps = vec![Feature { channels: FIRST, stride }];
        for layer in layers {
            stride *= layer.stride;
            maps.push(Feature { channels: layer.output, stride });
        }
        maps.push(Feature { channels: self.last(), stride });
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

/// A MobileNetV3; the small one ends in `layer12`.
#[derive(Module, Debug)]
pub struct MobileNetV3 {
    layer0: AdaptiveConvModule,
    layer1: Option<Stage>,
    layer2: Option<Stage>,
    layer3: Option<Stage>,
    layer4: Option<Stage>,
    layer5: Option<Stage>,
    layer6: Option<Stage>,
    layer7: Option<Stage>,
    layer8: Option<Stage>,
    layer9: Option<Stage>,
    layer10: Option<Stage>,
    layer11: Option<Stage>,
    layer12: Option<Stage>,
    layer13: Option<Stage>,
    layer14: Option<Stage>,
    layer15: Option<Stage>,
    layer16: Option<Stage>,
    #[module(skip)]
    out_indices: Vec<usize>,
    #[module(skip)]
    with_cp: bool,
}

#[derive(Module, Debug)]
enum Stage {
    Block(InvertedResidualV3),
    Last(ConvModule),
}

impl RunBackbone for MobileNetV3 {
    /// `[n, 3, h, w]` to the outputs of the layers in `out_indices`.
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Vec<Tensor<4>> {
        let mut x = self.layer0.forward(x, ctx);
        let mut maps = vec![x.clone()];
        let stages = [
            &self.layer1,
            &self.layer2,
            &self.layer3,
            &self.layer4,
            &self.layer5,
            &self.layer6,
            &self.layer7,
            &self.layer8,
            &self.layer9,
            &self.layer10,
            &self.layer11,
            &self.layer12,
            &self.layer13,
            &self.layer14,
            &self.layer15,
            &self.layer16,
        ];
        for stage in stages.into_iter().flatten() {
            x = match stage {
                Stage::Block(block) if self.with_cp => {
                    ctx.recomputed(block, [x], |block, [x], ctx| block.forward(x, ctx))
                }
                Stage::Block(block) => block.forward(x, ctx),
                Stage::Last(conv) => conv.forward(x, ctx),
            };
            maps.push(x.clone());
        }
        super::chosen(maps, &self.out_indices)
    }
}
