//! Activations, as mmcv's `build_activation_layer` makes them.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use serde::Deserialize;

use crate::config::default;
use crate::models::Builder;
use crate::models::init::Fill;
use crate::ops::{self, Activation};
use crate::weights::Layer;

/// `act_cfg`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub enum ActConfig {
    ReLU(InplaceConfig),
    ReLU6(InplaceConfig),
    LeakyReLU(LeakyReLUConfig),
    PReLU(PReLUConfig),
    ELU(ELUConfig),
    Sigmoid(NoKeys),
    Tanh(NoKeys),
    GELU(GELUConfig),
    #[serde(alias = "Swish")]
    SiLU(InplaceConfig),
    #[serde(alias = "Hardswish")]
    HSwish(InplaceConfig),
    HSigmoid(HSigmoidConfig),
}

impl Default for HSigmoidConfig {
    fn default() -> Self {
        Self { bias: 3.0, divisor: 6.0, min_value: 0.0, max_value: 1.0 }
    }
}

impl ActConfig {
    /// The default of transformers.
    pub fn gelu() -> Self {
        Self::GELU(GELUConfig::default())
    }
}

impl Default for ActConfig {
    fn default() -> Self {
        Self::ReLU(InplaceConfig::default())
    }
}

/// The keys of an activation that has no settings.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct InplaceConfig {
    /// Written over its input; the result is the same either way, and here it always is where
    /// nothing else reads it.
    pub inplace: bool,
}

impl Default for InplaceConfig {
    fn default() -> Self {
        Self { inplace: true }
    }
}

/// No keys at all.
#[derive(Debug, Clone, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct NoKeys {}

/// The keys of `type: LeakyReLU`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct LeakyReLUConfig {
    /// The slope where the input is negative; 0.01 unless given.
    #[serde(default = "default::ratio::<1, 100>")]
    #[serde(deserialize_with = "crate::config::finite")]
    pub negative_slope: f64,
    #[serde(default = "default::yes")]
    pub inplace: bool,
}

/// The keys of `type: PReLU`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct PReLUConfig {
    /// How many slopes are learnt: 1, or one for each channel.
    #[serde(default = "default::n::<1>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub num_parameters: usize,
    /// What they begin as; 0.25 unless given.
    #[serde(default = "default::ratio::<1, 4>")]
    #[serde(deserialize_with = "crate::config::finite")]
    pub init: f64,
}

/// The keys of `type: ELU`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ELUConfig {
    #[serde(default = "default::f::<1>")]
    #[serde(deserialize_with = "crate::config::not_negative")]
    pub alpha: f64,
    #[serde(default = "default::yes")]
    pub inplace: bool,
}

/// The keys of `type: GELU`.
#[derive(Debug, Clone, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct GELUConfig {
    pub approximate: Approximation,
}

/// How GELU is computed.
#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Approximation {
    #[default]
    None,
    Tanh,
}

/// The keys of `type: HSigmoid`: `(x + bias) / divisor`, kept from `min_value` to `max_value`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct HSigmoidConfig {
    #[serde(default = "default::f::<3>")]
    #[serde(deserialize_with = "crate::config::finite")]
    pub bias: f64,
    #[serde(default = "default::f::<6>")]
    #[serde(deserialize_with = "crate::config::above_zero")]
    pub divisor: f64,
    #[serde(default = "default::f::<0>")]
    #[serde(deserialize_with = "crate::config::finite")]
    pub min_value: f64,
    #[serde(default = "default::f::<1>")]
    #[serde(deserialize_with = "crate::config::finite")]
    pub max_value: f64,
}

impl ActConfig {
    /// The activation, and its parameters if it has any.
    pub fn init(&self, builder: &Builder) -> Act {
        let activation = match self {
            Self::ReLU(_) => Activation::ReLU,
            Self::ReLU6(_) => Activation::ReLU6,
            Self::LeakyReLU(it) => Activation::LeakyReLU { slope: it.negative_slope },
            Self::ELU(it) => Activation::ELU { alpha: it.alpha },
            Self::Sigmoid(_) => Activation::Sigmoid,
            Self::Tanh(_) => Activation::Tanh,
            Self::GELU(it) => Activation::GELU { tanh: it.approximate == Approximation::Tanh },
            Self::SiLU(_) => Activation::SiLU,
            Self::HSwish(_) => Activation::HSwish,
            Self::HSigmoid(HSigmoidConfig { bias, divisor, min_value, max_value }) => {
                Activation::HSigmoid {
                    bias: *bias,
                    divisor: *divisor,
                    min: *min_value,
                    max: *max_value,
                }
            }
            Self::PReLU(it) => {
                let weight =
                    builder.parameter([it.num_parameters], Layer::PReLU, Fill::Constant(it.init));
                return Act { weight: Some(weight), activation: Activation::None };
            }
        };
        Act { weight: None, activation }
    }

    /// The slope that initial weights before it count with.
    pub(super) fn slope(&self) -> f64 {
        if let Self::LeakyReLU(it) = self { it.negative_slope } else { 0.0 }
    }
}

/// An activation; `weight` are the slopes of a PReLU (He et al. 2015).
#[derive(Module, Debug)]
pub struct Act {
    weight: Option<Param<Tensor<1>>>,
    #[module(skip)]
    activation: Activation,
}

impl Act {
    /// Without parameters, so that what comes before may compute it.
    pub(super) fn plain(&self) -> Option<Activation> {
        self.weight.is_none().then_some(self.activation)
    }

    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match &self.weight {
            None => ops::activate(x, self.activation),
            Some(weight) => ops::prelu(x, weight.val()),
        }
    }
}
