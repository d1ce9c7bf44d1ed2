//! ERFNet (Romera et al. 2017): residual blocks of strips, and a decoder of transposed
//! convolutions.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

use super::Backbone;
use crate::config::{OneOrMany, default};
use crate::models::contract::{BackboneSpec, Feature, RunBackbone};
use crate::models::layer::{
    ActConfig, BatchNormConfig, Conv2d, ConvConfig, ConvTranspose2d, Dropout, Norm, NormConfig,
    ReLU, square,
};
use crate::models::{Builder, Forward, InitConfig, ModelError};
use crate::ops::{self, Activation};

/// The keys of `type: ERFNet`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ERFNetConfig {
    #[serde(default = "default::n::<3>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub in_channels: usize,
    /// Channels after each halving.
    #[serde(default = "default_down")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub enc_downsample_channels: Vec<usize>,
    /// Residual blocks after each halving but the first.
    #[serde(default = "default_blocks")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub enc_stage_non_bottlenecks: Vec<usize>,
    /// Dilations that the last stage's blocks take in turn.
    #[serde(default = "default_dilations")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub enc_non_bottleneck_dilations: Vec<usize>,
    /// Without effect, as in mmseg.
    #[serde(default = "default_block_channels")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub enc_non_bottleneck_channels: Vec<usize>,
    /// Without effect but for their number, as in mmseg.
    #[serde(default = "default_up")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub dec_upsample_channels: Vec<usize>,
    /// Residual blocks after each doubling.
    #[serde(default = "default_dec_blocks")]
    pub dec_stages_non_bottleneck: Vec<usize>,
    /// Channels after each doubling.
    #[serde(default = "default_up")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub dec_non_bottleneck_channels: Vec<usize>,
    /// Of the encoder's blocks.
    #[serde(default = "default::ratio::<1, 10>")]
    #[serde(deserialize_with = "crate::config::below_one")]
    pub dropout_ratio: f64,
    #[serde(default)]
    pub conv_cfg: Option<ConvConfig>,
    /// Without effect, as in mmseg: the parts have batch norms with an `eps` of 0.001.
    #[serde(default = "NormConfig::batch")]
    pub norm_cfg: NormConfig,
    /// Without effect, as in mmseg: the parts have a ReLU.
    #[serde(default)]
    pub act_cfg: ActConfig,
    #[serde(default)]
    pub init_cfg: Option<OneOrMany<InitConfig>>,
}

fn default_down() -> Vec<usize> {
    vec![16, 64, 128]
}
fn default_blocks() -> Vec<usize> {
    vec![5, 8]
}
fn default_dilations() -> Vec<usize> {
    vec![2, 4, 8, 16]
}
fn default_block_channels() -> Vec<usize> {
    vec![64, 128]
}
fn default_up() -> Vec<usize> {
    vec![64, 16]
}
fn default_dec_blocks() -> Vec<usize> {
    vec![2, 2]
}

impl BackboneSpec for ERFNetConfig {
    fn check(&self, image: Feature) -> Result<Vec<Feature>, ModelError> {
        image.matches(self.in_channels)?;
        let stages = self.enc_downsample_channels.len();
        if stages < 2 {
            let problem = "expected at least two numbers";
            return Err(ModelError::config("enc_downsample_channels", problem));
        }
        for (key, found) in [
            ("enc_stage_non_bottlenecks", &self.enc_stage_non_bottlenecks),
            ("enc_non_bottleneck_channels", &self.enc_non_bottleneck_channels),
            ("dec_upsample_channels", &self.dec_upsample_channels),
            ("dec_stages_non_bottleneck", &self.dec_stages_non_bottleneck),
            ("dec_non_bottleneck_channels", &self.dec_non_bottleneck_channels),
        ] {
            super::one_for_each_layer(key, found, stages - 1)?;
        }
        let (last, dilations) =
            (self.enc_stage_non_bottlenecks[stages - 2], self.enc_non_bottleneck_dilations.len());
        if dilations == 0 || !last.is_multiple_of(dilations) {
            let problem =
                format!("the last, {last}, has to be a multiple of the {dilations} dilations");
            return Err(ModelError::config("enc_stage_non_bottlenecks", problem));
        }
        let mut before = self.in_channels;
        for &channels in &self.enc_downsample_channels {
            if channels <= before {
                let problem = format!("{channels} after {before}: each has to be more");
                return Err(ModelError::config("enc_downsample_channels", problem));
            }
            before = channels;
        }
        let channels = self.dec_non_bottleneck_channels[stages - 2];
        Ok(vec![Feature { channels, stride: image.stride * 2 }])
    }

