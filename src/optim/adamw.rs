//! Adam and `AdamW`, as `torch.optim` defines them (Kingma and Ba 2015; Loshchilov and Hutter
//! 2019).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::state::{Slot, StateError, known, slots_of, value};
use crate::ops::update::{AdamState, AdamStep as Step, fused_adam};
use crate::ops::{Handle, NativeError};
use crate::weights::{PerWeight, WeightId, Weights};

/// The keys of `optimizer: {type: Adam}` and `{type: AdamW}`, with torch's defaults.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct AdamConfig {
    #[serde(default = "crate::config::default::ratio::<1, 1000>")]
    #[serde(deserialize_with = "crate::config::not_negative")]
    pub lr: f64,
    #[serde(default = "default_betas")]
    #[serde(deserialize_with = "crate::config::below_one")]
    pub betas: [f64; 2],
    #[serde(default = "crate::config::default::ratio::<1, 100000000>")]
    #[serde(deserialize_with = "crate::config::not_negative")]
    pub eps: f64,
    /// None is torch's default: 0 for Adam, 0.01 for `AdamW`.
    #[serde(default)]
    #[serde(deserialize_with = "crate::config::not_negative")]
    pub weight_decay: Option<f64>,
    #[serde(default)]
    pub amsgrad: bool,
}

fn default_betas() -> [f64; 2] {
    [0.9, 0.999]
}

const SLOTS: [&str; 4] = ["exp_avg", "exp_avg_sq", "step", "max_exp_avg_sq"];

#[derive(Debug)]
pub(super) struct Adam {
    config: AdamConfig,
    decoupled: bool,
    /// One place a parameter in each; filled by its first step.
    exp_avgs: PerWeight<Handle>,
    exp_avg_sqs: PerWeight<Handle>,
    steps: PerWeight<Handle>,
    max_exp_avg_sqs: PerWeight<Handle>,
}

impl Adam {
    pub(super) fn new(config: &AdamConfig, decoupled: bool, weights: &Weights) -> Self {
        let places = || PerWeight::new(weights);
        let (exp_avgs, exp_avg_sqs, steps, max_exp_avg_sqs) =
            (places(), places(), places(), places());
        Self { config: config.clone(), decoupled, exp_avgs, exp_avg_sqs, steps, max_exp_avg_sqs }
    }

    /// One step of the parameters `ids`, which share `lr` and `weight_decay`. `params` and `grads`
    /// belong to them.
    pub(super) fn step(
        &mut self,
        ids: &[WeightId],
        params: &[&Handle],
        grads: &[&Handle],
        (lr, weight_decay): (f64, f64),
        found_inf: Option<&Handle>,
    ) -> Result<(), NativeError> {
        let AdamConfig { betas, eps, amsgrad, .. } = self.config;
        for (&id, param) in ids.iter().zip(params) {
            self.exp_avgs.place(id).get_or_insert_with(|| param.zeros());
            self.exp_avg_sqs.place(id).get_or_insert_with(|| param.zeros());
            self.steps.place(id).get_or_insert_with(|| param.step_counter());
            if amsgrad {
                self.max_exp_avg_sqs.place(id).get_or_insert_with(|| param.zeros());
            }
        }
        let state = AdamState {
            exp_avgs: pick(&self.exp_avgs, ids),
            exp_avg_sqs: pick(&self.exp_avg_sqs, ids),
            max_exp_avg_sqs: if amsgrad { pick(&self.max_exp_avg_sqs, ids) } else { Vec::new() },
            steps: pick(&self.steps, ids),
        };
        fused_adam(
            params,
            grads,
            &state,
            &Step { lr, betas, eps, weight_decay, decoupled: self.decoupled },
            found_inf,
        )
    }

    pub(super) fn slots(&self) -> Vec<Slot> {
        let lists = [&self.exp_avgs, &self.exp_avg_sqs, &self.steps, &self.max_exp_avg_sqs];
        SLOTS.iter().zip(lists).flat_map(|(name, places)| slots_of(name, places)).collect()
    }

    pub(super) fn load(
        &mut self,
        id: WeightId,
        param: &Handle,
        values: &BTreeMap<String, &Handle>,
    ) -> Result<(), StateError> {
        let name = if self.decoupled { "AdamW" } else { "Adam" };
        let slots = if self.config.amsgrad { &SLOTS[..] } else { &SLOTS[..3] };
        known(values, slots, name)?;
        let step = param.step_counter();
        let kept = [
            value(values, SLOTS[0], param)?,
            value(values, SLOTS[1], param)?,
            value(values, SLOTS[2], &step)?,
            if self.config.amsgrad { value(values, SLOTS[3], param)? } else { None },
        ];
        if !values.is_empty()
            && let Some(at) = (0..slots.len()).find(|&at| kept[at].is_none())
        {
            return Err(StateError::Missing { slot: SLOTS[at], parameter: String::new() });
        }
        let [exp_avg, exp_avg_sq, step, maximum] = kept;
        self.exp_avgs.set(id, exp_avg);
        self.exp_avg_sqs.set(id, exp_avg_sq);
        self.steps.set(id, step);
        self.max_exp_avg_sqs.set(id, maximum);
        Ok(())
    }
}

fn pick<'a>(places: &'a PerWeight<Handle>, ids: &[WeightId]) -> Vec<&'a Handle> {
    ids.iter().filter_map(|&id| places.get(id)).collect()
}
