//! The head of SegNeXt (Guo et al. 2022): "Hamburger" (Geng et al. 2021), a matrix decomposition in
//! place of attention.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;
use serde::Deserialize;

use super::{Decode, DecodeConfig, Head, InputTransform};
use crate::config::{Both, default};
use crate::models::contract::{Feature, HeadKeys, RunHead, Seen};
use crate::models::layer::{Conv2d, ConvModule, ConvModuleConfig, square};
use crate::models::{Builder, Forward, ModelError};
use crate::ops;
use crate::weights::Layer;

/// The keys of `type: LightHamHead`.
pub type LightHamHeadConfig = Both<DecodeConfig, LightHamKeys>;

/// Its own keys.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct LightHamKeys {
    /// Channels that are decomposed.
    #[serde(default = "default::n::<512>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub ham_channels: usize,
    #[serde(default)]
    pub ham_kwargs: HamConfig,
}

/// `ham_kwargs`, by mmseg's names.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct HamConfig {
    /// Parts that the channels are cut into.
    #[serde(rename = "MD_S")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub md_s: usize,
    /// Bases of each part.
    #[serde(rename = "MD_R")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub md_r: usize,
    pub train_steps: usize,
    pub eval_steps: usize,
    /// Without effect, as in mmseg, which takes 1.
    #[serde(deserialize_with = "crate::config::finite")]
    pub inv_t: f64,
    /// Whether every pass draws bases of its own; else they are drawn once and saved.
    pub rand_init: bool,
}

impl Default for HamConfig {
    fn default() -> Self {
        Self { md_s: 1, md_r: 64, train_steps: 6, eval_steps: 7, inv_t: 100.0, rand_init: true }
    }
}

impl HeadKeys for LightHamKeys {
    fn transform(&self, _: &DecodeConfig) -> Option<InputTransform> {
        Some(InputTransform::MultipleSelect)
    }

    fn check(&self, shared: &DecodeConfig, _: &[Feature]) -> Result<(), ModelError> {
        shared.maps_as_they_are()?;
        let (channels, parts) = (self.ham_channels, self.ham_kwargs.md_s);
        if !channels.is_multiple_of(parts) {
            let problem = format!("{parts} parts do not divide {channels} channels");
            return Err(ModelError::config("ham_kwargs.MD_S", problem));
        }
        shared.norm_cfg.iter().try_for_each(|it| it.check(channels))
    }

    fn build(
        &self,
        shared: &DecodeConfig,
        inputs: &[Feature],
        builder: &Builder,
    ) -> Result<Head, ModelError> {
        let (conv_seg, decode) = shared.build_with(self.transform(shared), inputs, builder)?;
        let (inner, module) = (self.ham_channels, shared.conv_module());
        let plain = ConvModuleConfig { norm_cfg: None, act_cfg: None };
        let last = ConvModuleConfig { act_cfg: None, ..module.clone() };
        let of = |module: &ConvModuleConfig, channels| {
            module.init(channels, 1, square(1, 0, 1), builder)
        };
        let squeeze = of(&module, [shared.input_channels(), inner]);
        let config = self.ham_kwargs.clone();
        let bases = (!config.rand_init).then(|| {
            let depth = inner / config.md_s;
            let drawn = draw(1, [config.md_s, depth, config.md_r], 0, builder.device());
            builder.buffer(drawn, Layer::Own)
        });
        let hamburger = Hamburger {
            ham_in: of(&plain, [inner; 2]),
            ham: Factors { bases, config },
            ham_out: of(&last, [inner; 2]),
        };
        let align = of(&module, [inner, shared.channels]);
        Ok(LightHamHead { conv_seg, squeeze, hamburger, align, decode }.into())
    }
}

/// Bases `[count · parts, depth, bases]`, each of length 1: uniform numbers of a seed.
fn draw(count: usize, [parts, depth, bases]: [usize; 3], seed: u64, device: &Device) -> Tensor<3> {
    let mut random = Pcg64::seed_from_u64(seed);
    let mut values: Vec<f32> =
        (0..count * parts * depth * bases).map(|_| random.random::<f32>()).collect();
    for part in values.chunks_mut(depth * bases) {
        for basis in 0..bases {
            let square: f32 = part[basis..].iter().step_by(bases).map(|it| it * it).sum();
            let length = square.sqrt().max(1e-12);
            part[basis..].iter_mut().step_by(bases).for_each(|it| *it /= length);
        }
    }
    Tensor::from_data(TensorData::new(values, [count * parts, depth, bases]), device)
}

/// Maps, joined and decomposed.
#[derive(Module, Debug)]
pub struct LightHamHead {
    conv_seg: Conv2d,
    squeeze: ConvModule,
    hamburger: Hamburger,
    align: ConvModule,
    #[module(skip)]
    decode: Decode,
}

#[derive(Module, Debug)]
struct Hamburger {
    ham_in: ConvModule,
    ham: Factors,
    ham_out: ConvModule,
}

/// mmseg's `NMF2D` (Lee and Seung 2000).
#[derive(Module, Debug)]
struct Factors {
    /// `[parts, depth, bases]`
    bases: Option<Param<Tensor<3>>>,
    #[module(skip)]
    config: HamConfig,
}

impl RunHead for LightHamHead {
    fn forward(&self, seen: Seen, ctx: &Forward) -> Tensor<4> {
        let maps = self.decode.select_each(seen.features);
        let [.., height, width] = maps[0].dims();
        let resized = maps.into_iter().map(|map| self.decode.resize(map, [height, width]));
        let x = self.squeeze.forward(ops::concat(resized.collect()), ctx);
        let x = self.align.forward(self.hamburger.forward(x, ctx), ctx);
        self.decode.classify(&self.conv_seg, x, ctx)
    }

    fn decode(&self) -> &Decode {
        &self.decode
    }
}

impl Hamburger {
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let y = ops::relu(self.ham_in.forward(x.clone(), ctx));
        let y = self.ham_out.forward(self.ham.forward(y, ctx), ctx);
        ops::add_relu(y, x)
    }
}

impl Factors {
    /// What so many bases make of `x` `[n, c, h, w]`.
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let [n, channels, height, width] = x.dims();
        let HamConfig { md_s: parts, md_r: bases, train_steps, eval_steps, .. } = self.config;
        let depth = channels / parts;
        let mut bases = match &self.bases {
            Some(it) => it.val().repeat_dim(0, n),
            None => draw(n, [parts, depth, bases], ctx.next_seed(), &x.device()),
        };
        let x = x.reshape([n * parts, depth, height * width]);
        let turned = x.clone().swap_dims(1, 2); // [n · parts, pixels, depth]
        let mut shares = ops::softmax(ops::matmul(turned.clone(), bases.clone()), 2);
        for _ in 0..if ctx.training { train_steps } else { eval_steps } {
            shares = fitted(turned.clone(), &bases, shares);
            bases = fitted(x.clone(), &shares, bases);
        }
        let shares = fitted(turned, &bases, shares);
        ops::matmul(bases, shares.swap_dims(1, 2)).reshape([n, channels, height, width])
    }
}

/// One step for one of two factors: `factor` of `x` `[n, a, b]`, `[n, a, r]`, while the `other`,
/// `[n, b, r]`, stays.
fn fitted(x: Tensor<3>, other: &Tensor<3>, factor: Tensor<3>) -> Tensor<3> {
    let above = ops::matmul(x, other.clone());
    let square = ops::matmul(other.clone().swap_dims(1, 2), other.clone());
    let below = ops::matmul(factor.clone(), square);
    factor * above / (below + 1e-6)
}
