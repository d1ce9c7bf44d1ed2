//! Learning-rate schedules: the `param_scheduler` section, with the numbers of mmengine 0.10.
//!
//! mmengine's schedulers do not compute a rate from a step; each multiplies the rate that is there, so that several act on
//! one rate one after another. This is the same recursion. A resume replays it from the start, which leads to the same bits
//! in milliseconds; nothing of it is saved.

use std::collections::BTreeMap;
use std::f64::consts::PI;

use serde::Deserialize;

/// One entry of `param_scheduler`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub enum ParamSchedulerConfig {
    /// From the rate down to `eta_min`, along `(1 - t) ^ power`.
    PolyLR(PolyConfig),
    /// From `start_factor` times the rate to `end_factor` times it, in even steps.
    LinearLR(LinearConfig),
    /// Times `gamma` at every milestone.
    MultiStepLR(MultiStepConfig),
    /// Times `gamma` after every `step_size` steps.
    StepLR(StepConfig),
    /// Times `factor` from `begin` to `end`, then back.
    ConstantLR(ConstantConfig),
    /// Times `gamma` at every step.
    ExponentialLR(ExponentialConfig),
    /// From the rate down to `eta_min` along half a cosine of `T_max` steps.
    CosineAnnealingLR(CosineConfig),
}

/// `begin`, `end`, `by_epoch` and `convert_to_iter_based`, which every scheduler has: steps in `[begin, end)` change the
/// rate. `end` is by default the training's.
macro_rules! scheduler {
    ($(#[$doc:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Deserialize, PartialEq)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$attribute])* pub $field: $kind,)*
            #[serde(default)]
            pub begin: u64,
            #[serde(default)]
            pub end: Option<u64>,
            #[serde(default = "yes")]
            pub by_epoch: bool,
            #[serde(default)]
            pub convert_to_iter_based: bool,
            /// Without effect: the rates stand in every log line.
            #[serde(default)]
            pub verbose: bool,
        }

        impl $name {
            fn span(&self) -> Span {
                Span { begin: self.begin, end: self.end, by_epoch: self.by_epoch, convert: self.convert_to_iter_based }
            }
        }
    };
}

scheduler! {
    /// The keys of `PolyLR`.
    PolyConfig {
        #[serde(default)]
        #[serde(deserialize_with = "crate::config::not_negative")]
        eta_min: f64,
        #[serde(default = "one")]
        #[serde(deserialize_with = "crate::config::not_negative")]
        power: f64,
    }
}

scheduler! {
    /// The keys of `LinearLR`.
    LinearConfig {
        #[serde(default = "third")]
        #[serde(deserialize_with = "crate::config::not_negative")]
        start_factor: f64,
        #[serde(default = "one")]
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
        #[serde(default = "third")]
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

fn yes() -> bool {
    true
}

fn one() -> f64 {
    1.0
}

fn third() -> f64 {
    1.0 / 3.0
}

fn tenth() -> f64 {
    0.1
}

/// A schedule that cannot be.
#[derive(Debug, thiserror::Error)]
#[error("param_scheduler.{index}: {message}")]
pub struct ScheduleError {
    /// Which entry of the list.
    pub index: usize,
    pub message: String,
}

/// How long the training is, in the units that schedulers count in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    pub max_iters: u64,
    /// Iterations in one pass over the data, which `convert_to_iter_based` multiplies by.
    pub epoch_length: u64,
    /// Epochs of an `EpochBasedTrainLoop`; schedulers with `by_epoch` step at each epoch's end. None for an
    /// `IterBasedTrainLoop`, which mmengine counts as one epoch that ends with the training.
    pub max_epochs: Option<u64>,
}

/// The steps in which a scheduler acts, as written.
struct Span {
    begin: u64,
    end: Option<u64>,
    by_epoch: bool,
    convert: bool,
}

/// The rates of all groups at every iteration.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Before any scheduler acted.
    initial: Vec<f64>,
    /// After how many iterations an epoch ends, where epochs do.
    epoch_length: Option<u64>,
    first: Recursion,
    current: Recursion,
}

/// Where the recursion stands.
#[derive(Debug, Clone)]
struct Recursion {
    iteration: u64,
    rates: Vec<f64>,
    schedulers: Vec<Scheduler>,
}

