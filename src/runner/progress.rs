//! How far a training is, and what a loop's settings mean in iterations.

use serde::{Deserialize, Serialize};

use crate::experiment::{CheckpointHook, EpochBased, IterBased, TrainLoopConfig};

/// What a resume restores besides tensors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Finished iterations.
    pub iteration: u64,
    /// The validation of this iteration was not finished when the checkpoint was written: it comes first after a resume.
    pub validation_due: bool,
}

/// The plan of a training, in iterations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub max_iterations: u64,
    /// Iterations in an epoch: batches that one pass over the dataset gives each rank.
    pub epoch_length: u64,
    /// Whether users count this training in epochs.
    pub by_epoch: bool,
    validate: Option<Every>,
    checkpoint: Option<Every>,
    save_last: bool,
}

/// Every `interval` iterations, from `begin` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Every {
    interval: u64,
    begin: u64,
}

impl Every {
    fn new(interval: i64, begin: u64, unit: u64) -> Option<Self> {
        (interval > 0).then(|| Self { interval: interval as u64 * unit, begin: begin * unit })
    }

    fn due(self, iteration: u64) -> bool {
        iteration >= self.begin && iteration.is_multiple_of(self.interval)
    }
}

impl Plan {
    /// `validates` is whether the config has a validation at all.
    pub fn new(config: &TrainLoopConfig, hook: &CheckpointHook, epoch_length: u64, validates: bool) -> Self {
        let (max_iterations, interval, begin, unit, by_epoch) = match config {
            TrainLoopConfig::IterBasedTrainLoop(IterBased { max_iters, val_interval, val_begin }) => {
                (*max_iters, *val_interval, *val_begin, 1, false)
            }
            TrainLoopConfig::EpochBasedTrainLoop(EpochBased { max_epochs, val_interval, val_begin }) => {
                (max_epochs * epoch_length, *val_interval, *val_begin, epoch_length, true)
            }
        };
        let checkpoint_unit = if hook.by_epoch { epoch_length } else { 1 };
        Self {
            max_iterations,
            epoch_length,
            by_epoch,
            validate: validates.then(|| Every::new(interval as i64, begin, unit)).flatten(),
            checkpoint: Every::new(hook.interval, 0, checkpoint_unit),
            save_last: hook.save_last,
        }
    }

    /// Whether a validation follows this many finished iterations. As in mmengine, the last iteration has one only where the
    /// interval says so.
    pub fn validation_due(&self, iteration: u64) -> bool {
        self.validate.is_some_and(|every| every.due(iteration))
    }

    /// Whether a checkpoint follows this many finished iterations.
    pub fn checkpoint_due(&self, iteration: u64) -> bool {
        self.checkpoint.is_some_and(|every| every.due(iteration)) || (self.save_last && iteration == self.max_iterations)
    }

    /// The epoch, from 0, that this many finished iterations lie in.
    pub fn epoch(&self, iteration: u64) -> u64 {
        iteration / self.epoch_length
    }

    /// The name of a checkpoint, without its suffix: `iter_2000`, or `epoch_12` where users count epochs.
    pub fn checkpoint_name(&self, iteration: u64) -> String {
        if self.by_epoch && iteration.is_multiple_of(self.epoch_length) {
            format!("epoch_{}", iteration / self.epoch_length)
        } else {
            format!("iter_{iteration}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(interval: i64, by_epoch: bool) -> CheckpointHook {
        CheckpointHook { interval, by_epoch, ..CheckpointHook::default() }
    }

    fn due(range: std::ops::RangeInclusive<u64>, test: impl Fn(u64) -> bool) -> Vec<u64> {
        range.filter(|&iteration| test(iteration)).collect()
    }

    #[test]
    fn an_iteration_based_plan_counts_iterations() {
        let config = TrainLoopConfig::IterBasedTrainLoop(IterBased { max_iters: 10, val_interval: 4, val_begin: 5 });
        let plan = Plan::new(&config, &hook(3, false), 100, true);
        assert_eq!(due(1..=10, |it| plan.validation_due(it)), [8]);
        assert_eq!(due(1..=10, |it| plan.checkpoint_due(it)), [3, 6, 9, 10]);
        assert_eq!(plan.checkpoint_name(6), "iter_6");
    }

    #[test]
    fn an_epoch_based_plan_counts_epochs() {
        let config = TrainLoopConfig::EpochBasedTrainLoop(EpochBased { max_epochs: 4, val_interval: 2, val_begin: 1 });
        let plan = Plan::new(&config, &hook(1, true), 5, true);
        assert_eq!(plan.max_iterations, 20);
        assert_eq!(due(1..=20, |it| plan.validation_due(it)), [10, 20]);
        assert_eq!(due(1..=20, |it| plan.checkpoint_due(it)), [5, 10, 15, 20]);
        assert_eq!((plan.checkpoint_name(10), plan.checkpoint_name(7)), ("epoch_2".to_owned(), "iter_7".to_owned()));
    }

    #[test]
    fn without_a_validation_none_is_due() {
        let config = TrainLoopConfig::IterBasedTrainLoop(IterBased { max_iters: 10, val_interval: 1, val_begin: 1 });
        let plan = Plan::new(&config, &hook(-1, false), 1, false);
        assert!(due(1..=10, |it| plan.validation_due(it)).is_empty());
        assert_eq!(due(1..=10, |it| plan.checkpoint_due(it)), [10]);
    }
}
