//! Initial weights: mmengine's `init_cfg`, and what torch, mmcv and mmseg do without one.
//!
//! Which values a tensor gets is planned first, rule by rule, the last that names a layer winning; then every tensor is
//! filled once. A tensor's values depend on the seed and on its name only: neither the order of building nor the number of
//! threads nor another head changes them.

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;
use serde::Deserialize;
use tch::Kind;

use super::{LayerKind, ModelError, NamedTensor, TensorKind};
use crate::config::OneOrMany;

/// `init_cfg`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub enum InitConfig {
    Constant(ConstantConfig),
    Normal(NormalConfig),
    TruncNormal(TruncNormalConfig),
    Uniform(UniformConfig),
    Xavier(XavierConfig),
    Kaiming(KaimingConfig),
    /// Weights from a file; see [`PretrainedSource`](super::PretrainedSource).
    Pretrained(PretrainedConfig),
}

/// Every value the same.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ConstantConfig {
    pub val: f64,
    #[serde(default)]
    pub bias: f64,
    #[serde(default)]
    pub layer: OneOrMany<LayerName>,
    #[serde(default, rename = "override")]
    pub only: OneOrMany<OverrideConfig>,
}

/// A normal distribution.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct NormalConfig {
    #[serde(default)]
    pub mean: f64,
    #[serde(default = "one")]
    pub std: f64,
    #[serde(default)]
    pub bias: f64,
    #[serde(default)]
    pub layer: OneOrMany<LayerName>,
    #[serde(default, rename = "override")]
    pub only: OneOrMany<OverrideConfig>,
}

/// A normal distribution, its tails cut at `a` and `b`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct TruncNormalConfig {
    #[serde(default)]
    pub mean: f64,
    #[serde(default = "one")]
    pub std: f64,
    #[serde(default = "minus_two")]
    pub a: f64,
    #[serde(default = "two")]
    pub b: f64,
    #[serde(default)]
    pub bias: f64,
    #[serde(default)]
    pub layer: OneOrMany<LayerName>,
    #[serde(default, rename = "override")]
    pub only: OneOrMany<OverrideConfig>,
}

/// A uniform distribution from `a` to `b`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct UniformConfig {
    #[serde(default)]
    pub a: f64,
    #[serde(default = "one")]
    pub b: f64,
    #[serde(default)]
    pub bias: f64,
    #[serde(default)]
    pub layer: OneOrMany<LayerName>,
    #[serde(default, rename = "override")]
    pub only: OneOrMany<OverrideConfig>,
}

/// Glorot and Bengio 2010.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct XavierConfig {
    #[serde(default = "one")]
    pub gain: f64,
    #[serde(default)]
    pub bias: f64,
    #[serde(default)]
    pub distribution: Distribution,
    #[serde(default)]
    pub layer: OneOrMany<LayerName>,
    #[serde(default, rename = "override")]
    pub only: OneOrMany<OverrideConfig>,
}

/// He et al. 2015.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct KaimingConfig {
    /// Negative slope of the leaky ReLU that follows.
    #[serde(default)]
    pub a: f64,
    #[serde(default)]
    pub mode: FanMode,
    #[serde(default)]
    pub nonlinearity: Nonlinearity,
    #[serde(default)]
    pub bias: f64,
    #[serde(default)]
    pub distribution: Distribution,
    #[serde(default)]
    pub layer: OneOrMany<LayerName>,
    #[serde(default, rename = "override")]
    pub only: OneOrMany<OverrideConfig>,
}

/// Weights from a file.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct PretrainedConfig {
    /// A path, `open-mmlab://NAME`, `torchvision://NAME` or an `https://` address.
    pub checkpoint: String,
    /// Read only the keys below this prefix, without it.
    #[serde(default)]
    pub prefix: Option<String>,
    /// Accepted for mmengine's configs; weights always go where the model is.
    #[serde(default)]
    pub map_location: Option<String>,
}

/// A part of the model by the name of its attribute, such as `conv_seg`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct OverrideConfig {
    pub name: String,
}

/// The kinds of layers that `layer` can name.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
pub enum LayerName {
    Conv2d,
    #[serde(rename = "_BatchNorm")]
    AnyBatchNorm,
    BatchNorm2d,
    SyncBatchNorm,
    /// No module of this crate; mmseg's configs name it beside `_BatchNorm`.
    GroupNorm,
}

