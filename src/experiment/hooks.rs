//! The hooks of mmengine. Their work is part of the loop here; these are their settings.

use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use crate::config::{NotOffered, OneOrMany, Only, Typed};

/// The hooks that every mmengine run has. One that is null is left out.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DefaultHooks {
    pub runtime_info: Option<RuntimeInfoSlot>,
    pub timer: Option<TimerSlot>,
    pub logger: Option<Only<LoggerHook>>,
    pub param_scheduler: Option<ParamSchedulerSlot>,
    pub checkpoint: Option<Only<CheckpointHook>>,
    pub sampler_seed: Option<SamplerSeedSlot>,
    pub visualization: Option<Only<SegVisualizationHook>>,
}

impl Default for DefaultHooks {
    fn default() -> Self {
        Self {
            runtime_info: None,
            timer: None,
            logger: Some(Only::default()),
            param_scheduler: None,
            checkpoint: Some(Only::default()),
            sampler_seed: None,
            visualization: Some(Only::default()),
        }
    }
}

/// When a hook comes among others. Without effect: the order of what they do is fixed here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Priority(pub String);

const PRIORITIES: [&str; 9] = [
    "HIGHEST",
    "VERY_HIGH",
    "HIGH",
    "ABOVE_NORMAL",
    "NORMAL",
    "BELOW_NORMAL",
    "LOW",
    "VERY_LOW",
    "LOWEST",
];

