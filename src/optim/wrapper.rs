//! The `optim_wrapper` section.

use serde::{Deserialize, Deserializer};

use crate::exit::{Exit, Exits};

use super::adamw::AdamConfig;
use super::amp::{Amp, AmpDtype, LossScale};
use super::clip::ClipGradConfig;
use super::layer_decay::LayerDecay;
use super::param_groups::{ParamwiseConfig, multiplies_decay};
use super::sgd::SgdConfig;

/// An `optim_wrapper` whose parts contradict each other.
#[derive(Debug, thiserror::Error)]
#[error("optim_wrapper.{0}")]
pub struct OptimError(pub String);

impl Exits for OptimError {
    fn exit(&self) -> Exit {
        Exit::Config
    }
}

/// `optim_wrapper`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub enum OptimWrapperConfig {
    OptimWrapper(WrapperConfig),
    AmpOptimWrapper(AmpWrapperConfig),
}

/// `{type: OptimWrapper}`: full precision.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct WrapperConfig {
    optimizer: OptimizerConfig,
    #[serde(default, deserialize_with = "or_default")]
    paramwise_cfg: ParamwiseConfig,
    #[serde(default)]
    clip_grad: Option<ClipGradConfig>,
    #[serde(default = "crate::config::default::n::<1>")]
    #[serde(deserialize_with = "crate::config::positive")]
    accumulative_counts: usize,
    #[serde(default)]
    constructor: Option<Constructor>,
}

/// `{type: AmpOptimWrapper}`: mixed precision.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct AmpWrapperConfig {
    optimizer: OptimizerConfig,
    #[serde(default, deserialize_with = "or_default")]
    paramwise_cfg: ParamwiseConfig,
    #[serde(default)]
    clip_grad: Option<ClipGradConfig>,
    #[serde(default = "crate::config::default::n::<1>")]
    #[serde(deserialize_with = "crate::config::positive")]
    accumulative_counts: usize,
    #[serde(default)]
    constructor: Option<Constructor>,
    #[serde(default)]
    loss_scale: LossScale,
    #[serde(default)]
    dtype: Option<AmpDtype>,
}

/// `constructor`: how parameter groups are made.
#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq, Eq)]
enum Constructor {
    /// By the rules of `paramwise_cfg`.
    #[default]
    DefaultOptimWrapperConstructor,
    /// Rates decay with the distance from the head.
    LearningRateDecayOptimizerConstructor,
}

/// `optimizer`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[expect(clippy::upper_case_acronyms, reason = "torch's name")]
pub enum OptimizerConfig {
    SGD(SgdConfig),
    Adam(AdamConfig),
    AdamW(AdamConfig),
}

