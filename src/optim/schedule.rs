//! Learning-rate schedules: the `param_scheduler` section, with the numbers of mmengine 0.10.
//!
//! mmengine's schedulers do not compute a rate from a step; each multiplies the rate that is there,
//! so that several act on one rate one after another. This is the same recursion. A resume replays
//! it from the start, which leads to the same bits in milliseconds; nothing of it is saved.

mod config;
mod curve;
mod plateau;

use crate::exit::{Exit, Exits};

pub use config::ParamSchedulerConfig;
use curve::Curve;
pub(crate) use plateau::Observation;

/// A schedule that cannot be.
#[derive(Debug, thiserror::Error)]
#[error("param_scheduler.{index}: {message}")]
pub struct ScheduleError {
    /// Which entry of the list.
    pub index: usize,
    pub message: String,
}

impl Exits for ScheduleError {
    fn exit(&self) -> Exit {
        Exit::Config
    }
}

/// How long the training is, in the units that schedulers count in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    pub max_iters: u64,
    /// Iterations in one pass over the data, which `convert_to_iter_based` multiplies by.
    pub epoch_length: u64,
    /// Epochs of an `EpochBasedTrainLoop`; schedulers with `by_epoch` step at each epoch's end.
    /// None for an `IterBasedTrainLoop`, which mmengine counts as one epoch that ends with the
    /// training.
    pub max_epochs: Option<u64>,
}

/// The rates of all groups at every iteration.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// After how many iterations an epoch ends, where epochs do.
    epoch_length: Option<u64>,
    first: Recursion,
    current: Recursion,
    /// What validations measured, in their order.
    observations: Vec<Observation>,
}

/// Where the recursion stands.
#[derive(Debug, Clone)]
struct Recursion {
    iteration: u64,
    rates: Vec<f64>,
    schedulers: Vec<Scheduler>,
    /// Observations that were taken in.
    observed: usize,
}

#[derive(Debug, Clone)]
struct Scheduler {
    curve: Curve,
    /// The rates of the groups before any scheduler acted.
    initial: Vec<f64>,
    begin: u64,
    end: u64,
    by_epoch: bool,
    /// Steps seen, and those of them inside `[begin, end)`.
    seen: u64,
    taken: u64,
}

impl Schedule {
    /// The schedule of `configs`, in their order, for groups that start at the `initial` rates.
    pub fn new(
        configs: &[ParamSchedulerConfig],
        initial: &[f64],
        horizon: Horizon,
    ) -> Result<Self, ScheduleError> {
        let mut first = Recursion {
            iteration: 0,
            rates: initial.to_vec(),
            schedulers: Vec::new(),
            observed: 0,
        };
        let mut initial = initial.to_vec();
        for (index, config) in configs.iter().enumerate() {
            let mut scheduler = Scheduler::new(config, &initial, horizon)
                .map_err(|message| ScheduleError { index, message })?;
            if let Curve::OneCycle(cycle) = &scheduler.curve {
                // As in mmengine, a cycle's first rate is what later schedulers take for the
                // optimizer's.
                initial.fill(cycle.initial);
                scheduler.initial.clone_from(&initial);
            }
            scheduler.step(&mut first.rates);
            first.schedulers.push(scheduler);
        }
        let epoch_length =
            horizon.max_epochs.and(Some(horizon.epoch_length)).filter(|&length| length > 0);
        Ok(Self { epoch_length, current: first.clone(), first, observations: Vec::new() })
    }

    /// The rates of an iteration, counted from 0, in the order of the initial ones. The next
    /// iteration is one step from here; any other costs the steps from here, or from the start.
    pub fn rates(&mut self, iteration: u64) -> Vec<f64> {
        if iteration < self.current.iteration {
            self.current = self.first.clone();
        }
        while self.current.iteration < iteration {
            self.current.iteration += 1;
            self.advance(false);
            if self.epoch_length.is_some_and(|length| self.current.iteration.is_multiple_of(length))
            {
                self.advance(true);
            }
            self.take_in();
        }
        self.current.rates.clone()
    }

    fn advance(&mut self, by_epoch: bool) {
        let Recursion { schedulers, rates, .. } = &mut self.current;
        schedulers.iter_mut().filter(|it| it.by_epoch == by_epoch).for_each(|it| it.step(rates));
    }

    /// Takes in what the validation after the current iteration measured.
    fn take_in(&mut self) {
        let Recursion { iteration, rates, schedulers, observed } = &mut self.current;
        while let Some(observation) =
            self.observations.get(*observed).filter(|it| it.after <= *iteration)
        {
            *observed += 1;
            let watching = schedulers.iter_mut().filter(|it| it.monitor().is_some());
            watching
                .zip(&observation.values)
                .for_each(|(it, value)| it.observe(value.unwrap_or(f64::NAN), rates));
        }
    }

    /// The metrics that schedulers watch, with the schedulers' places in the list.
    pub fn monitors(&self) -> impl Iterator<Item = (usize, &str)> {
        self.first
            .schedulers
            .iter()
            .enumerate()
            .filter_map(|(index, it)| Some((index, it.monitor()?)))
    }

    /// Takes in what the validation after so many finished iterations measured; a metric by its
    /// name.
    pub fn observe(&mut self, after: u64, metric: impl Fn(&str) -> Option<f64>) {
        let values: Vec<_> =
            self.monitors().map(|(_, name)| metric(name).filter(|it| it.is_finite())).collect();
        if !values.is_empty() {
            self.observations.push(Observation { after, values });
            self.take_in();
        }
    }

    /// What was measured so far: all that a schedule has to keep.
    pub fn observations(&self) -> &[Observation] {
        &self.observations
    }