#[derive(Debug, Clone)]
struct Scheduler {
    curve: Curve,
    begin: u64,
    end: u64,
    by_epoch: bool,
    /// Steps seen, and those of them inside `[begin, end)`.
    seen: u64,
    taken: u64,
}

/// A scheduler's factor, with its lengths in steps.
#[derive(Debug, Clone)]
enum Curve {
    Poly {
        eta_min: f64,
        power: f64,
        total: f64,
    },
    Linear {
        start: f64,
        end: f64,
        total: f64,
    },
    /// How often each milestone is written.
    MultiStep {
        milestones: BTreeMap<u64, i32>,
        gamma: f64,
    },
    Step {
        size: u64,
        gamma: f64,
    },
    Constant {
        factor: f64,
        total: u64,
    },
    Exponential {
        gamma: f64,
    },
    Cosine {
        t_max: u64,
        floor: Floor,
    },
}

#[derive(Debug, Clone, Copy)]
enum Floor {
    Rate(f64),
    Ratio(f64),
}

impl Schedule {
    /// The schedule of `configs`, in their order, for groups that start at the `initial` rates.
    pub fn new(configs: &[ParamSchedulerConfig], initial: &[f64], horizon: Horizon) -> Result<Self, ScheduleError> {
        let mut first = Recursion { iteration: 0, rates: initial.to_vec(), schedulers: Vec::new() };
        for (index, config) in configs.iter().enumerate() {
            let mut scheduler = Scheduler::new(config, horizon).map_err(|message| ScheduleError { index, message })?;
            scheduler.step(initial, &mut first.rates);
            first.schedulers.push(scheduler);
        }
        let epoch_length = horizon.max_epochs.and(Some(horizon.epoch_length)).filter(|&length| length > 0);
        Ok(Self { initial: initial.to_vec(), epoch_length, current: first.clone(), first })
    }

    /// The rates of an iteration, counted from 0, in the order of the initial ones. The next iteration is one step from
    /// here; any other costs the steps from here, or from the start.
    pub fn rates(&mut self, iteration: u64) -> Vec<f64> {
        if iteration < self.current.iteration {
            self.current = self.first.clone();
        }
        while self.current.iteration < iteration {
            self.current.iteration += 1;
            self.advance(false);
            if self.epoch_length.is_some_and(|length| self.current.iteration.is_multiple_of(length)) {
                self.advance(true);
            }
        }
        self.current.rates.clone()
    }

    fn advance(&mut self, by_epoch: bool) {
        let Recursion { schedulers, rates, .. } = &mut self.current;
        for scheduler in schedulers.iter_mut().filter(|it| it.by_epoch == by_epoch) {
            scheduler.step(&self.initial, rates);
        }
    }
}

impl Scheduler {
    fn new(config: &ParamSchedulerConfig, horizon: Horizon) -> Result<Self, String> {
        let span = config.span();
        let default_end = if span.by_epoch { horizon.max_epochs.unwrap_or(1) } else { horizon.max_iters };
        let unit = match (span.convert, span.by_epoch) {
            (false, _) => 1,
            (true, true) if horizon.epoch_length > 0 => horizon.epoch_length,
            (true, true) => return Err("`convert_to_iter_based` needs to know how long an epoch is".to_owned()),
            (true, false) => return Err("`convert_to_iter_based` needs `by_epoch: true`".to_owned()),
        };
        let (begin, end) = (span.begin.saturating_mul(unit), span.end.unwrap_or(default_end).saturating_mul(unit));
        if end <= begin {
            return Err(format!("`end` is {end} and `begin` {begin}, expected an `end` above `begin`"));
        }
        let by_epoch = span.by_epoch && !span.convert;
        Ok(Self { curve: config.curve(end - begin, unit)?, begin, end, by_epoch, seen: 0, taken: 0 })
    }

    fn step(&mut self, initial: &[f64], rates: &mut [f64]) {
        if (self.begin..self.end).contains(&self.seen) {
            for (rate, initial) in rates.iter_mut().zip(initial) {
                *rate = self.curve.next(*rate, *initial, self.taken);
            }
            self.taken += 1;
        }
        self.seen += 1;
    }
}

