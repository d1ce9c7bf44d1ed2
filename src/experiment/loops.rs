//! The loops: how long to train, and when to validate.

use serde::Deserialize;

use super::Nothing;

/// How long to train, and when to validate.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum TrainLoopConfig {
    IterBasedTrainLoop(IterBased),
    EpochBasedTrainLoop(EpochBased),
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IterBased {
    /// Iterations in all.
    #[serde(deserialize_with = "crate::config::positive")]
    pub max_iters: u64,
    /// Validate every so many iterations.
    #[serde(default = "thousand")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub val_interval: u64,
    /// No validation before this iteration.
    #[serde(default = "one")]
    pub val_begin: u64,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochBased {
    /// Epochs in all.
    #[serde(deserialize_with = "crate::config::positive")]
    pub max_epochs: u64,
    /// Validate every so many epochs.
    #[serde(default = "one")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub val_interval: u64,
    /// No validation before this epoch.
    #[serde(default = "one")]
    pub val_begin: u64,
}

fn thousand() -> u64 {
    1000
}

fn one() -> u64 {
    1
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum ValLoopConfig {
    ValLoop(Nothing),
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum TestLoopConfig {
    TestLoop(Nothing),
}