/// `paramwise_cfg: null` is no rules, as in mmengine.
fn or_default<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ParamwiseConfig, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl OptimWrapperConfig {
    pub fn optimizer(&self) -> &OptimizerConfig {
        match self {
            Self::OptimWrapper(it) => &it.optimizer,
            Self::AmpOptimWrapper(it) => &it.optimizer,
        }
    }

    pub fn paramwise_cfg(&self) -> &ParamwiseConfig {
        match self {
            Self::OptimWrapper(it) => &it.paramwise_cfg,
            Self::AmpOptimWrapper(it) => &it.paramwise_cfg,
        }
    }

    fn constructor(&self) -> Constructor {
        match self {
            Self::OptimWrapper(it) => it.constructor.unwrap_or_default(),
            Self::AmpOptimWrapper(it) => it.constructor.unwrap_or_default(),
        }
    }

    /// How rates decay from layer to layer, if they do.
    pub(super) fn layer_decay(&self) -> Result<Option<LayerDecay>, OptimError> {
        let fail = |text: &str| Err(OptimError(text.to_owned()));
        let rules = self.paramwise_cfg();
        let ParamwiseConfig { num_layers, decay_rate, decay_type, .. } = rules.clone();
        if self.constructor() == Constructor::DefaultOptimWrapperConstructor {
            let given = [
                ("num_layers", num_layers.is_some()),
                ("decay_rate", decay_rate.is_some()),
                ("decay_type", decay_type.is_some()),
            ];
            return match given.into_iter().find(|it| it.1) {
                None => Ok(None),
                Some((key, _)) => fail(&format!(
                    "paramwise_cfg.{key} is for rates that decay from layer to layer; write \
                     constructor: LearningRateDecayOptimizerConstructor"
                )),
            };
        }
        let (Some(num_layers), Some(decay_rate)) = (num_layers, decay_rate) else {
            return fail(
                "constructor: rates that decay from layer to layer need num_layers and decay_rate \
                 in paramwise_cfg",
            );
        };
        let others = ParamwiseConfig {
            num_layers: None,
            decay_rate: None,
            decay_type: None,
            ..rules.clone()
        };
        if others != ParamwiseConfig::default() {
            return fail(
                "paramwise_cfg has rules beside num_layers, decay_rate and decay_type, which this \
                 constructor does not look at",
            );
        }
        let decay_type = decay_type.unwrap_or_default();
        Ok(Some(LayerDecay { num_layers, decay_rate, decay_type }))
    }

    /// Whether rates decay from layer to layer: a backbone has to have layers in an order.
    pub fn decays_by_layer(&self) -> bool {
        self.constructor() != Constructor::DefaultOptimWrapperConstructor
    }

    pub fn clip_grad(&self) -> Option<&ClipGradConfig> {
        match self {
            Self::OptimWrapper(it) => it.clip_grad.as_ref(),
            Self::AmpOptimWrapper(it) => it.clip_grad.as_ref(),
        }
    }

    pub fn accumulative_counts(&self) -> usize {
        match self {
            Self::OptimWrapper(it) => it.accumulative_counts,
            Self::AmpOptimWrapper(it) => it.accumulative_counts,
        }
    }

    /// Mixed precision's settings; None in full precision.
    pub fn amp(&self) -> Option<Amp> {
        match self {
            Self::OptimWrapper(_) => None,
            Self::AmpOptimWrapper(it) => {
                Some(Amp { dtype: it.dtype, loss_scale: it.loss_scale.clone() })
            }
        }
    }

    /// The same with mixed precision, as `--amp` asks: a dynamic loss scale where the config does
    /// not say otherwise.
    #[must_use]
    pub fn with_amp(self) -> Self {
        match self {
            Self::OptimWrapper(WrapperConfig {
                optimizer,
                paramwise_cfg,
                clip_grad,
                accumulative_counts,
                constructor,
            }) => {
                let (loss_scale, dtype) = (LossScale::Dynamic, None);
                let wrapper = AmpWrapperConfig {
                    optimizer,
                    paramwise_cfg,
                    clip_grad,
                    accumulative_counts,
                    constructor,
                    loss_scale,
                    dtype,
                };
                Self::AmpOptimWrapper(wrapper)
            }
            amp @ Self::AmpOptimWrapper(_) => amp,
        }
    }

    /// The same where there is no GPU: float16 is bfloat16, which takes as much memory.
    #[must_use]
    pub fn for_cpu(mut self) -> Self {
        if let Self::AmpOptimWrapper(it) = &mut self {
            it.dtype = it.dtype.map(|_| AmpDtype::Bfloat16);
        }
        self
    }

    /// Checks what no single key can: settings that contradict each other.
    pub fn validate(&self) -> Result<(), OptimError> {
        let fail = |text: String| Err(OptimError(text));
        let optimizer = self.optimizer();
        self.layer_decay()?;
        if self.accumulative_counts() == 0 {
            return fail("accumulative_counts is 0, expected 1 or more".to_owned());
        }
        if let Some(clip) = self.clip_grad() {
            clip.resolve().map_err(|text| OptimError(text.to_owned()))?;
        }
        if optimizer.weight_decay().is_none()
            && let Some(rule) = multiplies_decay(self.paramwise_cfg())
        {
            return fail(format!(
                "paramwise_cfg.{rule} multiplies the optimizer's weight_decay, which is not \
                 written; write it"
            ));
        }
        match optimizer {
            OptimizerConfig::SGD(sgd)
                if sgd.nesterov && (sgd.momentum <= 0.0 || sgd.dampening != 0.0) =>
            {
                fail("optimizer.nesterov needs a momentum above 0 and no dampening".to_owned())
            }
            OptimizerConfig::Adam(it) | OptimizerConfig::AdamW(it)
                if it.betas.iter().any(|beta| !(0.0..1.0).contains(beta)) =>
            {
                fail(format!(
                    "optimizer.betas are {:?}, expected two numbers from 0 up to, not including, 1",
                    it.betas
                ))
            }
            _ if optimizer.lr().is_nan() || optimizer.lr() < 0.0 => {
                fail(format!("optimizer.lr is {}, expected 0 or more", optimizer.lr()))
            }
            _ => Ok(()),
        }
    }
}

impl OptimizerConfig {
    pub fn lr(&self) -> f64 {
        match self {
            Self::SGD(it) => it.lr,
            Self::Adam(it) | Self::AdamW(it) => it.lr,
        }
    }

    pub(super) fn weight_decay(&self) -> Option<f64> {
        match self {
            Self::SGD(it) => it.weight_decay,
            Self::Adam(it) | Self::AdamW(it) => it.weight_decay,
        }
    }

    pub(super) fn default_weight_decay(&self) -> f64 {
        if matches!(self, Self::AdamW(_)) { 0.01 } else { 0.0 }
    }
}
