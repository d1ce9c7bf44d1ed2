//! From gradients to new weights: parameter groups, schedules, clipping, and torch's optimizers as
//! ATen's fused kernels.
//!
//! Weights are changed in place, through tensors that share the model's storage. Learning rates
//! come from outside at every step, so that a schedule is a pure function of the iteration and a
//! resume restores nothing of it.

mod accumulation;
mod adamw;
mod amp;
mod average;
mod clip;
mod layer_decay;
mod param_groups;
mod schedule;
mod sgd;
mod state;
mod wrapper;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::ops::{GradScaler, Handle, NativeError};
use crate::weights::{PerWeight, WeightId, Weights};

pub(crate) use accumulation::{Accumulation, accumulate};
pub(crate) use amp::AmpDtype;
pub(crate) use average::{Average, Averaging};
pub(crate) use clip::ClipGradConfig;
pub(crate) use param_groups::ParamGroup;
pub(crate) use schedule::Observation;
pub use schedule::{Horizon, ParamSchedulerConfig, Schedule};
pub(crate) use state::StateError;
pub use wrapper::OptimWrapperConfig;
pub(crate) use wrapper::{OptimError, OptimizerConfig};

use adamw::Adam;
use clip::Clip;
use sgd::Sgd;
use state::Slot;

/// An optimizer over a model's parameters.
#[derive(Debug)]
pub struct Optimizer {
    weights: Weights,
    groups: Vec<ParamGroup>,
    rule: Rule,
    clip: Option<Clip>,
    base_lr: f64,
}

#[derive(Debug)]
enum Rule {
    Sgd(Sgd),
    Adam(Adam),
}

impl Optimizer {
    /// Checks the settings and sorts the parameters into groups.
    pub fn new(config: &OptimWrapperConfig, weights: &Weights) -> Result<Self, OptimError> {
        config.validate()?;
        let optimizer = config.optimizer();
        let (lr, decay) = (optimizer.lr(), optimizer.weight_decay());
        let default_decay = optimizer.default_weight_decay();
        let groups = match config.layer_decay()? {
            Some(layers) => layers.group(weights, lr, decay.unwrap_or(default_decay)),
            None => param_groups::group(weights, config.paramwise_cfg(), lr, decay, default_decay),
        };
        let rule = match optimizer {
            OptimizerConfig::SGD(it) => Rule::Sgd(Sgd::new(it, weights)),
            OptimizerConfig::Adam(it) => Rule::Adam(Adam::new(it, false, weights)),
            OptimizerConfig::AdamW(it) => Rule::Adam(Adam::new(it, true, weights)),
        };
        let clip = config
            .clip_grad()
            .map(ClipGradConfig::resolve)
            .transpose()
            .map_err(|text| OptimError(text.to_owned()))?;
        Ok(Self { weights: weights.clone(), groups, rule, clip, base_lr: optimizer.lr() })
    }

    /// The rate of each group before any schedule, and after them the optimizer's own, which logs
    /// call `base_lr`.
    pub fn initial_rates(&self) -> Vec<f64> {
        self.groups.iter().map(|group| group.lr).chain([self.base_lr]).collect()
    }

    /// Which parameters share a rate, in the order of the rates.
    pub fn groups(&self) -> &[ParamGroup] {
        &self.groups
    }

    /// The model's tensors, those that are not trained too.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// One step with the gradients that there are, and a rate for each group (what follows them is
    /// not looked at). With a scaler the gradients are unscaled first, and the step is skipped
    /// where one of them is not finite.
    ///
    /// Returns the norm of the gradients before clipping (`[]`, on the device) where norms are
    /// clipped.
    pub fn step(
        &mut self,
        grads: &PerWeight<Handle>,
        rates: &[f64],
        mut scaler: Option<&mut GradScaler>,
    ) -> Result<Option<Handle>, NativeError> {
        assert!(rates.len() >= self.groups.len(), "a rate for each parameter group");
        let all: Vec<&Handle> = grads.iter().map(|(_, it)| it).collect();
        let found_inf = match scaler.as_deref_mut() {
            Some(scaler) => Some(scaler.unscale(&all)?),
            None => None,
        };
        let norm = self.clip.map(|clip| clip.apply(&all)).transpose()?.flatten();
        for (group, &lr) in self.groups.iter().zip(rates) {
            let with_grad = group.params.iter().filter_map(|&id| Some((id, grads.get(id)?)));
            let (ids, grads): (Vec<WeightId>, Vec<&Handle>) = with_grad.unzip();
            if ids.is_empty() {
                continue;
            }
            let params: Vec<&Handle> = ids.iter().map(|&id| &self.weights[id].tensor).collect();
            let settings = (lr, group.weight_decay);
            match &mut self.rule {
                Rule::Sgd(it) => it.step(&ids, &params, &grads, settings, found_inf.as_ref())?,
                Rule::Adam(it) => it.step(&ids, &params, &grads, settings, found_inf.as_ref())?,
            }
        }
        if let Some(scaler) = scaler {
            scaler.update()?;
        }
        Ok(norm)
    }

    /// The state as tensors named `<parameter>.<slot>`, sharing the optimizer's storage.
    pub fn state(&self) -> BTreeMap<String, Handle> {
        let slots = match &self.rule {
            Rule::Sgd(it) => it.slots(),
            Rule::Adam(it) => it.slots(),
        };
        slots
            .into_iter()
            .map(|Slot { of, name, tensor }| (format!("{}.{name}", self.weights[of].name), tensor))
            .collect()
    }

    /// Goes on with a state that [`Optimizer::state`] gave, of the same parameters and the same
    /// kind of optimizer.
    pub fn load_state(&mut self, state: &BTreeMap<String, Handle>) -> Result<(), StateError> {
        let mut by_param: BTreeMap<&str, BTreeMap<String, &Handle>> = BTreeMap::new();
        for (key, tensor) in state {
            let (name, slot) = key.rsplit_once('.').unwrap_or((key, ""));
            by_param.entry(name).or_default().insert(slot.to_owned(), tensor);
        }
        let known = |key: &str| {
            self.weights
                .trained()
                .any(|(_, it)| key.rsplit_once('.').is_some_and(|(name, _)| name == it.name))
        };
        if let Some(key) = state.keys().find(|key| !known(key)) {
            return Err(StateError::NoParameter { key: key.clone() });
        }
        for (id, weight) in self.weights.trained() {
            let Some(values) = by_param.get(weight.name.as_str()) else { continue };
            let loaded = match &mut self.rule {
                Rule::Sgd(it) => it.load(id, &weight.tensor, values),
                Rule::Adam(it) => it.load(id, &weight.tensor, values),
            };
            loaded.map_err(|error| error.of(&weight.name))?;
        }
        Ok(())
    }
}
