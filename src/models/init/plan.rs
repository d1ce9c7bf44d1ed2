//! Which values each tensor of a model gets: rule by rule, the last that names a layer winning;
//! then every tensor is filled once.

use super::InitConfig;
use super::fill::{Fill, write};
use crate::models::ModelError;
use crate::models::contract::Initial;
use crate::weights::{Role, Weights};

/// What the tensors of a model will be filled with.
pub(crate) struct InitPlan<'a> {
    weights: &'a Weights,
    fills: Vec<Option<Fill>>,
}

impl<'a> InitPlan<'a> {
    /// Begins with what each component said of its own.
    pub(crate) fn new(weights: &'a Weights, fills: Vec<Option<Fill>>) -> Self {
        Self { weights, fills }
    }

    /// Applies one rule to the tensors below `prefix`.
    fn apply(&mut self, rule: &InitConfig, prefix: &str) {
        let Some(target) = rule.target() else { return };
        for (tensor, fill) in self.weights.iter().zip(&mut self.fills) {
            let Some(inner) = tensor.name.strip_prefix(prefix) else { continue };
            let owner = inner.rsplit_once('.').map_or("", |(owner, _)| owner);
            let chosen = target.layer.iter().any(|it| it.is(tensor.layer))
                || target.only.iter().any(|it| owner == it.name);
            if chosen && tensor.role == Role::Parameter {
                *fill = rule.fill(tensor);
            }
        }
    }

    /// Sets the weights and biases of layers whose name below `prefix` ends with `suffix` to zero.
    fn zero(&mut self, prefix: &str, suffix: &str) {
        for (tensor, fill) in self.weights.iter().zip(&mut self.fills) {
            let owner = tensor
                .name
                .strip_prefix(prefix)
                .and_then(|it| it.rsplit_once('.'))
                .map_or("", |(owner, _)| owner);
            if owner.ends_with(suffix) && tensor.role == Role::Parameter {
                *fill = Some(Fill::Constant(0.0));
            }
        }
    }

    /// Checks that every rule in `rules` reaches a tensor below `prefix`; the error names
    /// `init_cfg`.
    fn check(&self, rules: &[InitConfig], prefix: &str) -> Result<(), ModelError> {
        for rule in rules {
            for named in rule.target().into_iter().flat_map(|it| it.only.iter()) {
                let start = format!("{prefix}{}.", named.name);
                if !self.weights.iter().any(|it| it.name.starts_with(&start)) {
                    let problem = format!(
                        "override names `{}`, which this part of the model does not have",
                        named.name
                    );
                    return Err(ModelError::config("init_cfg", problem));
                }
            }
        }
        Ok(())
    }

    /// Applies a config's rules to the part of the model at `key`, or to the whole. The error names
    /// that part's `init_cfg`.
    pub(crate) fn follow(&mut self, rules: &[InitConfig], key: &str) -> Result<(), ModelError> {
        let prefix = if key.is_empty() { String::new() } else { format!("{key}.") };
        self.check(rules, &prefix)
            .map_err(|it| if key.is_empty() { it } else { it.within(key) })?;
        rules.iter().for_each(|rule| self.apply(rule, &prefix));
        Ok(())
    }

    /// What the part of the model at `key` begins as: by its config's rules, else by its
    /// component's.
    pub(crate) fn begin(
        &mut self,
        key: &str,
        own: Option<&[InitConfig]>,
        initial: Initial,
    ) -> Result<(), ModelError> {
        let Some(own) = own else {
            self.follow(&initial.rules, key)?;
            if let Some(suffix) = initial.zeros {
                self.zero(&format!("{key}."), suffix);
            }
            return Ok(());
        };
        self.follow(own, key)
    }

    /// Fills every planned tensor.
    pub(crate) fn execute(self, seed: u64) {
        for (tensor, fill) in self.weights.iter().zip(self.fills) {
            if let Some(fill) = fill {
                write(tensor, fill, seed);
            }
        }
    }
}
