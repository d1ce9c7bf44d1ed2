//! The hooks of mmengine. Their work is part of the loop here; these are their settings.

use std::path::PathBuf;

use serde::Deserialize;

use super::Nothing;

/// The hooks that every mmengine run has. Their work is part of the loop here; these are its settings.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DefaultHooks {
    pub timer: Option<TimerSlot>,
    pub logger: LoggerSlot,
    pub param_scheduler: Option<ParamSchedulerSlot>,
    pub checkpoint: CheckpointSlot,
    pub sampler_seed: Option<SamplerSeedSlot>,
    pub visualization: VisualizationSlot,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum TimerSlot {
    IterTimerHook(Nothing),
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum ParamSchedulerSlot {
    ParamSchedulerHook(Nothing),
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum SamplerSeedSlot {
    DistSamplerSeedHook(Nothing),
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum LoggerSlot {
    LoggerHook(LoggerHook),
}

impl Default for LoggerSlot {
    fn default() -> Self {
        Self::LoggerHook(LoggerHook::default())
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoggerHook {
    /// A log line every so many iterations.
    #[serde(deserialize_with = "crate::config::positive")]
    pub interval: u64,
    /// Plots of metrics have epochs on their x-axis; iterations otherwise.
    pub log_metric_by_epoch: bool,
    /// Log the last, shorter interval of an epoch too.
    pub ignore_last: bool,
}

impl Default for LoggerHook {
    fn default() -> Self {
        Self { interval: 10, log_metric_by_epoch: true, ignore_last: true }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum CheckpointSlot {
    CheckpointHook(CheckpointHook),
}

impl Default for CheckpointSlot {
    fn default() -> Self {
        Self::CheckpointHook(CheckpointHook::default())
    }
}

/// When checkpoints are written and how many stay.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointHook {
    /// Every so many epochs (`by_epoch`) or iterations; -1 for never.
    #[serde(deserialize_with = "crate::config::positive_or_never")]
    pub interval: i64,
    pub by_epoch: bool,
    /// Older checkpoints go; -1 keeps all.
    #[serde(deserialize_with = "crate::config::positive_or_all")]
    pub max_keep_ckpts: i64,
    /// Write one at the end of training.
    pub save_last: bool,
    /// The metric whose best checkpoint is kept, such as `mIoU`.
    pub save_best: Option<String>,
    /// Whether more of that metric is better: `greater` (the default) or `less`.
    pub rule: Option<Rule>,
    /// Another folder than the work dir.
    pub out_dir: Option<PathBuf>,
    /// Save the optimizer's state; a checkpoint without it cannot be resumed exactly.
    pub save_optimizer: bool,
    /// Save the schedulers' state.
    pub save_param_scheduler: bool,
}

impl Default for CheckpointHook {
    fn default() -> Self {
        Self {
            interval: -1,
            by_epoch: true,
            max_keep_ckpts: -1,
            save_last: true,
            save_best: None,
            rule: None,
            out_dir: None,
            save_optimizer: true,
            save_param_scheduler: true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    Greater,
    Less,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum VisualizationSlot {
    SegVisualizationHook(SegVisualizationHook),
}

impl Default for VisualizationSlot {
    fn default() -> Self {
        Self::SegVisualizationHook(SegVisualizationHook::default())
    }
}

/// Painted pictures while validating and testing.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SegVisualizationHook {
    pub draw: bool,
    /// Paint every so many validation images.
    #[serde(deserialize_with = "crate::config::positive")]
    pub interval: usize,
    pub show: bool,
    /// Seconds a shown picture stays.
    #[serde(deserialize_with = "crate::config::not_negative")]
    pub wait_time: f64,
}

impl Default for SegVisualizationHook {
    fn default() -> Self {
        Self { draw: false, interval: 50, show: false, wait_time: 0.0 }
    }
}
