//! U-Net (Ronneberger et al. 2015), as mmseg has it: an encoder, and a decoder that meets it again
//! at every size.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

use super::Backbone;
use crate::config::{NotOffered, OneOrMany, default};
use crate::models::contract::{BackboneSpec, Feature, Initial, RunBackbone};
use crate::models::layer::{
    ActConfig, ConvConfig, ConvModule, ConvModuleConfig, MaxPool, NormConfig, Upsample,
    UpsampleConfig, square,
};
use crate::models::{Builder, Forward, InitConfig, ModelError};
use crate::ops;

/// The keys of `type: UNet`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct UNetConfig {
    #[serde(default = "default::n::<3>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub in_channels: usize,
    /// Channels of the first stage; each stage doubles them.
    #[serde(default = "default::n::<64>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub base_channels: usize,
    #[serde(default = "default::n::<5>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub num_stages: usize,
    /// That of each stage's first convolution.
    #[serde(default = "default::list::<1, 5>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub strides: Vec<usize>,
    #[serde(default = "default::list::<2, 5>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub enc_num_convs: Vec<usize>,
    #[serde(default = "default::list::<2, 4>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub dec_num_convs: Vec<usize>,
    /// Whether each stage after the first begins with a max pooling, unless it has a stride.
    #[serde(default = "all_yes")]
    pub downsamples: Vec<bool>,
    /// The dilation of each stage's convolutions after its first.
    #[serde(default = "default::list::<1, 5>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub enc_dilations: Vec<usize>,
    #[serde(default = "default::list::<1, 4>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub dec_dilations: Vec<usize>,
    /// Keep each part's input alone and compute the rest again in the backward pass: less memory,
    /// more time.
    #[serde(default)]
    pub with_cp: bool,
    #[serde(default)]
    pub conv_cfg: Option<ConvConfig>,
    #[serde(default = "NormConfig::batch")]
    pub norm_cfg: NormConfig,
    #[serde(default)]
    pub act_cfg: ActConfig,
    #[serde(default)]
    pub upsample_cfg: UpsampleConfig,
    /// All norms use their running statistics in training too.
    #[serde(default)]
    pub norm_eval: bool,
    #[serde(default)]
    pub dcn: Option<NotOffered>,
    #[serde(default)]
    pub plugins: Option<NotOffered>,
    #[serde(default)]
    pub pretrained: Option<String>,
    #[serde(default)]
    pub init_cfg: Option<OneOrMany<InitConfig>>,
}

fn all_yes() -> Vec<bool> {
    vec![true; 4]
}

impl BackboneSpec for UNetConfig {
    fn check(&self, image: Feature) -> Result<Vec<Feature>, ModelError> {
        self.verify(image)?;
        let mut stride = image.stride;
        let encoded: Vec<Feature> = (0..self.num_stages)
            .map(|stage| {
                stride *= self.strides[stage] * if self.pools(stage) { 2 } else { 1 };
                Feature { channels: self.width(stage), stride }
            })
            .collect();
        Ok(encoded.into_iter().rev().collect())
    }

    fn build(&self, _: Feature, builder: &Builder) -> Result<Backbone, ModelError> {
        Ok(builder.norm_eval(self.norm_eval, || self.init(builder)).into())
    }

