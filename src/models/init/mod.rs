//! Initial weights: mmengine's `init_cfg`, and what torch, mmcv and mmseg do without one.

mod fill;
mod plan;

use serde::Deserialize;

pub use fill::Fill;
use fill::fans;
pub(crate) use plan::InitPlan;

use crate::config::{Both, OneOrMany, default};
use crate::weights::{Layer, Weight};

/// `init_cfg`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub enum InitConfig {
    Constant(Both<TargetConfig, ConstantConfig>),
    Normal(Both<TargetConfig, NormalConfig>),
    TruncNormal(Both<TargetConfig, TruncNormalConfig>),
    Uniform(Both<TargetConfig, UniformConfig>),
    Xavier(Both<TargetConfig, XavierConfig>),
    Kaiming(Both<TargetConfig, KaimingConfig>),
    /// Weights from a file; see [`PretrainedSource`](super::PretrainedSource).
    Pretrained(PretrainedConfig),
}

/// What a rule is about, and what it makes of biases.
#[derive(Debug, Clone, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct TargetConfig {
    pub bias: f64,
    pub layer: OneOrMany<LayerName>,
    #[serde(rename = "override")]
    pub only: OneOrMany<OverrideConfig>,
}

/// Every value the same.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ConstantConfig {
    pub val: f64,
}

/// A normal distribution.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct NormalConfig {
    #[serde(default)]
    pub mean: f64,
    #[serde(default = "default::f::<1>")]
    pub std: f64,
}

/// A normal distribution, its tails cut at `a` and `b`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct TruncNormalConfig {
    #[serde(default)]
    pub mean: f64,
    #[serde(default = "default::f::<1>")]
    pub std: f64,
    #[serde(default = "default::f::<-2>")]
    pub a: f64,
    #[serde(default = "default::f::<2>")]
    pub b: f64,
}

/// A uniform distribution from `a` to `b`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct UniformConfig {
    #[serde(default)]
    pub a: f64,
    #[serde(default = "default::f::<1>")]
    pub b: f64,
}

/// Glorot and Bengio 2010.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct XavierConfig {
    #[serde(default = "default::f::<1>")]
    pub gain: f64,
    #[serde(default)]
    pub distribution: Distribution,
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
    /// Outputs are counted by group: what transformers draw, and no config can ask for.
    #[serde(skip)]
    pub by_group: bool,
    #[serde(default)]
    pub distribution: Distribution,
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

/// The kinds of layers that `layer` can name, by torch's classes and their bases.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
pub enum LayerName {
    Conv1d,
    Conv2d,
    ConvTranspose2d,
    #[serde(rename = "_ConvNd")]
    AnyConv,
    Linear,
    Embedding,
    #[serde(rename = "_BatchNorm")]
    AnyBatchNorm,
    BatchNorm1d,
    BatchNorm2d,
    SyncBatchNorm,
    #[serde(rename = "_InstanceNorm")]
    AnyInstanceNorm,
    InstanceNorm2d,
    GroupNorm,
    LayerNorm,
    PReLU,
}