    /// Goes on after these observations.
    pub fn restore(&mut self, observations: Vec<Observation>) {
        self.observations = observations;
        self.current = self.first.clone();
    }
}

impl Scheduler {
    fn new(
        config: &ParamSchedulerConfig,
        initial: &[f64],
        horizon: Horizon,
    ) -> Result<Self, String> {
        let span = config.span();
        let default_end =
            if span.by_epoch { horizon.max_epochs.unwrap_or(1) } else { horizon.max_iters };
        let unit = match (span.convert, span.by_epoch) {
            (false, _) => 1,
            (true, true) if horizon.epoch_length > 0 => horizon.epoch_length,
            (true, true) => {
                return Err("`convert_to_iter_based` needs to know how long an epoch is".to_owned());
            }
            (true, false) => {
                return Err("`convert_to_iter_based` needs `by_epoch: true`".to_owned());
            }
        };
        let (begin, end) =
            (span.begin.saturating_mul(unit), span.end.unwrap_or(default_end).saturating_mul(unit));
        if end <= begin {
            return Err(format!(
                "`end` is {end} and `begin` {begin}, expected an `end` above `begin`"
            ));
        }
        let by_epoch = span.by_epoch && !span.convert;
        let curve = config.curve(end - begin, unit)?;
        Ok(Self { curve, initial: initial.to_vec(), begin, end, by_epoch, seen: 0, taken: 0 })
    }

    fn step(&mut self, rates: &mut [f64]) {
        if (self.begin..self.end).contains(&self.seen) {
            for (rate, initial) in rates.iter_mut().zip(&self.initial) {
                *rate = self.curve.next(*rate, *initial, self.taken);
            }
            self.taken += 1;
        }
        self.seen += 1;
    }

    fn monitor(&self) -> Option<&str> {
        match &self.curve {
            Curve::Plateau(plateau) => Some(plateau.monitor()),
            _ => None,
        }
    }

    /// Acts on what a validation measured.
    fn observe(&mut self, value: f64, rates: &mut [f64]) {
        // The first step was none of a training's.
        let epochs = self.seen - 1;
        if let Curve::Plateau(plateau) = &mut self.curve
            && (self.begin..self.end).contains(&epochs)
        {
            plateau.observe(value, rates);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

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
        /// What validations measured, by finished iterations.
        #[serde(default)]
        measured: Vec<(u64, f64)>,
        /// The rates of sampled iterations, one a group.
        rates: Vec<(u64, Vec<f64>)>,
    }

    #[test]
    fn every_schedule_gives_mmengines_rates() {
        let cases: BTreeMap<String, Golden> = serde_json::from_str(GOLDEN).expect("golden rates");
        assert!(cases.len() >= 30);
        for (name, case) in cases {
            let configs: Vec<ParamSchedulerConfig> =
                parse_str(&case.config.to_string()).expect("a param_scheduler");
            let max_epochs = case.epochs.then_some(case.max_epochs);
            let horizon =
                Horizon { max_epochs, max_iters: case.max_iters, epoch_length: case.epoch_length };
            let mut schedule = Schedule::new(&configs, &case.initial, horizon).expect("a schedule");
            let mut measured = case.measured.into_iter().peekable();
            for (iteration, expected) in case.rates {
                while let Some((after, value)) = measured.next_if(|it| it.0 <= iteration) {
                    schedule.observe(after, |_| Some(value));
                }
                for (found, expected) in schedule.rates(iteration).iter().zip(&expected) {
                    let close = (found - expected).abs() <= 1e-9 * expected.abs();
                    assert!(close, "{name}, iteration {iteration}: {found} is not {expected}");
                }
            }
        }
    }

    #[test]
    fn any_iteration_can_be_asked_for_and_gives_the_same_bits() {
        let text = "[{type: LinearLR, start_factor: 0.1, end: 10, by_epoch: false}, \
                    {type: MultiStepLR, milestones: [2, 3]}]";
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
            parse_str("[{type: PolyLR, power: 0.9, eta_min: 1e-4, by_epoch: false}]")
                .expect("a schedule");
        let horizon = Horizon { max_epochs: None, max_iters: 1000, epoch_length: 10 };
        let mut schedule = Schedule::new(&configs, &[0.01], horizon).expect("a schedule");
        for iteration in 0..1000_u32 {
            let expected = (0.01 - 1e-4) * (1.0 - f64::from(iteration) / 999.0).powf(0.9) + 1e-4;
            assert!(
                (schedule.rates(u64::from(iteration))[0] - expected).abs() <= 1e-9 * expected,
                "{iteration}"
            );
        }
    }

    #[test]
    fn what_cannot_be_names_its_entry() {
        let horizon = Horizon { max_epochs: None, max_iters: 100, epoch_length: 10 };
        let error = |text: &str| {
            let configs: Vec<ParamSchedulerConfig> = parse_str(text).expect("a config");
            Schedule::new(&configs, &[0.1], horizon).expect_err("refused").to_string()
        };
        let text = error(
            "[{type: PolyLR, by_epoch: false}, \
             {type: LinearLR, start_factor: 2.0, by_epoch: false}]",
        );
        assert_eq!(text, "param_scheduler.1: `start_factor` is 2, expected a number from 0 to 1");
        assert!(
            error("[{type: PolyLR, begin: 200, by_epoch: false}]")
                .contains("expected an `end` above `begin`")
        );
        assert!(
            error("[{type: PolyLR, by_epoch: false, convert_to_iter_based: true}]")
                .contains("by_epoch: true")
        );
    }
}
