//! Stochastic gradient descent with momentum, as `torch.optim.SGD` defines it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::state::{Slot, StateError, slots_of};
use crate::ops::update::{SgdStep as Step, fused_sgd};
use crate::ops::{Handle, NativeError};
use crate::weights::{PerWeight, WeightId, Weights};

/// The keys of `optimizer: {type: SGD}`, with torch's defaults.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct SgdConfig {
    #[serde(default = "crate::config::default::ratio::<1, 1000>")]
    #[serde(deserialize_with = "crate::config::not_negative")]
    pub lr: f64,
    #[serde(default)]
    #[serde(deserialize_with = "crate::config::not_negative")]
    pub momentum: f64,
    #[serde(default)]
    #[serde(deserialize_with = "crate::config::finite")]
    pub dampening: f64,
    /// None is 0; but mmengine wants it written where `paramwise_cfg` multiplies it.
    #[serde(default)]
    #[serde(deserialize_with = "crate::config::not_negative")]
    pub weight_decay: Option<f64>,
    #[serde(default)]
    pub nesterov: bool,
}

const SLOTS: [&str; 1] = ["momentum_buffer"];

#[derive(Debug)]
pub(super) struct Sgd {
    config: SgdConfig,
    /// Filled by each parameter's first step.
    buffers: PerWeight<Handle>,
}

impl Sgd {
    pub(super) fn new(config: &SgdConfig, weights: &Weights) -> Self {
        Self { config: config.clone(), buffers: PerWeight::new(weights) }
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
        let SgdConfig { momentum, dampening, nesterov, .. } = self.config;
        let step = Step { lr, weight_decay, momentum, dampening, nesterov, first: false };
        if momentum == 0.0 {
            return fused_sgd(params, grads, &[], &step, found_inf);
        }
        // Without dampening a first step equals a later one from zeros, which also survives a
        // skipped step. With dampening the first gradient counts in full, so first steps go apart,
        // and a skipped one must stay a first.
        let new: Vec<bool> = ids.iter().map(|&id| self.buffers.get(id).is_none()).collect();
        let skipped = || found_inf.is_some_and(|it| it.number() != 0.0);
        if dampening != 0.0 && new.contains(&true) && skipped() {
            return Ok(());
        }
        for (&id, param) in ids.iter().zip(params) {
            self.buffers.place(id).get_or_insert_with(|| param.zeros());
        }
        let of =
            |first: bool| -> Vec<usize> { (0..ids.len()).filter(|&at| new[at] == first).collect() };
        let halves = if dampening == 0.0 {
            [((0..ids.len()).collect(), false), (Vec::new(), true)]
        } else {
            [(of(false), false), (of(true), true)]
        };
        for (places, first) in halves {
            let (params, grads): (Vec<&Handle>, Vec<&Handle>) =
                places.iter().map(|&at| (params[at], grads[at])).unzip();
            let buffers: Vec<&Handle> =
                places.iter().filter_map(|&at| self.buffers.get(ids[at])).collect();
            fused_sgd(&params, &grads, &buffers, &Step { first, ..step }, found_inf)?;
        }
        Ok(())
    }

    pub(super) fn slots(&self) -> Vec<Slot> {
        slots_of(SLOTS[0], &self.buffers)
    }

    pub(super) fn load(
        &mut self,
        id: WeightId,
        param: &Handle,
        values: &BTreeMap<String, &Handle>,
    ) -> Result<(), StateError> {
        super::state::known(values, if self.config.momentum == 0.0 { &[] } else { &SLOTS }, "SGD")?;
        self.buffers.set(id, super::state::value(values, SLOTS[0], param)?);
        Ok(())
    }
}