impl LayerName {
    fn is(self, kind: LayerKind) -> bool {
        match self {
            Self::Conv2d => kind == LayerKind::Conv2d,
            Self::AnyBatchNorm | Self::BatchNorm2d | Self::SyncBatchNorm => kind == LayerKind::BatchNorm,
            Self::GroupNorm => false,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Distribution {
    #[default]
    Normal,
    Uniform,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum FanMode {
    FanIn,
    #[default]
    FanOut,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Nonlinearity {
    #[default]
    Relu,
    LeakyRelu,
    Linear,
}

fn one() -> f64 {
    1.0
}
fn two() -> f64 {
    2.0
}
fn minus_two() -> f64 {
    -2.0
}

/// What one tensor is filled with.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fill {
    Constant(f64),
    Normal { mean: f64, std: f64 },
    TruncNormal { mean: f64, std: f64, a: f64, b: f64 },
    Uniform { a: f64, b: f64 },
}

impl Fill {
    fn spread(distribution: Distribution, std: f64) -> Self {
        match distribution {
            Distribution::Normal => Self::Normal { mean: 0.0, std },
            Distribution::Uniform => Self::Uniform { a: -(3f64.sqrt() * std), b: 3f64.sqrt() * std },
        }
    }
}

/// Inputs and outputs that a weight `[out, in, kh, kw]` joins.
fn fans(weight: &tch::Tensor) -> (f64, f64) {
    let size = weight.size();
    let window = size.iter().skip(2).product::<i64>() as f64;
    let [output, input] = [size[0], size.get(1).copied().unwrap_or(1)];
    (input as f64 * window, output as f64 * window)
}

impl InitConfig {
    /// `layer` and the names of `override`.
    fn targets(&self) -> (&[LayerName], &[OverrideConfig]) {
        match self {
            Self::Constant(ConstantConfig { layer, only, .. })
            | Self::Normal(NormalConfig { layer, only, .. })
            | Self::TruncNormal(TruncNormalConfig { layer, only, .. })
            | Self::Uniform(UniformConfig { layer, only, .. })
            | Self::Xavier(XavierConfig { layer, only, .. })
            | Self::Kaiming(KaimingConfig { layer, only, .. }) => (layer, only),
            Self::Pretrained(_) => (&[], &[]),
        }
    }

    fn fill(&self, tensor: &NamedTensor) -> Fill {
        let is_bias = tensor.name.ends_with("bias");
        let (fan_in, fan_out) = fans(&tensor.tensor);
        let (weight, bias) = match self {
            Self::Constant(it) => (Fill::Constant(it.val), it.bias),
            Self::Normal(it) => (Fill::Normal { mean: it.mean, std: it.std }, it.bias),
            Self::TruncNormal(it) => (Fill::TruncNormal { mean: it.mean, std: it.std, a: it.a, b: it.b }, it.bias),
            Self::Uniform(it) => (Fill::Uniform { a: it.a, b: it.b }, it.bias),
            Self::Xavier(it) => {
                let std = it.gain * (2.0 / (fan_in + fan_out)).sqrt();
                (Fill::spread(it.distribution, std), it.bias)
            }
            Self::Kaiming(it) => {
                let fan = if it.mode == FanMode::FanIn { fan_in } else { fan_out };
                let gain = match it.nonlinearity {
                    Nonlinearity::Relu => 2f64.sqrt(),
                    Nonlinearity::LeakyRelu => (2.0 / (1.0 + it.a * it.a)).sqrt(),
                    Nonlinearity::Linear => 1.0,
                };
                (Fill::spread(it.distribution, gain / fan.sqrt()), it.bias)
            }
            Self::Pretrained(_) => unreachable!("pretrained weights are read, not drawn"),
        };
        if is_bias { Fill::Constant(bias) } else { weight }
    }
}

/// The default of a convolution inside a `ConvModule`, and of all in a ResNet.
pub(crate) fn kaiming() -> InitConfig {
    InitConfig::Kaiming(KaimingConfig {
        a: 0.0,
        mode: FanMode::FanOut,
        nonlinearity: Nonlinearity::Relu,
        bias: 0.0,
        distribution: Distribution::Normal,
        layer: OneOrMany(vec![LayerName::Conv2d]),
        only: OneOrMany::default(),
    })
}

/// The default of a head: its classifier normal with a deviation of 0.01.
pub(crate) fn classifier() -> InitConfig {
    InitConfig::Normal(NormalConfig {
        mean: 0.0,
        std: 0.01,
        bias: 0.0,
        layer: OneOrMany::default(),
        only: OneOrMany(vec![OverrideConfig { name: "conv_seg".to_owned() }]),
    })
}

/// What the tensors of a model will be filled with.
pub(crate) struct Plan<'a> {
    tensors: &'a [NamedTensor],
    fills: Vec<Option<Fill>>,
}

impl<'a> Plan<'a> {
    /// torch's defaults: convolutions uniform within 1/√fan-in; norms are built with their ones and zeros.
    pub(crate) fn new(tensors: &'a [NamedTensor]) -> Self {
        let mut bound = 0.0;
        let fills = tensors.iter().map(|it| {
            if it.layer != LayerKind::Conv2d || it.kind != TensorKind::Parameter {
                return None;
            }
            // A bias follows its weight, and shares its bound.
            if !it.name.ends_with("bias") {
                bound = 1.0 / fans(&it.tensor).0.sqrt();
            }
            Some(Fill::Uniform { a: -bound, b: bound })
        });
        Self { tensors, fills: fills.collect() }
    }

    /// Applies one rule to the tensors below `prefix` whose layer's name passes `filter`.
    pub(crate) fn apply(&mut self, rule: &InitConfig, prefix: &str, filter: impl Fn(&str) -> bool) {
        let (layers, only) = rule.targets();
        for (tensor, fill) in self.tensors.iter().zip(&mut self.fills) {
            let Some(inner) = tensor.name.strip_prefix(prefix) else { continue };
            let owner = inner.rsplit_once('.').map_or("", |(owner, _)| owner);
            let chosen = layers.iter().any(|it| it.is(tensor.layer)) || only.iter().any(|it| owner == it.name);
            if chosen && tensor.kind == TensorKind::Parameter && filter(owner) {
                *fill = Some(rule.fill(tensor));
            }
        }
    }

    /// Sets the weights and biases of layers whose name below `prefix` ends with `suffix` to zero.
    pub(crate) fn zero(&mut self, prefix: &str, suffix: &str) {
        for (tensor, fill) in self.tensors.iter().zip(&mut self.fills) {
            let owner = tensor.name.strip_prefix(prefix).and_then(|it| it.rsplit_once('.')).map_or("", |(owner, _)| owner);
            if owner.ends_with(suffix) && tensor.kind == TensorKind::Parameter {
                *fill = Some(Fill::Constant(0.0));
            }
        }
    }

    /// Checks that every rule in `rules` reaches a tensor below `prefix`; the error names `init_cfg`.
    pub(crate) fn check(&self, rules: &[InitConfig], prefix: &str) -> Result<(), ModelError> {
        for rule in rules {
            for named in rule.targets().1 {
                let start = format!("{prefix}{}.", named.name);
                if !self.tensors.iter().any(|it| it.name.starts_with(&start)) {
                    let problem = format!("override names `{}`, which this part of the model does not have", named.name);
                    return Err(ModelError::config("init_cfg", problem));
                }
            }
        }
        Ok(())
    }

    /// Fills every planned tensor.
    pub(crate) fn execute(self, seed: u64) {
        for (tensor, fill) in self.tensors.iter().zip(self.fills) {
            if let Some(fill) = fill {
                write(tensor, fill, seed);
            }
        }
    }
}

fn write(tensor: &NamedTensor, fill: Fill, seed: u64) {
    let mut target = tensor.tensor.shallow_clone();
    if let Fill::Constant(value) = fill {
        let _ = target.fill_(value);
        return;
    }
    let mut random = Pcg64::seed_from_u64(seed ^ fingerprint(&tensor.name));
    let count = target.numel();
    let values: Vec<f32> = match fill {
        Fill::Constant(value) => vec![value as f32; count],
        Fill::Uniform { a, b } => (0..count).map(|_| (a + (b - a) * random.random::<f64>()) as f32).collect(),
        Fill::Normal { mean, std } => all_normals(&random, count, |it| (mean + std * it) as f32),
        Fill::TruncNormal { mean, std, a, b } => normals(&mut random)
            .map(|it| mean + std * it)
            .filter(|it| (a..=b).contains(it))
            .take(count)
            .map(|it| it as f32)
            .collect(),
    };
    target.copy_(&tch::Tensor::from_slice(&values).view_as(&target).to_kind(Kind::Float));
}

/// `count` of [`normals`], each changed by `scale`: on all of libtorch's threads, the same numbers for any number of them.
fn all_normals(random: &Pcg64, count: usize, scale: impl Fn(f64) -> f32 + Sync) -> Vec<f32> {
    /// Fewer are not worth a thread.
    const WORTH: usize = 1 << 15;
    let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1).clamp(1, count.div_ceil(WORTH).max(1));
    let part = count.div_ceil(threads).next_multiple_of(2).max(2);
    let mut values = vec![0.0; count];
    std::thread::scope(|scope| {
        for (index, values) in values.chunks_mut(part).enumerate() {
            let mut random = random.clone();
            let scale = &scale;
            let mut fill = move || {
                // A normal takes one number of the generator: two take two.
                random.advance((index * part) as u128);
                values.iter_mut().zip(normals(&mut random)).for_each(|(to, it)| *to = scale(it));
            };
            if threads == 1 {
                fill();
            } else {
                scope.spawn(fill);
            }
        }
    });
    values
}

/// Standard normals, two from each pair of uniforms (Box and Muller 1958).
fn normals(random: &mut Pcg64) -> impl Iterator<Item = f64> + '_ {
    std::iter::repeat_with(move || {
        let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * random.random::<f64>()).sin_cos();
        [radius * cos, radius * sin]
    })
    .flatten()
}

/// 64-bit FNV-1a.
fn fingerprint(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_draw_what_one_would() {
        for count in [0, 1, 7, (1 << 17) + 3] {
            let random = Pcg64::seed_from_u64(5);
            let expected: Vec<f32> = normals(&mut random.clone()).take(count).map(|it| it as f32).collect();
            assert!(all_normals(&random, count, |it| it as f32) == expected, "{count}");
        }
    }
}
