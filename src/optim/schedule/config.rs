//! The entries of `param_scheduler`, as mmengine 0.10 has them. Its `PolyLR` is a
//! `PolyParamScheduler` whose `param_name` is `lr`; both names are one here, since the learning
//! rate is what is scheduled.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::curve::{Curve, Floor, OneCycle};
use super::plateau::{Plateau, PlateauConfig};

/// One entry of `param_scheduler`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub enum ParamSchedulerConfig {
    /// From the rate down to `eta_min`, along `(1 - t) ^ power`.
    #[serde(alias = "PolyParamScheduler")]
    PolyLR(PolyConfig),
    /// From `start_factor` times the rate to `end_factor` times it, in even steps.
    #[serde(alias = "LinearParamScheduler")]
    LinearLR(LinearConfig),
    /// Times `gamma` at every milestone.
    #[serde(alias = "MultiStepParamScheduler")]
    MultiStepLR(MultiStepConfig),
    /// Times `gamma` after every `step_size` steps.
    #[serde(alias = "StepParamScheduler")]
    StepLR(StepConfig),
    /// Times `factor` from `begin` to `end`, then back.
    #[serde(alias = "ConstantParamScheduler")]
    ConstantLR(ConstantConfig),
    /// Times `gamma` at every step.
    #[serde(alias = "ExponentialParamScheduler")]
    ExponentialLR(ExponentialConfig),
    /// From the rate down to `eta_min` along half a cosine of `T_max` steps.
    #[serde(alias = "CosineAnnealingParamScheduler")]
    CosineAnnealingLR(CosineConfig),
    /// Half a cosine in each of `periods`, each from `restart_weights` times the rate.
    #[serde(alias = "CosineRestartParamScheduler")]
    CosineRestartLR(RestartConfig),
    /// Up to `eta_max` and down to next to nothing, whatever the optimizer's rate is ("1cycle",
    /// Smith and Topin 2017).
    #[serde(alias = "OneCycleParamScheduler")]
    OneCycleLR(OneCycleConfig),
    /// Times `factor` where a metric of the validations has stopped to improve.
    #[serde(alias = "ReduceOnPlateauParamScheduler")]
    ReduceOnPlateauLR(PlateauConfig),
}

/// What is scheduled.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ParamName {
    Lr,
}

/// `begin`, `end`, `by_epoch` and `convert_to_iter_based`, which every scheduler has: steps in
/// `[begin, end)` change the rate. `end` is by default the training's.
macro_rules! scheduler {
    ($(#[$doc:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, serde::Deserialize, PartialEq)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$attribute])* pub $field: $kind,)*
            /// Of a `…ParamScheduler`.
            #[serde(default)]
            pub param_name: Option<$crate::optim::schedule::config::ParamName>,
            #[serde(default)]
            pub begin: u64,
            #[serde(default)]
            pub end: Option<u64>,
            #[serde(default = "super::config::yes")]
            pub by_epoch: bool,
            #[serde(default)]
            pub convert_to_iter_based: bool,
            /// Without effect: the rates stand in every log line.
            #[serde(default)]
            pub verbose: bool,
        }

        impl $name {
            pub(super) fn span(&self) -> $crate::optim::schedule::config::Span {
                $crate::optim::schedule::config::Span {
                    begin: self.begin, end: self.end, by_epoch: self.by_epoch, convert: self.convert_to_iter_based
                }
            }
        }
    };
}
pub(super) use scheduler;

scheduler! {
    /// The keys of `PolyLR`.
    PolyConfig {
        #[serde(default)]
        #[serde(deserialize_with = "crate::config::not_negative")]
        eta_min: f64,
        #[serde(default = "crate::config::default::f::<1>")]
        #[serde(deserialize_with = "crate::config::not_negative")]
        power: f64,
    }
}

scheduler! {
    /// The keys of `LinearLR`.
    LinearConfig {
        #[serde(default = "crate::config::default::ratio::<1, 3>")]
        #[serde(deserialize_with = "crate::config::not_negative")]
        start_factor: f64,
        #[serde(default = "crate::config::default::f::<1>")]
        #[serde(deserialize_with = "crate::config::not_negative")]
        end_factor: f64,
    }
}