    fn build(&self, _: Feature, builder: &Builder) -> Result<Backbone, ModelError> {
        let down = &self.enc_downsample_channels;
        let mut encoder =
            vec![Encoder::Half(Downsampler::new([self.in_channels, down[0]], builder))];
        for (stage, pair) in down.windows(2).enumerate() {
            encoder.push(Encoder::Half(Downsampler::new([pair[0], pair[1]], builder)));
            let count = self.enc_stage_non_bottlenecks[stage];
            let last = stage + 2 == down.len();
            let dilations = self.enc_non_bottleneck_dilations.iter().cycle();
            encoder.extend(dilations.take(count).map(|&dilation| {
                let dilation = if last { dilation } else { 1 };
                Encoder::Block(NonBottleneck::new(pair[1], self.dropout_ratio, dilation, builder))
            }));
        }
        let mut decoder = Vec::new();
        let mut input = down[down.len() - 1];
        let stages = self.dec_non_bottleneck_channels.iter().zip(&self.dec_stages_non_bottleneck);
        for (&output, &count) in stages {
            decoder.push(Decoder::Double(Upsampler::new([input, output], builder)));
            decoder.extend(
                (0..count).map(|_| Decoder::Block(NonBottleneck::new(output, 0.0, 1, builder))),
            );
            input = output;
        }
        Ok(ERFNet { encoder, decoder }.into())
    }

    fn init_cfg(&self) -> Option<&[InitConfig]> {
        self.init_cfg.as_deref()
    }
}

/// The norm of all parts.
fn norm(channels: usize, builder: &Builder) -> Norm {
    let config = BatchNormConfig { eps: 1e-3, ..BatchNormConfig::default() };
    NormConfig::BN(config).init(channels, builder)
}

/// An encoder, and a decoder that brings maps back to half the image's size.
#[derive(Module, Debug)]
pub struct ERFNet {
    encoder: Vec<Encoder>,
    decoder: Vec<Decoder>,
}

#[derive(Module, Debug)]
enum Encoder {
    Half(Downsampler),
    Block(NonBottleneck),
}

#[derive(Module, Debug)]
enum Decoder {
    Double(Upsampler),
    Block(NonBottleneck),
}

/// mmseg's `DownsamplerBlock`.
#[derive(Module, Debug)]
struct Downsampler {
    conv: Conv2d,
    bn: Norm,
}

/// mmseg's `UpsamplerBlock`.
#[derive(Module, Debug)]
struct Upsampler {
    conv: ConvTranspose2d,
    bn: Norm,
}

/// mmseg's `NonBottleneck1d`.
#[derive(Module, Debug)]
struct NonBottleneck {
    convs_layers: (Conv2d, ReLU, Conv2d, Norm, ReLU, Conv2d, ReLU, Conv2d, Norm, Dropout),
}

impl RunBackbone for ERFNet {
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Vec<Tensor<4>> {
        let x = self.encoder.iter().fold(x, |x, layer| match layer {
            Encoder::Half(it) => it.forward(x, ctx),
            Encoder::Block(it) => it.forward(x, ctx),
        });
        let x = self.decoder.iter().fold(x, |x, layer| match layer {
            Decoder::Double(it) => it.bn.forward(it.conv.forward(x), Activation::ReLU, ctx),
            Decoder::Block(it) => it.forward(x, ctx),
        });
        vec![x]
    }
}

impl Downsampler {
    fn new([input, output]: [usize; 2], builder: &Builder) -> Self {
        let conv = Conv2d::new([input, output - input], 3, square(2, 1, 1), builder);
        Self { conv: conv.with_bias(builder), bn: norm(output, builder) }
    }

    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let convolved = self.conv.forward(x.clone());
        let [.., height, width] = convolved.dims();
        let pooled = ops::max_pool2d(x, [2, 2], [2, 2], [0, 0]);
        let pooled = ops::resize_bilinear(pooled, [height, width], false);
        self.bn.forward(ops::concat(vec![convolved, pooled]), Activation::ReLU, ctx)
    }
}

impl Upsampler {
    fn new(channels: [usize; 2], builder: &Builder) -> Self {
        let conv = ConvTranspose2d::new(channels, 3, square(2, 1, 1), builder);
        Self { conv: conv.with_output_padding([1; 2]), bn: norm(channels[1], builder) }
    }
}

impl NonBottleneck {
    fn new(channels: usize, dropout: f64, dilation: usize, builder: &Builder) -> Self {
        let strip = |vertical: bool, dilation: usize| {
            let (kernel, padding, dilation) = if vertical {
                ([3, 1], [dilation, 0], [dilation, 1])
            } else {
                ([1, 3], [0, dilation], [1, dilation])
            };
            let conv = ops::Conv { stride: [1; 2], padding, dilation, groups: 1 };
            Conv2d::new([channels; 2], kernel, conv, builder).with_bias(builder)
        };
        let (first, second) = (strip(true, 1), strip(false, 1));
        let middle = norm(channels, builder);
        let (third, fourth) = (strip(true, dilation), strip(false, dilation));
        let last = norm(channels, builder);
        Self {
            convs_layers: (
                first,
                ReLU {},
                second,
                middle,
                ReLU {},
                third,
                ReLU {},
                fourth,
                last,
                Dropout::new(dropout),
            ),
        }
    }

    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let (first, _, second, middle, _, third, _, fourth, last, dropout) = &self.convs_layers;
        let y = second.forward(ops::relu(first.forward(x.clone())));
        let y = middle.forward(y, Activation::ReLU, ctx);
        let y = fourth.forward(ops::relu(third.forward(y)));
        let y = dropout.forward(last.forward(y, Activation::None, ctx), ctx);
        ops::add_relu(y, x)
    }
}
