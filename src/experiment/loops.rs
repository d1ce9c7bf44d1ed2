//! The loops: how long to train, and when to validate.

use serde::Deserialize;
use serde::de::{self, Deserializer};

/// How long to train, and when to validate.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum TrainLoopConfig {
    IterBasedTrainLoop(IterBased),
    EpochBasedTrainLoop(EpochBased),
}

impl std::fmt::Display for TrainLoopConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::IterBasedTrainLoop(it) => write!(f, "{} iterations", it.max_iters),
            Self::EpochBasedTrainLoop(it) => write!(f, "{} epochs", it.max_epochs),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IterBased {
    /// Iterations in all.
    #[serde(deserialize_with = "crate::config::positive")]
    pub max_iters: u64,
    /// Validate every so many iterations.
    #[serde(default = "crate::config::default::u::<1000>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub val_interval: u64,
    /// No validation before this iteration.
    #[serde(default = "crate::config::default::u::<1>")]
    pub val_begin: u64,
    /// Other intervals later: pairs of an iteration and the interval from there on.
    #[serde(default)]
    pub dynamic_intervals: Option<Vec<Milestone>>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochBased {
    /// Epochs in all.
    #[serde(deserialize_with = "crate::config::positive")]
    pub max_epochs: u64,
    /// Validate every so many epochs.
    #[serde(default = "crate::config::default::u::<1>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub val_interval: u64,
    /// No validation before this epoch.
    #[serde(default = "crate::config::default::u::<1>")]
    pub val_begin: u64,
    /// Other intervals later: pairs of an epoch and the interval from there on.
    #[serde(default)]
    pub dynamic_intervals: Option<Vec<Milestone>>,
}

/// From which iteration or epoch on, and every how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Milestone {
    pub from: u64,
    pub interval: u64,
}

impl<'de> Deserialize<'de> for Milestone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let [from, interval] = <[u64; 2]>::deserialize(deserializer)?;
        if interval == 0 {
            return Err(de::Error::custom(
                "expected an interval of 1 or more behind the milestone",
            ));
        }
        Ok(Self { from, interval })
    }
}

/// The keys of `ValLoop` and `TestLoop`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationLoop {
    /// Half precision while testing is not offered.
    #[serde(deserialize_with = "crate::config::only_false")]
    pub fp16: bool,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum ValLoopConfig {
    ValLoop(EvaluationLoop),
    TestLoop(EvaluationLoop),
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum TestLoopConfig {
    TestLoop(EvaluationLoop),
    ValLoop(EvaluationLoop),
}