scheduler! {
    /// The keys of `MultiStepLR`.
    MultiStepConfig {
        #[serde(deserialize_with = "crate::config::positive")]
        milestones: Vec<u64>,
        #[serde(default = "tenth")]
        #[serde(deserialize_with = "crate::config::not_negative")]
        gamma: f64,
    }
}

scheduler! {
    /// The keys of `StepLR`.
    StepConfig {
        #[serde(deserialize_with = "crate::config::positive")]
        step_size: u64,
        #[serde(default = "tenth")]
        #[serde(deserialize_with = "crate::config::not_negative")]
        gamma: f64,
    }
}

scheduler! {
    /// The keys of `ConstantLR`.
    ConstantConfig {
        #[serde(default = "crate::config::default::ratio::<1, 3>")]
        #[serde(deserialize_with = "crate::config::not_negative")]
        factor: f64,
    }
}

scheduler! {
    /// The keys of `ExponentialLR`.
    ExponentialConfig {
        #[serde(deserialize_with = "crate::config::not_negative")]
        gamma: f64,
    }
}

scheduler! {
    /// The keys of `CosineAnnealingLR`; `eta_min` or `eta_min_ratio` (of the rate), not both.
    CosineConfig {
        #[serde(default, rename = "T_max")]
        #[serde(deserialize_with = "crate::config::positive")]
        t_max: Option<u64>,
        #[serde(default)]
        #[serde(deserialize_with = "crate::config::not_negative")]
        eta_min: Option<f64>,
        #[serde(default)]
        #[serde(deserialize_with = "crate::config::not_negative")]
        eta_min_ratio: Option<f64>,
    }
}

scheduler! {
    /// The keys of `CosineRestartLR`; `eta_min` or `eta_min_ratio` (of the rate).
    RestartConfig {
        #[serde(deserialize_with = "crate::config::positive")]
        periods: Vec<u64>,
        #[serde(default = "ones")]
        #[serde(deserialize_with = "crate::config::not_negative")]
        restart_weights: Vec<f64>,
        #[serde(default)]
        #[serde(deserialize_with = "crate::config::not_negative")]
        eta_min: Option<f64>,
        #[serde(default)]
        #[serde(deserialize_with = "crate::config::not_negative")]
        eta_min_ratio: Option<f64>,
    }
}

scheduler! {
    /// The keys of `OneCycleLR`.
    OneCycleConfig {
        #[serde(deserialize_with = "crate::config::above_zero")]
        eta_max: f64,
        #[serde(default)]
        #[serde(deserialize_with = "crate::config::positive")]
        total_steps: Option<u64>,
        #[serde(default = "crate::config::default::ratio::<3, 10>")]
        #[serde(deserialize_with = "crate::config::share")]
        pct_start: f64,
        #[serde(default)]
        anneal_strategy: AnnealStrategy,
        #[serde(default = "crate::config::default::f::<25>")]
        #[serde(deserialize_with = "crate::config::above_zero")]
        div_factor: f64,
        #[serde(default = "crate::config::default::f::<10000>")]
        #[serde(deserialize_with = "crate::config::above_zero")]
        final_div_factor: f64,
        #[serde(default)]
        three_phase: bool,
    }
}

/// The way between two rates.
#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum AnnealStrategy {
    #[default]
    Cos,
    Linear,
}

/// The steps in which a scheduler acts, as written.
pub(super) struct Span {
    pub(super) begin: u64,
    pub(super) end: Option<u64>,
    pub(super) by_epoch: bool,
    pub(super) convert: bool,
}

pub(super) fn yes() -> bool {
    true
}

pub(super) fn tenth() -> f64 {
    0.1
}

fn ones() -> Vec<f64> {
    vec![1.0]
}

impl ParamSchedulerConfig {
    pub(super) fn span(&self) -> Span {
        match self {
            Self::PolyLR(it) => it.span(),
            Self::LinearLR(it) => it.span(),
            Self::MultiStepLR(it) => it.span(),
            Self::StepLR(it) => it.span(),
            Self::ConstantLR(it) => it.span(),
            Self::ExponentialLR(it) => it.span(),
            Self::CosineAnnealingLR(it) => it.span(),
            Self::CosineRestartLR(it) => it.span(),
            Self::OneCycleLR(it) => it.span(),
            Self::ReduceOnPlateauLR(it) => it.span(),
        }
    }