impl ParamSchedulerConfig {
    fn span(&self) -> Span {
        match self {
            Self::PolyLR(it) => it.span(),
            Self::LinearLR(it) => it.span(),
            Self::MultiStepLR(it) => it.span(),
            Self::StepLR(it) => it.span(),
            Self::ConstantLR(it) => it.span(),
            Self::ExponentialLR(it) => it.span(),
            Self::CosineAnnealingLR(it) => it.span(),
        }
    }

    /// The curve over `length` steps, each `unit` of which were one in the config.
    fn curve(&self, length: u64, unit: u64) -> Result<Curve, String> {
        let factor = |name: &str, value: f64| match value {
            value if (0.0..=1.0).contains(&value) => Ok(value),
            value => Err(format!("`{name}` is {value}, expected a number from 0 to 1")),
        };
        let total = (length - 1) as f64;
        Ok(match self {
            Self::PolyLR(it) => Curve::Poly { eta_min: it.eta_min, power: it.power, total },
            Self::LinearLR(it) => {
                let (start, end) = (factor("start_factor", it.start_factor)?, factor("end_factor", it.end_factor)?);
                if start == 0.0 && length > 1 {
                    // The recursion multiplies the rate that is there, and nothing leads away from 0.
                    return Err("`start_factor` is 0, expected more: the rate would stay 0 for good".to_owned());
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
            Self::StepLR(it) if it.step_size == 0 => return Err("`step_size` is 0, expected 1 or more".to_owned()),
            Self::StepLR(it) => Curve::Step { size: it.step_size * unit, gamma: it.gamma },
            Self::ConstantLR(it) if it.factor == 0.0 => {
                return Err("`factor` is 0, expected more: the rate could not come back from 0".to_owned());
            }
            Self::ConstantLR(it) => Curve::Constant { factor: factor("factor", it.factor)?, total: length - 1 },
            Self::ExponentialLR(it) => Curve::Exponential { gamma: it.gamma },
            Self::CosineAnnealingLR(it) => {
                let floor = match (it.eta_min, it.eta_min_ratio) {
                    (Some(_), Some(_)) => return Err("`eta_min` and `eta_min_ratio` are both written, expected one".to_owned()),
                    (rate, None) => Floor::Rate(rate.unwrap_or(0.0)),
                    (None, Some(ratio)) => Floor::Ratio(ratio),
                };
                // mmengine takes 0 for "not written", too.
                Curve::Cosine { t_max: it.t_max.filter(|&it| it > 0).map_or(length, |it| it * unit), floor }
            }
        })
    }
}

impl Curve {
    /// The rate of step `step` (from 0 at `begin`), from the rate of the step before.
    fn next(&self, rate: f64, initial: f64, step: u64) -> f64 {
        let at = step as f64;
        match *self {
            Self::Linear { start, .. } if step == 0 => rate * start,
            Self::Constant { factor, .. } if step == 0 => rate * factor,
            Self::MultiStep { ref milestones, gamma } => match milestones.get(&step) {
                Some(&times) => rate * gamma.powi(times),
                None => rate,
            },
            _ if step == 0 => rate,
            Self::Poly { eta_min, power, total } => (rate - eta_min) * (1.0 - 1.0 / (total - at + 1.0)).powf(power) + eta_min,
            Self::Linear { start, end, total } => rate * (1.0 + (end - start) / (total * start + (at - 1.0) * (end - start))),
            Self::Step { size, gamma } => {
                if step.is_multiple_of(size) {
                    rate * gamma
                } else {
                    rate
                }
            }
            Self::Constant { factor, total } => {
                if step == total {
                    rate * (1.0 / factor)
                } else {
                    rate
                }
            }
            Self::Exponential { gamma } => rate * gamma,
            Self::Cosine { t_max, floor } => {
                let floor = match floor {
                    Floor::Rate(rate) => rate,
                    Floor::Ratio(ratio) => initial * ratio,
                };
                let length = t_max as f64;
                if (step as i64 - 1 - t_max as i64) % (2 * t_max as i64) == 0 {
                    // The bottom of the cosine, where the quotient below is 0 over 0.
                    return rate + (initial - floor) * (1.0 - (PI / length).cos()) / 2.0;
                }
                (1.0 + (PI * at / length).cos()) / (1.0 + (PI * (at - 1.0) / length).cos()) * (rate - floor) + floor
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_str;

    const GOLDEN: &str = include_str!("../../integration-tests/golden/param_scheduler.json");

    #[derive(Deserialize)]
    struct Golden {
        config: serde_json::Value,
        initial: Vec<f64>,
        max_epochs: u64,
        max_iters: u64,
        epoch_length: u64,
        epochs: bool,
        /// The rates of sampled iterations, one a group.
        rates: Vec<(u64, Vec<f64>)>,
    }

    #[test]
    fn every_schedule_gives_mmengines_rates() {
        let cases: BTreeMap<String, Golden> = serde_json::from_str(GOLDEN).expect("golden rates");
        assert!(cases.len() >= 15);
        for (name, case) in cases {
            let configs: Vec<ParamSchedulerConfig> = parse_str(&case.config.to_string()).expect("a param_scheduler");
            let max_epochs = case.epochs.then_some(case.max_epochs);
            let horizon = Horizon { max_epochs, max_iters: case.max_iters, epoch_length: case.epoch_length };
            let mut schedule = Schedule::new(&configs, &case.initial, horizon).expect("a schedule");
            for (iteration, expected) in case.rates {
                for (found, expected) in schedule.rates(iteration).iter().zip(&expected) {
                    let close = (found - expected).abs() <= 1e-9 * expected.abs();
                    assert!(close, "{name}, iteration {iteration}: {found} is not {expected}");
                }
            }
        }
    }

    #[test]
    fn any_iteration_can_be_asked_for_and_gives_the_same_bits() {
        let text = "[{type: LinearLR, start_factor: 0.1, end: 10, by_epoch: false}, {type: MultiStepLR, milestones: [2, 3]}]";
        let configs: Vec<ParamSchedulerConfig> = parse_str(text).expect("a schedule");
        let horizon = Horizon { max_epochs: Some(5), max_iters: 35, epoch_length: 7 };
        let new = || Schedule::new(&configs, &[0.1], horizon).expect("a schedule");
        let mut straight = new();
        let all: Vec<Vec<f64>> = (0..35).map(|iteration| straight.rates(iteration)).collect();
        let mut jumping = new();
        for iteration in [34, 3, 20, 20, 0, 14] {
            assert_eq!(jumping.rates(iteration), all[iteration as usize], "{iteration}");
        }
    }

    #[test]
    fn a_poly_schedule_follows_its_closed_form() {
        let configs: Vec<ParamSchedulerConfig> =
            parse_str("[{type: PolyLR, power: 0.9, eta_min: 1e-4, by_epoch: false}]").expect("a schedule");
        let horizon = Horizon { max_epochs: None, max_iters: 1000, epoch_length: 10 };
        let mut schedule = Schedule::new(&configs, &[0.01], horizon).expect("a schedule");
        for iteration in 0..1000_u32 {
            let expected = (0.01 - 1e-4) * (1.0 - f64::from(iteration) / 999.0).powf(0.9) + 1e-4;
            assert!((schedule.rates(u64::from(iteration))[0] - expected).abs() <= 1e-9 * expected, "{iteration}");
        }
    }

    #[test]
    fn what_cannot_be_names_its_entry() {
        let horizon = Horizon { max_epochs: None, max_iters: 100, epoch_length: 10 };
        let error = |text: &str| {
            let configs: Vec<ParamSchedulerConfig> = parse_str(text).expect("a config");
            Schedule::new(&configs, &[0.1], horizon).expect_err("refused").to_string()
        };
        let text = error("[{type: PolyLR, by_epoch: false}, {type: LinearLR, start_factor: 2.0, by_epoch: false}]");
        assert_eq!(text, "param_scheduler.1: `start_factor` is 2, expected a number from 0 to 1");
        assert!(error("[{type: PolyLR, begin: 200, by_epoch: false}]").contains("expected an `end` above `begin`"));
        assert!(error("[{type: PolyLR, by_epoch: false, convert_to_iter_based: true}]").contains("by_epoch: true"));
    }
}
