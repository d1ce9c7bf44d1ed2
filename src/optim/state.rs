//! The optimizer's running state as named tensors, which is how it goes into a checkpoint and comes
//! back.

use std::collections::BTreeMap;

use crate::exit::{Exit, Exits};
use crate::ops::Handle;
use crate::weights::{PerWeight, WeightId};

/// Why a state does not fit this optimizer.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error(
        "the optimizer state `{key}` belongs to no parameter that is trained; is this checkpoint \
         of another model?"
    )]
    NoParameter { key: String },
    #[error(
        "{optimizer} keeps no `{slot}`{}; was this checkpoint written with another optimizer, or \
         other settings of it?",
        of(parameter)
    )]
    NoSlot { optimizer: &'static str, slot: String, parameter: String },
    #[error("`{slot}`{} has shape {found:?}, expected {expected:?}", of(parameter))]
    Shape { slot: String, parameter: String, expected: Vec<i64>, found: Vec<i64> },
    #[error("`{slot}` is missing{}, although other state of it is there", of(parameter))]
    Missing { slot: &'static str, parameter: String },
}

fn of(parameter: &str) -> String {
    if parameter.is_empty() { String::new() } else { format!(" of `{parameter}`") }
}

impl Exits for StateError {
    fn exit(&self) -> Exit {
        Exit::Data
    }
}

impl StateError {
    pub(super) fn of(mut self, name: &str) -> Self {
        match &mut self {
            Self::NoParameter { .. } => {}
            Self::NoSlot { parameter, .. }
            | Self::Shape { parameter, .. }
            | Self::Missing { parameter, .. } => {
                name.clone_into(parameter);
            }
        }
        self
    }
}

/// One state tensor: of which parameter, under which name.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) of: WeightId,
    pub(super) name: &'static str,
    pub(super) tensor: Handle,
}

pub(super) fn slots_of(name: &'static str, places: &PerWeight<Handle>) -> Vec<Slot> {
    places.iter().map(|(of, tensor)| Slot { of, name, tensor: tensor.clone() }).collect()
}

/// Refuses names that the optimizer does not keep.
pub(super) fn known(
    values: &BTreeMap<String, &Handle>,
    slots: &[&str],
    optimizer: &'static str,
) -> Result<(), StateError> {
    match values.keys().find(|key| !slots.contains(&key.as_str())) {
        Some(slot) => {
            Err(StateError::NoSlot { optimizer, slot: slot.clone(), parameter: String::new() })
        }
        None => Ok(()),
    }
}

/// A copy of a state tensor, laid out as its parameter is, on its device.
pub(super) fn value(
    values: &BTreeMap<String, &Handle>,
    slot: &'static str,
    param: &Handle,
) -> Result<Option<Handle>, StateError> {
    let Some(found) = values.get(slot) else { return Ok(None) };
    if found.size() != param.size() {
        let (expected, found) = (param.size(), found.size());
        return Err(StateError::Shape {
            slot: slot.to_owned(),
            parameter: String::new(),
            expected,
            found,
        });
    }
    let mut place = param.zeros();
    place.assign(found);
    Ok(Some(place))
}