impl<'de> Deserialize<'de> for Priority {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Priority;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "a number from 0 to 100, or one of {}", PRIORITIES.join(", "))
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Priority, E> {
                let known = PRIORITIES.contains(&name.to_uppercase().as_str());
                if known {
                    Ok(Priority(name.to_owned()))
                } else {
                    Err(E::invalid_value(de::Unexpected::Str(name), &self))
                }
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Priority, E> {
                let known = (0..=100).contains(&number);
                if known {
                    Ok(Priority(number.to_string()))
                } else {
                    Err(E::invalid_value(de::Unexpected::Signed(number), &self))
                }
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// A hook without settings, whose work is done in any case.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlainHook {
    pub priority: Option<Priority>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum RuntimeInfoSlot {
    RuntimeInfoHook(PlainHook),
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum TimerSlot {
    IterTimerHook(PlainHook),
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum ParamSchedulerSlot {
    ParamSchedulerHook(PlainHook),
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum SamplerSeedSlot {
    DistSamplerSeedHook(PlainHook),
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoggerHook {
    /// A log line every so many iterations.
    #[serde(deserialize_with = "crate::config::positive")]
    pub interval: u64,
    /// Plots of metrics have epochs on their x-axis; iterations otherwise.
    pub log_metric_by_epoch: bool,
    /// Leave out the last, shorter interval of an epoch.
    pub ignore_last: bool,
    /// Without effect: no line repeats the experiment's name.
    pub interval_exp_name: Option<i64>,
    /// Another place for a copy of the logs.
    pub out_dir: Option<NotOffered>,
    /// Without effect: which files `out_dir` would take.
    pub out_suffix: Option<OneOrMany<String>>,
    /// Without effect: logs stay in the work dir.
    pub keep_local: bool,
    pub file_client_args: Option<NotOffered>,
    pub backend_args: Option<NotOffered>,
    pub priority: Option<Priority>,
}

impl Typed for LoggerHook {
    const TYPES: &'static [&'static str] = &["LoggerHook"];
}

impl Default for LoggerHook {
    fn default() -> Self {
        Self {
            interval: 10,
            log_metric_by_epoch: true,
            ignore_last: true,
            interval_exp_name: None,
            out_dir: None,
            out_suffix: None,
            keep_local: true,
            file_client_args: None,
            backend_args: None,
            priority: None,
        }
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
    /// The metrics whose best checkpoints are kept, such as `mIoU`; `auto` is the first that the
    /// validation gives.
    pub save_best: OneOrMany<String>,
    /// Whether more of a metric is better: `greater` or `less`, one for all or one for each; known
    /// by the metric's name otherwise.
    pub rule: OneOrMany<Rule>,
    /// Parts of names of metrics of which more is better, in place of the usual ones.
    pub greater_keys: Option<OneOrMany<String>>,
    /// Parts of names of metrics of which less is better.
    pub less_keys: Option<OneOrMany<String>>,
    /// Another folder than the work dir.
    pub out_dir: Option<PathBuf>,
    /// Save the optimizer's state; a checkpoint without it cannot be resumed exactly.
    pub save_optimizer: bool,
    /// Without effect: the schedule follows from the config and the iteration.
    pub save_param_scheduler: bool,
    /// The names of numbered checkpoints, with `{}` where the number stands. Their end is
    /// `.safetensors` in any case.
    pub filename_tmpl: Option<NameTemplate>,
    /// What of the last and the best checkpoints is published when the training is done, as a
    /// `.pth` with its checksum in its name.
    pub published_keys: Option<OneOrMany<PublishedKey>>,
    /// No checkpoint before this epoch or iteration; `interval` counts from here.
    pub save_begin: u64,
    pub file_client_args: Option<NotOffered>,
    pub backend_args: Option<NotOffered>,
    pub priority: Option<Priority>,
}

impl Typed for CheckpointHook {
    const TYPES: &'static [&'static str] = &["CheckpointHook"];
}

impl Default for CheckpointHook {
    fn default() -> Self {
        Self {
            interval: -1,
            by_epoch: true,
            max_keep_ckpts: -1,
            save_last: true,
            save_best: OneOrMany::default(),
            rule: OneOrMany::default(),
            greater_keys: None,
            less_keys: None,
            out_dir: None,
            save_optimizer: true,
            save_param_scheduler: true,
            filename_tmpl: None,
            published_keys: None,
            save_begin: 0,
            file_client_args: None,
            backend_args: None,
            priority: None,
        }
    }
}

impl CheckpointHook {
    /// The hook of a config that has none.
    pub fn never() -> Self {
        Self { save_last: false, ..Self::default() }
    }

    /// Whether more of a metric is better; an error where neither the config nor the name says so.
    /// `place` is the metric's among those of `save_best`.
    pub fn rule_of(&self, place: usize, name: &str) -> Result<Rule, String> {
        let given = if self.rule.len() == 1 { self.rule.first() } else { self.rule.get(place) };
        let (greater, less) = (self.greater_keys.as_deref(), self.less_keys.as_deref());
        given.copied().or_else(|| Rule::of(name, greater, less)).ok_or_else(|| {
            format!(
                "save_best: whether more or less of {name} is better does not follow from its \
                 name; say rule: greater or rule: less"
            )
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    Greater,
    Less,
}

/// Parts of the names of metrics of which more is better: mmengine's, and mmseg's other ones.
const GREATER: [&str; 12] = [
    "acc",
    "top",
    "ar@",
    "auc",
    "precision",
    "map",
    "mdice",
    "miou",
    "macc",
    "aacc",
    "fscore",
    "recall",
];
const LESS: [&str; 1] = ["loss"];

impl Rule {
    /// As mmengine tells it by a metric's name: whole names before parts, `greater` before `less`.
    pub fn of(name: &str, greater: Option<&[String]>, less: Option<&[String]>) -> Option<Self> {
        let name = name.to_lowercase();
        let usual = |keys: Option<&[String]>, usual: &[&str]| -> Vec<String> {
            keys.map_or_else(
                || usual.iter().map(ToString::to_string).collect(),
                |keys| keys.iter().map(|it| it.to_lowercase()).collect(),
            )
        };
        let (greater, less) = (usual(greater, &GREATER), usual(less, &LESS));
        let whole = |keys: &[String]| keys.contains(&name);
        let part = |keys: &[String]| keys.iter().any(|it| name.contains(it.as_str()));
        match () {
            () if whole(&greater) => Some(Self::Greater),
            () if whole(&less) => Some(Self::Less),
            () if part(&greater) => Some(Self::Greater),
            () if part(&less) => Some(Self::Less),
            () => None,
        }
    }

    /// Whether `value` is better than `than`.
    pub fn is_better(self, value: f64, than: f64) -> bool {
        match self {
            Self::Greater => value > than,
            Self::Less => value < than,
        }
    }
}

/// `filename_tmpl`, taken apart at its `{}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameTemplate {
    pub prefix: String,
    pub suffix: String,
    /// Digits that the number has at least.
    pub width: usize,
}

impl NameTemplate {
    /// The name of a checkpoint, without its end.
    pub fn name(&self, number: u64) -> String {
        format!("{}{number:0width$}{}", self.prefix, self.suffix, width = self.width)
    }
}

impl<'de> Deserialize<'de> for NameTemplate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = |why: &str| {
            Err(de::Error::custom(format!(
                "`{text}` {why}; expected a name with one {{}}, such as step_{{}}.pth"
            )))
        };
        let stem = match text.rsplit_once('.') {
            Some((stem, end)) if !end.contains('}') => stem,
            _ => text.as_str(),
        };
        if stem.contains(['/', '\\']) {
            return wrong("leads into another folder, for which there is out_dir");
        }
        let Some((prefix, (format, suffix))) =
            stem.split_once('{').and_then(|(prefix, rest)| Some((prefix, rest.split_once('}')?)))
        else {
            return wrong("has no place for the number");
        };
        if suffix.contains(['{', '}']) || prefix.contains('}') {
            return wrong("has several places for the number");
        }
        // Python's `{}`, `{:d}` and `{:06d}`.
        let width = match format.strip_prefix(':').map(|it| it.strip_suffix('d').unwrap_or(it)) {
            None if format.is_empty() => 0,
            Some("") => 0,
            Some(digits) if digits.starts_with('0') => {
                digits.parse().ok().filter(|it| *it < 20).unwrap_or(usize::MAX)
            }
            _ => usize::MAX,
        };
        if width == usize::MAX {
            return wrong("writes the number in a way that is not offered");
        }
        if prefix.starts_with('.') || prefix.starts_with("best_") {
            return wrong("begins as other files do");
        }
        Ok(Self { prefix: prefix.to_owned(), suffix: suffix.to_owned(), width })
    }
}

/// A part of a checkpoint that is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PublishedKey {
    Meta,
    StateDict,
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
    pub file_client_args: Option<NotOffered>,
    pub backend_args: Option<NotOffered>,
    pub priority: Option<Priority>,
}

impl Typed for SegVisualizationHook {
    const TYPES: &'static [&'static str] = &["SegVisualizationHook"];
}

impl Default for SegVisualizationHook {
    fn default() -> Self {
        Self {
            draw: false,
            interval: 50,
            show: false,
            wait_time: 0.0,
            file_client_args: None,
            backend_args: None,
            priority: None,
        }
    }
}

/// One of `custom_hooks`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[expect(clippy::enum_variant_names, reason = "mmengine's names")]
pub enum CustomHook {
    EMAHook(EmaHook),
    EarlyStoppingHook(EarlyStoppingHook),
    /// Without effect: freed memory goes back where that helps.
    EmptyCacheHook(EmptyCacheHook),
    RuntimeInfoHook(PlainHook),
    IterTimerHook(PlainHook),
    ParamSchedulerHook(PlainHook),
    DistSamplerSeedHook(PlainHook),
}

/// How averaged weights follow the trained ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum EmaType {
    #[default]
    ExponentialMovingAverage,
    StochasticWeightAverage,
    MomentumAnnealingEMA,
}

/// Weights that follow the trained ones slowly: they are validated, tested and kept in place of
/// these.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EmaHook {
    pub ema_type: EmaType,
    /// How far averaged weights move towards the trained ones at each update, 0.0002 unless given.
    /// Not for `StochasticWeightAverage`.
    pub momentum: Option<Momentum>,
    /// Of `MomentumAnnealingEMA`: the momentum is at least `gamma / (gamma + updates)`.
    #[serde(deserialize_with = "crate::config::positive")]
    pub gamma: Option<u64>,
    /// Iterations between two updates.
    #[serde(deserialize_with = "crate::config::positive")]
    pub interval: u64,
    /// Average running statistics too; otherwise they are the trained model's.
    pub update_buffers: bool,
    /// Without effect: a checkpoint's averaged weights have to fit in any case.
    pub strict_load: bool,
    /// The averages begin at this iteration…
    pub begin_iter: u64,
    /// … or this epoch. Not both.
    pub begin_epoch: u64,
    pub priority: Option<Priority>,
}

impl Default for EmaHook {
    fn default() -> Self {
        Self {
            ema_type: EmaType::default(),
            momentum: None,
            gamma: None,
            interval: 1,
            update_buffers: false,
            strict_load: false,
            begin_iter: 0,
            begin_epoch: 0,
            priority: None,
        }
    }
}

/// A share between 0 and 1, neither of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Momentum(pub f64);

impl<'de> Deserialize<'de> for Momentum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = f64::deserialize(deserializer)?;
        if value > 0.0 && value < 1.0 {
            return Ok(Self(value));
        }
        Err(de::Error::invalid_value(de::Unexpected::Float(value), &"a number between 0 and 1"))
    }
}

