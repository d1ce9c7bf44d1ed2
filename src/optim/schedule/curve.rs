//! A scheduler's rates, step by step, in mmengine's arithmetic.

use std::collections::BTreeMap;
use std::f64::consts::PI;

use super::config::{AnnealStrategy, OneCycleConfig};
use super::plateau::Plateau;

/// A scheduler's factor, with its lengths in steps.
#[derive(Debug, Clone)]
pub(super) enum Curve {
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
    /// Lengths of the cosines, and the share of the rate that each begins with.
    Restart {
        periods: Vec<(u64, f64)>,
        floor: Floor,
    },
    OneCycle(OneCycle),
    Plateau(Plateau),
}

impl Floor {
    fn of(self, initial: f64) -> f64 {
        match self {
            Self::Rate(rate) => rate,
            Self::Ratio(ratio) => initial * ratio,
        }
    }
}

/// A rise and a fall. The rates of the optimizer do not count.
#[derive(Debug, Clone)]
pub(super) struct OneCycle {
    /// The last step of each phase, which may lie between two, with the rates at its beginning and
    /// its end.
    phases: Vec<(f64, f64, f64)>,
    strategy: AnnealStrategy,
    /// The rate that the cycle begins with.
    pub(super) initial: f64,
}

impl OneCycle {
    pub(super) fn new(config: &OneCycleConfig, total: u64) -> Self {
        let initial = config.eta_max / config.div_factor;
        let (top, bottom) = (config.eta_max, initial / config.final_div_factor);
        let (total, rise) = (total as f64, config.pct_start * total as f64);
        let mut phases = vec![(rise - 1.0, initial, top)];
        if config.three_phase {
            phases.push((2.0 * rise - 2.0, top, initial));
            phases.push((total - 1.0, initial, bottom));
        } else {
            phases.push((total - 1.0, top, bottom));
        }
        Self { phases, strategy: config.anneal_strategy, initial }
    }

    fn at(&self, step: f64) -> f64 {
        let last = self.phases.len() - 1;
        let index = self.phases.iter().position(|it| step <= it.0).unwrap_or(last);
        let begin = if index == 0 { 0.0 } else { self.phases[index - 1].0 };
        let (end, from, to) = self.phases[index];
        // mmengine divides by 0 where a phase has no length.
        let share = if end == begin { 1.0 } else { (step - begin) / (end - begin) };
        match self.strategy {
            AnnealStrategy::Linear => (to - from) * share + from,
            AnnealStrategy::Cos => to + (from - to) / 2.0 * ((PI * share).cos() + 1.0),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Floor {
    Rate(f64),
    Ratio(f64),
}

impl Curve {
    /// The rate of step `step` (from 0 at `begin`), from the rate of the step before.
    pub(super) fn next(&self, rate: f64, initial: f64, step: u64) -> f64 {
        let at = step as f64;
        match *self {
            Self::Linear { start, .. } if step == 0 => rate * start,
            Self::Constant { factor, .. } if step == 0 => rate * factor,
            Self::MultiStep { ref milestones, gamma } => match milestones.get(&step) {
                Some(&times) => rate * gamma.powi(times),
                None => rate,
            },
            Self::OneCycle(ref cycle) => cycle.at(at),
            Self::Restart { ref periods, floor } => {
                let mut begin = 0;
                for &(length, weight) in periods {
                    match step - begin {
                        0 => return initial * weight,
                        step if step < length => {
                            return cosine(rate, floor.of(initial), step as f64, length as f64);
                        }
                        _ => begin += length,
                    }
                }
                rate
            }
            Self::Plateau(_) => rate,
            _ if step == 0 => rate,
            Self::Poly { eta_min, power, total } => {
                (rate - eta_min) * (1.0 - 1.0 / (total - at + 1.0)).powf(power) + eta_min
            }
            Self::Linear { start, end, total } => {
                rate * (1.0 + (end - start) / (total * start + (at - 1.0) * (end - start)))
            }
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
                let floor = floor.of(initial);
                let length = t_max as f64;
                if (step as i64 - 1 - t_max as i64) % (2 * t_max as i64) == 0 {
                    // The bottom of the cosine, where the quotient below is 0 over 0.
                    return rate + (initial - floor) * (1.0 - (PI / length).cos()) / 2.0;
                }
                cosine(rate, floor, at, length)
            }
        }
    }
}

/// The rate of a cosine's step `at`, from that of the step before.
fn cosine(rate: f64, floor: f64, at: f64, length: f64) -> f64 {
    (1.0 + (PI * at / length).cos()) / (1.0 + (PI * (at - 1.0) / length).cos()) * (rate - floor)
        + floor
}