    fn divisor(&self) -> usize {
        1 << (1..self.num_stages).filter(|stage| self.halves(*stage)).count()
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

impl UNetConfig {
    fn width(&self, stage: usize) -> usize {
        self.base_channels << stage
    }

    fn pools(&self, stage: usize) -> bool {
        stage > 0 && self.strides[stage] == 1 && self.downsamples[stage - 1]
    }

    /// Whether a stage has half the size of the one before it.
    fn halves(&self, stage: usize) -> bool {
        self.strides[stage] != 1 || self.downsamples[stage - 1]
    }

    fn verify(&self, image: Feature) -> Result<(), ModelError> {
        image.matches(self.in_channels)?;
        let stages = self.num_stages;
        for (key, found, expected) in [
            ("strides", self.strides.len(), stages),
            ("enc_num_convs", self.enc_num_convs.len(), stages),
            ("enc_dilations", self.enc_dilations.len(), stages),
            ("dec_num_convs", self.dec_num_convs.len(), stages - 1),
            ("dec_dilations", self.dec_dilations.len(), stages - 1),
            ("downsamples", self.downsamples.len(), stages - 1),
        ] {
            if found != expected {
                let problem =
                    format!("expected {expected} values for num_stages {stages}, got {found}");
                return Err(ModelError::config(key, problem));
            }
        }
        if let Some(stride) = self.strides.iter().find(|it| **it > 2) {
            let problem = format!("the decoder doubles sizes: expected 1 or 2, got {stride}");
            return Err(ModelError::config("strides", problem));
        }
        let scale = self.upsample_cfg.check()?;
        if scale != 2.0 && (1..stages).any(|stage| self.halves(stage)) {
            let problem = format!("each stage halves the size, and this makes it {scale} times it");
            return Err(ModelError::config("upsample_cfg", problem));
        }
        (0..stages).try_for_each(|stage| self.norm_cfg.check(self.width(stage)))
    }

    fn init(&self, builder: &Builder) -> UNet {
        let layers = ConvModuleConfig {
            norm_cfg: Some(self.norm_cfg.clone()),
            act_cfg: Some(self.act_cfg.clone()),
        };
        let block = |channels: [usize; 2], convs, stride, dilation| {
            let conv = |index| {
                let [input, output] = channels;
                let (input, conv) = match index {
                    0 => (input, square(stride, 1, 1)),
                    _ => (output, square(1, dilation, dilation)),
                };
                layers.init([input, output], 3, conv, builder)
            };
            ConvBlock { convs: (0..convs).map(conv).collect() }
        };
        let encoder = |stage: usize| {
            let input = if stage == 0 { self.in_channels } else { self.width(stage - 1) };
            let (convs, dilation) = (self.enc_num_convs[stage], self.enc_dilations[stage]);
            let block = block([input, self.width(stage)], convs, self.strides[stage], dilation);
            if self.pools(stage) {
                Encoder::Pooled((MaxPool { kernel: 2 }, block))
            } else {
                Encoder::Plain(vec![block])
            }
        };
        let decoder = |stage: usize| {
            let (below, skip) = (self.width(stage), self.width(stage - 1));
            let upsample = if self.halves(stage) {
                Joint::Larger(self.upsample_cfg.init([below, skip], &layers, builder))
            } else {
                Joint::Alike(layers.init([below, skip], 1, square(1, 0, 1), builder))
            };
            let (convs, dilation) = (self.dec_num_convs[stage - 1], self.dec_dilations[stage - 1]);
            Decoder { conv_block: block([2 * skip, skip], convs, 1, dilation), upsample }
        };
        let encoder: Vec<_> = (0..self.num_stages).map(encoder).collect();
        let decoder: Vec<_> = (1..self.num_stages).map(decoder).collect();
        UNet { encoder, decoder, divisor: self.divisor(), with_cp: self.with_cp }
    }
}

/// A U-Net.
#[derive(Module, Debug)]
pub struct UNet {
    encoder: Vec<Encoder>,
    decoder: Vec<Decoder>,
    /// What height and width of an image have to be multiples of.
    divisor: usize,
    #[module(skip)]
    with_cp: bool,
}

/// Convolutions, one after the other: mmseg's `BasicConvBlock`.
#[derive(Module, Debug)]
struct ConvBlock {
    convs: Vec<ConvModule>,
}

#[derive(Module, Debug)]
enum Encoder {
    Plain(Vec<ConvBlock>),
    Pooled((MaxPool, ConvBlock)),
}

/// mmseg's `UpConvBlock`.
#[derive(Module, Debug)]
struct Decoder {
    conv_block: ConvBlock,
    upsample: Joint,
}

/// What brings a map to the size and the channels of the one that it is joined with.
#[derive(Module, Debug)]
enum Joint {
    Larger(Upsample),
    Alike(ConvModule),
}

impl RunBackbone for UNet {
    /// `[n, c, h, w]` to the decoder's maps, the smallest first.
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Vec<Tensor<4>> {
        let [.., height, width] = x.dims();
        if !height.is_multiple_of(self.divisor) || !width.is_multiple_of(self.divisor) {
            let why = format!(
                "height and width have to be multiples of {}; crop, pad or resize images to that \
                 (data_preprocessor.size, or size_divisor of its test_cfg), or test with mode: \
                 slide",
                self.divisor
            );
            ops::refuse("UNet", &[[height as i64, width as i64].to_vec()], &why);
        }
        let block = |block: &ConvBlock, x| {
            if self.with_cp {
                ctx.recomputed(block, [x], |block, [x], ctx| block.forward(x, ctx))
            } else {
                block.forward(x, ctx)
            }
        };
        let mut x = x;
        let mut encoded = Vec::with_capacity(self.encoder.len());
        for stage in &self.encoder {
            x = match stage {
                Encoder::Plain(blocks) => blocks.iter().fold(x, |x, it| block(it, x)),
                Encoder::Pooled((pool, it)) => block(it, pool.forward(x)),
            };
            encoded.push(x.clone());
        }
        encoded.pop();
        let mut features = vec![x.clone()];
        for (stage, skip) in self.decoder.iter().zip(encoded).rev() {
            let larger = match &stage.upsample {
                Joint::Larger(it) if self.with_cp => {
                    ctx.recomputed(it, [x], |it, [x], ctx| it.forward(x, ctx))
                }
                Joint::Larger(it) => it.forward(x, ctx),
                Joint::Alike(it) => it.forward(x, ctx),
            };
            x = block(&stage.conv_block, ops::concat(vec![skip, larger]));
            features.push(x.clone());
        }
        features
    }
}

impl ConvBlock {
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        self.convs.iter().fold(x, |x, conv| conv.forward(x, ctx))
    }
}
