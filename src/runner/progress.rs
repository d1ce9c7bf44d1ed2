//! How far a training is, and what a loop's settings mean in iterations.

use serde::{Deserialize, Serialize};

use crate::experiment::{
    CheckpointHook, EpochBased, IterBased, Milestone, NameTemplate, TrainLoopConfig,
};

/// What a resume restores besides tensors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Finished iterations.
    pub iteration: u64,
    /// The validation of this iteration was not finished when the checkpoint was written: it comes
    /// first after a resume.
    pub validation_due: bool,
}

/// The plan of a training, in iterations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TrainPlan {
    pub max_iterations: u64,
    /// Iterations in an epoch: batches that one pass over the dataset gives each rank.
    pub epoch_length: u64,
    /// Whether users count this training in epochs.
    pub by_epoch: bool,
    /// From which iteration on a validation comes after every how many; the last one that has begun
    /// holds.
    validate: Vec<Every>,
    /// No validation before this iteration.
    val_begin: u64,
    checkpoint: Option<Every>,
    save_last: bool,
    template: Option<NameTemplate>,
    /// Whether checkpoints are numbered by epochs.
    numbered_by_epoch: bool,
}

/// Every `interval` iterations, from `begin` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Every {
    interval: u64,
    begin: u64,
}

impl TrainPlan {
    /// `validates` is whether the config has a validation at all.
    pub(crate) fn new(
        config: &TrainLoopConfig,
        hook: &CheckpointHook,
        epoch_length: u64,
        validates: bool,
    ) -> Self {
        let (max_iterations, interval, begin, unit, by_epoch, later) = match config {
            TrainLoopConfig::IterBasedTrainLoop(IterBased {
                max_iters,
                val_interval,
                val_begin,
                dynamic_intervals,
            }) => (*max_iters, *val_interval, *val_begin, 1, false, dynamic_intervals),
            TrainLoopConfig::EpochBasedTrainLoop(EpochBased {
                max_epochs,
                val_interval,
                val_begin,
                dynamic_intervals,
            }) => (
                max_epochs * epoch_length,
                *val_interval,
                *val_begin,
                epoch_length,
                true,
                dynamic_intervals,
            ),
        };
        let mut validate = vec![Every { interval: interval * unit, begin: 0 }];
        // As in mmengine, an interval holds for the step that ends one before its milestone
        // already.
        let later = later.iter().flatten().map(|&Milestone { from, interval }| Every {
            interval: interval * unit,
            begin: from.saturating_sub(1) * unit,
        });
        validate.extend(later);
        validate.sort_by_key(|it| it.begin);
        let checkpoint_unit = if hook.by_epoch { epoch_length } else { 1 };
        Self {
            max_iterations,
            epoch_length,
            by_epoch,
            validate: if validates { validate } else { Vec::new() },
            val_begin: begin * unit,
            checkpoint: (hook.interval > 0).then(|| Every {
                interval: hook.interval as u64 * checkpoint_unit,
                begin: hook.save_begin * checkpoint_unit,
            }),
            save_last: hook.save_last,
            template: hook.filename_tmpl.clone(),
            numbered_by_epoch: by_epoch && hook.by_epoch,
        }
    }

    /// Whether a validation follows this many finished iterations. As in mmengine, the last one has
    /// one in any case.
    pub(crate) fn validation_due(&self, iteration: u64) -> bool {
        let Some(every) = self.validate.iter().rfind(|it| iteration >= it.begin) else {
            return false;
        };
        iteration >= self.val_begin
            && (iteration.is_multiple_of(every.interval) || iteration == self.max_iterations)
    }

    /// Whether a checkpoint follows this many finished iterations.
    pub(crate) fn checkpoint_due(&self, iteration: u64) -> bool {
        let due = |every: Every| {
            iteration >= every.begin && (iteration - every.begin).is_multiple_of(every.interval)
        };
        self.checkpoint.is_some_and(due) || (self.save_last && iteration == self.max_iterations)
    }

    /// The epoch, from 0, that this many finished iterations lie in.
    pub(crate) fn epoch(&self, iteration: u64) -> u64 {
        iteration / self.epoch_length
    }

    /// The name of a checkpoint, without its suffix: `iter_2000`, or `epoch_12` where users count
    /// epochs, or what `filename_tmpl` makes of either number.
    pub(crate) fn checkpoint_name(&self, iteration: u64) -> String {
        let whole = iteration.is_multiple_of(self.epoch_length);
        match &self.template {
            Some(template) if self.numbered_by_epoch && whole => {
                template.name(iteration / self.epoch_length)
            }
            Some(template) if !self.numbered_by_epoch => template.name(iteration),
            _ if self.by_epoch && whole => format!("epoch_{}", iteration / self.epoch_length),
            _ => format!("iter_{iteration}"),
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
        let config = TrainLoopConfig::IterBasedTrainLoop(IterBased {
            max_iters: 10,
            val_interval: 4,
            val_begin: 5,
            dynamic_intervals: None,
        });
        let plan = TrainPlan::new(&config, &hook(3, false), 100, true);
        assert_eq!(due(1..=10, |it| plan.validation_due(it)), [8, 10]);
        assert_eq!(due(1..=10, |it| plan.checkpoint_due(it)), [3, 6, 9, 10]);
        assert_eq!(plan.checkpoint_name(6), "iter_6");
    }

    #[test]
    fn an_epoch_based_plan_counts_epochs() {
        let config = TrainLoopConfig::EpochBasedTrainLoop(EpochBased {
            max_epochs: 4,
            val_interval: 2,
            val_begin: 1,
            dynamic_intervals: None,
        });
        let plan = TrainPlan::new(&config, &hook(1, true), 5, true);
        assert_eq!(plan.max_iterations, 20);
        assert_eq!(due(1..=20, |it| plan.validation_due(it)), [10, 20]);
        assert_eq!(due(1..=20, |it| plan.checkpoint_due(it)), [5, 10, 15, 20]);
        assert_eq!(
            (plan.checkpoint_name(10), plan.checkpoint_name(7)),
            ("epoch_2".to_owned(), "iter_7".to_owned())
        );
    }

    #[test]
    fn intervals_and_beginnings_change_what_is_due() {
        let later =
            Some(vec![Milestone { from: 7, interval: 3 }, Milestone { from: 17, interval: 1 }]);
        let config = TrainLoopConfig::IterBasedTrainLoop(IterBased {
            max_iters: 20,
            val_interval: 5,
            val_begin: 6,
            dynamic_intervals: later,
        });
        let template = crate::config::parse_str("'step_{:03d}.pth'").expect("a template");
        let hook =
            CheckpointHook { save_begin: 4, filename_tmpl: Some(template), ..hook(5, false) };
        let plan = TrainPlan::new(&config, &hook, 100, true);
        assert_eq!(due(1..=20, |it| plan.validation_due(it)), [6, 9, 12, 15, 16, 17, 18, 19, 20]);
        assert_eq!(due(1..=20, |it| plan.checkpoint_due(it)), [4, 9, 14, 19, 20]);
        assert_eq!(plan.checkpoint_name(9), "step_009");
    }

    #[test]
    fn without_a_validation_none_is_due() {
        let config = TrainLoopConfig::IterBasedTrainLoop(IterBased {
            max_iters: 10,
            val_interval: 1,
            val_begin: 1,
            dynamic_intervals: None,
        });
        let plan = TrainPlan::new(&config, &hook(-1, false), 1, false);
        assert!(due(1..=10, |it| plan.validation_due(it)).is_empty());
        assert_eq!(due(1..=10, |it| plan.checkpoint_due(it)), [10]);
    }
}