impl LayerName {
    fn is(self, layer: Layer) -> bool {
        match self {
            Self::Conv1d => layer == Layer::Conv1d,
            Self::Conv2d => layer == Layer::Conv2d,
            Self::ConvTranspose2d => layer == Layer::ConvTranspose2d,
            Self::AnyConv => matches!(layer, Layer::Conv1d | Layer::Conv2d),
            Self::Linear => layer == Layer::Linear,
            Self::Embedding => layer == Layer::Embedding,
            Self::AnyBatchNorm | Self::BatchNorm1d | Self::BatchNorm2d | Self::SyncBatchNorm => {
                layer == Layer::BatchNorm
            }
            Self::AnyInstanceNorm | Self::InstanceNorm2d => layer == Layer::InstanceNorm,
            Self::GroupNorm => layer == Layer::GroupNorm,
            Self::LayerNorm => layer == Layer::LayerNorm,
            Self::PReLU => layer == Layer::PReLU,
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

impl InitConfig {
    /// What the rule is about.
    fn target(&self) -> Option<&TargetConfig> {
        match self {
            Self::Constant(it) => Some(&it.shared),
            Self::Normal(it) => Some(&it.shared),
            Self::TruncNormal(it) => Some(&it.shared),
            Self::Uniform(it) => Some(&it.shared),
            Self::Xavier(it) => Some(&it.shared),
            Self::Kaiming(it) => Some(&it.shared),
            Self::Pretrained(_) => None,
        }
    }

    /// What a tensor that the rule is about gets; nothing where weights are read, not drawn.
    fn fill(&self, tensor: &Weight) -> Option<Fill> {
        if tensor.leaf_name() == "bias" {
            return self.target().map(|it| Fill::Constant(it.bias));
        }
        let (fan_in, fan_out) = fans(&tensor.tensor);
        Some(match self {
            Self::Constant(it) => Fill::Constant(it.val),
            Self::Normal(it) => Fill::Normal { mean: it.mean, std: it.std },
            Self::TruncNormal(it) => {
                Fill::TruncNormal { mean: it.mean, std: it.std, a: it.a, b: it.b }
            }
            Self::Uniform(it) => Fill::Uniform { a: it.a, b: it.b },
            Self::Xavier(it) => {
                Fill::spread(it.distribution, it.gain * (2.0 / (fan_in + fan_out)).sqrt())
            }
            Self::Kaiming(it) => {
                let groups = tensor.tensor.shape()[0] as f64;
                let fan = match it.mode {
                    FanMode::FanIn => fan_in,
                    FanMode::FanOut if it.by_group && tensor.depthwise => fan_out / groups,
                    FanMode::FanOut => fan_out,
                };
                let gain = match it.nonlinearity {
                    Nonlinearity::Relu => 2f64.sqrt(),
                    Nonlinearity::LeakyRelu => (2.0 / (1.0 + it.a * it.a)).sqrt(),
                    Nonlinearity::Linear => 1.0,
                };
                Fill::spread(it.distribution, gain / fan.sqrt())
            }
            Self::Pretrained(_) => return None,
        })
    }

    /// He et al. 2015 for every convolution, as in a ResNet.
    pub fn kaiming() -> Self {
        Self::kaiming_of(false)
    }

    /// He et al. 2015 for every convolution and linear layer; PReLUs begin as ReLUs.
    pub fn kaiming_and_no_slopes() -> Vec<Self> {
        let mut kaiming = Self::kaiming();
        if let Self::Kaiming(it) = &mut kaiming {
            it.shared.layer.0.push(LayerName::Linear);
        }
        let layer = OneOrMany(vec![LayerName::PReLU]);
        let shared = TargetConfig { layer, ..TargetConfig::default() };
        vec![kaiming, Self::Constant(Both { shared, own: ConstantConfig { val: 0.0 } })]
    }

    fn kaiming_of(by_group: bool) -> Self {
        let shared =
            TargetConfig { layer: OneOrMany(vec![LayerName::Conv2d]), ..TargetConfig::default() };
        let own = KaimingConfig {
            a: 0.0,
            mode: FanMode::FanOut,
            nonlinearity: Nonlinearity::Relu,
            distribution: Distribution::Normal,
            by_group,
        };
        Self::Kaiming(Both { shared, own })
    }

    /// A truncated normal with a deviation of 0.02 for every linear layer.
    pub fn linear() -> Self {
        let shared =
            TargetConfig { layer: OneOrMany(vec![LayerName::Linear]), ..TargetConfig::default() };
        let own = TruncNormalConfig { mean: 0.0, std: 0.02, a: -2.0, b: 2.0 };
        Self::TruncNormal(Both { shared, own })
    }

    /// The same for every convolution and linear layer.
    pub fn narrow() -> Self {
        let layer = OneOrMany(vec![LayerName::Conv2d, LayerName::Linear]);
        let shared = TargetConfig { layer, ..TargetConfig::default() };
        let own = TruncNormalConfig { mean: 0.0, std: 0.02, a: -2.0, b: 2.0 };
        Self::TruncNormal(Both { shared, own })
    }

    /// What mmseg's transformers with convolutions begin as.
    pub fn transformer() -> Vec<Self> {
        vec![Self::linear(), Self::kaiming_of(true)]
    }

    /// Glorot and Bengio 2010 for every convolution, uniform.
    pub fn xavier_uniform() -> Self {
        let shared =
            TargetConfig { layer: OneOrMany(vec![LayerName::Conv2d]), ..TargetConfig::default() };
        Self::Xavier(Both {
            shared,
            own: XavierConfig { gain: 1.0, distribution: Distribution::Uniform },
        })
    }

    /// The default of a head: the layer `name` normal with a deviation of 0.01.
    pub fn classifier(name: &str) -> Self {
        let only = OneOrMany(vec![OverrideConfig { name: name.to_owned() }]);
        let shared = TargetConfig { only, ..TargetConfig::default() };
        Self::Normal(Both { shared, own: NormalConfig { mean: 0.0, std: 0.01 } })
    }
}