/// Ends the training when a metric improves no more.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyStoppingHook {
    /// The metric, such as `mIoU`.
    pub monitor: String,
    /// Whether more of it is better; known by its name otherwise.
    #[serde(default)]
    pub rule: Option<Rule>,
    /// By how much a validation has to be better, in the metric's units (per cent).
    #[serde(
        default = "crate::config::default::ratio::<1, 10>",
        deserialize_with = "crate::config::finite"
    )]
    pub min_delta: f64,
    /// Without effect: a metric that no validation gives is an error at the start.
    #[serde(default)]
    pub strict: bool,
    /// Stop where the metric is not a finite number.
    #[serde(default = "crate::config::default::yes")]
    pub check_finite: bool,
    /// Stop after so many validations without an improvement.
    #[serde(
        default = "crate::config::default::u::<5>",
        deserialize_with = "crate::config::positive"
    )]
    pub patience: u64,
    /// Stop as soon as the metric is better than this.
    #[serde(default)]
    pub stopping_threshold: Option<f64>,
    #[serde(default)]
    pub priority: Option<Priority>,
}

/// When mmengine empties the cache of GPU memory.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EmptyCacheHook {
    pub before_epoch: bool,
    pub after_epoch: Option<bool>,
    pub after_iter: bool,
    pub priority: Option<Priority>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_str;

    #[test]
    fn a_metrics_name_says_whether_more_of_it_is_better() {
        for name in ["mIoU", "aAcc", "all/mDice", "val/mFscore", "mPrecision"] {
            assert_eq!(Rule::of(name, None, None), Some(Rule::Greater), "{name}");
        }
        assert_eq!(Rule::of("decode.loss_ce", None, None), Some(Rule::Less));
        assert_eq!(Rule::of("time", None, None), None);
        assert_eq!(Rule::of("mIoU", Some(&[]), Some(&["iou".to_owned()])), Some(Rule::Less));
    }

    #[test]
    fn templates_of_names_are_pythons() {
        let name =
            |text: &str| parse_str::<NameTemplate>(&format!("'{text}'")).map(|it| it.name(40));
        assert_eq!(name("step_{}.pth").expect("reads"), "step_40");
        assert_eq!(name("{:06d}.pth").expect("reads"), "000040");
        assert_eq!(name("a{:d}b").expect("reads"), "a40b");
        for wrong in ["step.pth", "{}_{}.pth", "a/{}.pth", "{:.2f}.pth", "best_{}.pth"] {
            let error = name(wrong).expect_err(wrong).to_string();
            assert!(error.contains("expected a name with one {}"), "{error}");
        }
    }
}
