//! Stochastic gradient descent with momentum, as `torch.optim.SGD` defines it.

use std::collections::BTreeMap;

use segslurm_native::NativeError;
use segslurm_native::optim::{Sgd as Step, fused_sgd};
use serde::Deserialize;
use tch::Tensor;

use super::state::{Slot, StateError, slots_of};

/// The keys of `optimizer: {type: SGD}`, with torch's defaults.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct SgdConfig {
    #[serde(default = "default_lr")]
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

fn default_lr() -> f64 {
    1e-3
}

const SLOTS: [&str; 1] = ["momentum_buffer"];

#[derive(Debug)]
pub(super) struct Sgd {
    config: SgdConfig,
    /// One place a parameter; filled by its first step.
    buffers: Vec<Option<Tensor>>,
}

impl Sgd {
    pub(super) fn new(config: &SgdConfig, n_params: usize) -> Self {
        Self { config: config.clone(), buffers: (0..n_params).map(|_| None).collect() }
    }

    /// One step of the parameters at `indices`, which share `lr` and `weight_decay`. `params` and `grads` belong to them.
    pub(super) fn step(
        &mut self,
        indices: &[usize],
        params: &[&Tensor],
        grads: &[&Tensor],
        (lr, weight_decay): (f64, f64),
        found_inf: Option<&Tensor>,
    ) -> Result<(), NativeError> {
        let SgdConfig { momentum, dampening, nesterov, .. } = self.config;
        let step = Step { lr, weight_decay, momentum, dampening, nesterov, first: false };
        if momentum == 0.0 {
            return fused_sgd(params, grads, &[], &step, found_inf);
        }
        // Without dampening a first step equals a later one from zeros, which also survives a skipped step. With dampening
        // the first gradient counts in full, so first steps go apart, and a skipped one must stay a first.
        let new: Vec<bool> = indices.iter().map(|&index| self.buffers[index].is_none()).collect();
        let skipped = || found_inf.is_some_and(|it| it.double_value(&[]) != 0.0);
        if dampening != 0.0 && new.contains(&true) && skipped() {
            return Ok(());
        }
        for (&index, param) in indices.iter().zip(params) {
            self.buffers[index].get_or_insert_with(|| param.zeros_like());
        }
        let of = |first: bool| -> Vec<usize> { (0..indices.len()).filter(|&at| new[at] == first).collect() };
        let halves = if dampening == 0.0 {
            [((0..indices.len()).collect(), false), (Vec::new(), true)]
        } else {
            [(of(false), false), (of(true), true)]
        };
        for (places, first) in halves {
            let pick = |list: &[&Tensor]| places.iter().map(|&at| list[at].shallow_clone()).collect::<Vec<_>>();
            let (params, grads) = (pick(params), pick(grads));
            let buffers: Vec<&Tensor> = places.iter().filter_map(|&at| self.buffers[indices[at]].as_ref()).collect();
            fused_sgd(
                &params.iter().collect::<Vec<_>>(),
                &grads.iter().collect::<Vec<_>>(),
                &buffers,
                &Step { first, ..step },
                found_inf,
            )?;
        }
        Ok(())
    }

    pub(super) fn slots(&self) -> Vec<Slot> {
        slots_of(SLOTS[0], &self.buffers)
    }

    pub(super) fn load(&mut self, index: usize, param: &Tensor, values: &BTreeMap<String, &Tensor>) -> Result<(), StateError> {
        super::state::known(values, if self.config.momentum == 0.0 { &[] } else { &SLOTS }, "SGD")?;
        self.buffers[index] = super::state::value(values, SLOTS[0], param)?;
        Ok(())
    }
}