    /// The metric that decides about the rate, where one does.
    pub fn monitor(&self) -> Option<&str> {
        match self {
            Self::ReduceOnPlateauLR(it) => Some(&it.monitor),
            _ => None,
        }
    }

    /// The curve over `length` steps, each `unit` of which were one in the config.
    pub(super) fn curve(&self, length: u64, unit: u64) -> Result<Curve, String> {
        let factor = |name: &str, value: f64| match value {
            value if (0.0..=1.0).contains(&value) => Ok(value),
            value => Err(format!("`{name}` is {value}, expected a number from 0 to 1")),
        };
        let total = (length - 1) as f64;
        Ok(match self {
            Self::PolyLR(it) => Curve::Poly { eta_min: it.eta_min, power: it.power, total },
            Self::LinearLR(it) => {
                let (start, end) = (
                    factor("start_factor", it.start_factor)?,
                    factor("end_factor", it.end_factor)?,
                );
                if start == 0.0 && length > 1 {
                    // The recursion multiplies the rate that is there, and nothing leads away from
                    // 0.
                    return Err(
                        "`start_factor` is 0, expected more: the rate would stay 0 for good"
                            .to_owned(),
                    );
                }
                Curve::Linear { start, end, total }
            }
            Self::MultiStepLR(it) => {
                let mut milestones = BTreeMap::new();
                for milestone in &it.milestones {
                    *milestones.entry(milestone * unit).or_default() += 1;
                }
                Curve::MultiStep { milestones, gamma: it.gamma }
            }
            Self::StepLR(it) if it.step_size == 0 => {
                return Err("`step_size` is 0, expected 1 or more".to_owned());
            }
            Self::StepLR(it) => Curve::Step { size: it.step_size * unit, gamma: it.gamma },
            Self::ConstantLR(it) if it.factor == 0.0 => {
                return Err(
                    "`factor` is 0, expected more: the rate could not come back from 0".to_owned()
                );
            }
            Self::ConstantLR(it) => {
                Curve::Constant { factor: factor("factor", it.factor)?, total: length - 1 }
            }
            Self::ExponentialLR(it) => Curve::Exponential { gamma: it.gamma },
            Self::CosineAnnealingLR(it) => {
                let floor = match (it.eta_min, it.eta_min_ratio) {
                    (Some(_), Some(_)) => {
                        return Err("`eta_min` and `eta_min_ratio` are both written, expected one"
                            .to_owned());
                    }
                    (rate, None) => Floor::Rate(rate.unwrap_or(0.0)),
                    (None, Some(ratio)) => Floor::Ratio(ratio),
                };
                // mmengine takes 0 for "not written", too.
                Curve::Cosine {
                    t_max: it.t_max.filter(|&it| it > 0).map_or(length, |it| it * unit),
                    floor,
                }
            }
            Self::CosineRestartLR(it) => {
                let floor = match (it.eta_min, it.eta_min_ratio) {
                    (Some(rate), None) => Floor::Rate(rate),
                    (None, Some(ratio)) => Floor::Ratio(ratio),
                    _ => return Err("expected one of `eta_min` and `eta_min_ratio`".to_owned()),
                };
                let (periods, weights) = (it.periods.len(), it.restart_weights.len());
                if periods != weights {
                    return Err(format!(
                        "`periods` has {periods} entries and `restart_weights` {weights}, expected \
                         as many"
                    ));
                }
                let periods = it
                    .periods
                    .iter()
                    .map(|it| it * unit)
                    .zip(it.restart_weights.iter().copied())
                    .collect();
                Curve::Restart { periods, floor }
            }
            Self::OneCycleLR(it) => {
                let total = it.total_steps.map_or(length, |it| it * unit);
                if total + 1 < length {
                    return Err(format!(
                        "`total_steps` is {total}, expected {} or more: so many steps are \
                         scheduled",
                        length - 1
                    ));
                }
                Curve::OneCycle(OneCycle::new(it, total))
            }
            Self::ReduceOnPlateauLR(it) => {
                it.verify()?;
                Curve::Plateau(Plateau::new(it))
            }
        })
    }
}
