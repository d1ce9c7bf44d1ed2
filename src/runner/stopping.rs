//! `EarlyStoppingHook`: a training that improves no more ends before its plan does. mmengine
//! forgets what it has seen when a run is resumed; here it is part of a checkpoint.

use serde::{Deserialize, Serialize};

use crate::experiment::{EarlyStoppingHook, Rule};

/// What one hook has seen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// The best value so far.
    best: Option<f64>,
    /// Validations since.
    waited: u64,
}

/// One hook, and what it has seen.
#[derive(Debug, Clone)]
pub(super) struct Stopping {
    hook: EarlyStoppingHook,
    rule: Rule,
    pub seen: Seen,
}

impl Stopping {
    pub(super) fn new(hook: EarlyStoppingHook) -> Self {
        let rule =
            hook.rule.or_else(|| Rule::of(&hook.monitor, None, None)).unwrap_or(Rule::Greater);
        Self { hook, rule, seen: Seen::default() }
    }

    pub(super) fn monitor(&self) -> &str {
        &self.hook.monitor
    }

    /// Why the training has ended already, if it has: a run that is resumed does not train on.
    pub(super) fn spent(&self) -> Option<String> {
        let EarlyStoppingHook { monitor, patience, .. } = &self.hook;
        let waited = self.seen.waited;
        (waited >= *patience).then(|| {
            format!("{monitor} had not improved in {waited} validations (patience: {patience})")
        })
    }

    /// Takes in a validation's value; why the training ends with it, if it does.
    pub(super) fn judge(&mut self, value: f64) -> Option<String> {
        let EarlyStoppingHook {
            monitor,
            min_delta,
            check_finite,
            patience,
            stopping_threshold,
            ..
        } = &self.hook;
        let best = self.seen.best.map_or_else(
            || "there was none before".to_owned(),
            |it| format!("the best was {it:.4}"),
        );
        if *check_finite && !value.is_finite() {
            return Some(format!("{monitor} is {value}, which is no finite number; {best}"));
        }
        if let Some(threshold) = stopping_threshold.filter(|it| self.rule.is_better(value, *it)) {
            self.seen.best = Some(value);
            return Some(format!(
                "{monitor} is {value:.4} and has reached the stopping_threshold {threshold}"
            ));
        }
        let margin = if self.rule == Rule::Greater { *min_delta } else { -min_delta };
        // As mmengine has it, equal to the best and its margin is enough. What is no number is no
        // improvement.
        if value.is_finite()
            && self.seen.best.is_none_or(|best| !self.rule.is_better(best + margin, value))
        {
            self.seen = Seen { best: Some(value), waited: 0 };
            return None;
        }
        self.seen.waited += 1;
        (self.seen.waited >= *patience).then(|| {
            format!(
                "{monitor} has not improved by {min_delta} in the last {} validations: it is \
                 {value:.4}, and {best}",
                self.seen.waited
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_str;

    fn stops(settings: &str, values: &[f64]) -> Option<usize> {
        let mut stopping = Stopping::new(parse_str(settings).expect("settings"));
        values.iter().position(|&value| stopping.judge(value).is_some())
    }

    #[test]
    fn a_training_ends_when_patience_does() {
        assert_eq!(stops("{monitor: mIoU, patience: 2}", &[10.0, 10.05, 10.05, 20.0]), Some(2));
        assert_eq!(stops("{monitor: mIoU, patience: 2}", &[10.0, 10.05, 10.1, 10.15, 10.3]), None);
        assert_eq!(
            stops("{monitor: loss, patience: 1, min_delta: 0.5}", &[3.0, 2.0, 1.6]),
            Some(2)
        );
        assert_eq!(
            stops("{monitor: mIoU, rule: less, patience: 1, min_delta: 0}", &[3.0, 3.0, 2.0, 4.0]),
            Some(3)
        );
    }

    #[test]
    fn a_threshold_and_a_value_that_is_no_number_end_it_at_once() {
        assert_eq!(stops("{monitor: mIoU, stopping_threshold: 50}", &[10.0, 60.0]), Some(1));
        assert_eq!(stops("{monitor: mIoU}", &[f64::NAN]), Some(0));
        assert_eq!(
            stops("{monitor: mIoU, check_finite: false, patience: 2}", &[10.0, f64::NAN, 5.0]),
            Some(2)
        );
    }
}
