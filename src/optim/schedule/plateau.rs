//! `ReduceOnPlateauLR`: the one schedule that is no function of the iteration. What validations
//! measured is kept, and the recursion is replayed over it, so that a resumed run has the same
//! rates.

use serde::{Deserialize, Serialize};

use super::config::scheduler;

scheduler! {
    /// The keys of `ReduceOnPlateauLR`.
    PlateauConfig {
        #[serde(default = "loss")]
        monitor: String,
        #[serde(default)]
        rule: PlateauRule,
        #[serde(default = "super::config::tenth")]
        #[serde(deserialize_with = "crate::config::below_one")]
        factor: f64,
        #[serde(default = "crate::config::default::u::<10>")]
        patience: u64,
        #[serde(default = "crate::config::default::ratio::<1, 10000>")]
        #[serde(deserialize_with = "crate::config::not_negative")]
        threshold: f64,
        #[serde(default)]
        threshold_rule: ThresholdRule,
        #[serde(default)]
        cooldown: u64,
        #[serde(default)]
        #[serde(deserialize_with = "crate::config::not_negative")]
        min_value: f64,
        #[serde(default = "crate::config::default::ratio::<1, 100000000>")]
        #[serde(deserialize_with = "crate::config::not_negative")]
        eps: f64,
    }
}

/// Which values of a metric are better ones.
#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum PlateauRule {
    #[default]
    Less,
    Greater,
}

/// What `threshold` is of: the best value, or nothing.
#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ThresholdRule {
    #[default]
    Rel,
    Abs,
}

fn loss() -> String {
    "loss".to_owned()
}

impl PlateauConfig {
    /// Refuses what mmengine refuses when it builds the scheduler.
    pub(super) fn verify(&self) -> Result<(), String> {
        if !self.by_epoch || self.convert_to_iter_based {
            return Err(
                "ReduceOnPlateauLR acts after validations: expected `by_epoch: true` and no \
                 `convert_to_iter_based`"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

/// What the validation after an iteration measured: one value for each scheduler that watches one.
/// No number stands as `None`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// Finished iterations.
    pub after: u64,
    pub values: Vec<Option<f64>>,
}

/// A scheduler that watches, and what it has seen.
#[derive(Debug, Clone)]
pub(super) struct Plateau {
    config: PlateauConfig,
    best: f64,
    bad: u64,
    cooling: u64,
}

impl Plateau {
    pub(super) fn new(config: &PlateauConfig) -> Self {
        let best = if config.rule == PlateauRule::Less { f64::INFINITY } else { f64::NEG_INFINITY };
        Self { config: config.clone(), best, bad: 0, cooling: 0 }
    }

    /// The metric that is watched.
    pub(super) fn monitor(&self) -> &str {
        &self.config.monitor
    }

    /// Takes in a value, and reduces the rates where it has been no better for too long.
    pub(super) fn observe(&mut self, value: f64, rates: &mut [f64]) {
        if self.is_better(value) {
            self.best = value;
            self.bad = 0;
        } else {
            self.bad += 1;
        }
        if self.cooling > 0 {
            self.cooling -= 1;
            self.bad = 0;
        }
        if self.bad > self.config.patience {
            for rate in rates {
                let reduced = (*rate * self.config.factor).max(self.config.min_value);
                if *rate - reduced > self.config.eps {
                    *rate = reduced;
                }
            }
            self.cooling = self.config.cooldown;
            self.bad = 0;
        }
    }

    fn is_better(&self, value: f64) -> bool {
        let PlateauConfig { rule, threshold, threshold_rule, .. } = self.config;
        match (rule, threshold_rule) {
            (PlateauRule::Less, ThresholdRule::Rel) => value < self.best * (1.0 - threshold),
            (PlateauRule::Less, ThresholdRule::Abs) => value < self.best - threshold,
            (PlateauRule::Greater, ThresholdRule::Rel) => value > self.best * (1.0 + threshold),
            (PlateauRule::Greater, ThresholdRule::Abs) => value > self.best + threshold,
        }
    }
}
