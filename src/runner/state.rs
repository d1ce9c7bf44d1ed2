//! What a run writes into a checkpoint besides tensors, and takes out again.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, de};

use super::progress::Progress;
use super::stopping::Seen;
use crate::exit::{Exit, Failure};
use crate::metrics::Window;
use crate::ops::ScalerState;
use crate::optim::Observation;

/// The state of a run between two iterations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct RunState {
    pub(super) progress: Progress,
    pub(super) seed: u64,
    /// Ranks of the run; resuming with another number is exact up to the order of data.
    pub(super) world: usize,
    /// Smoothed log values.
    pub(super) window: Window,
    /// The best value so far of each metric that `save_best` names, and its checkpoint's file name.
    #[serde(default, deserialize_with = "numbers_alone")]
    pub(super) best: Best,
    /// What the hooks that end a training early have seen.
    #[serde(default)]
    pub(super) stopping: Vec<Seen>,
    /// Iterations since the averages of an EMAHook began.
    #[serde(default)]
    pub(super) averaged: Option<u64>,
    /// What validations measured for schedules that watch it.
    #[serde(default)]
    pub(super) observed: Vec<Observation>,
    /// The loss scale of mixed precision.
    #[serde(default)]
    pub(super) scaler: Option<ScalerState>,
}

/// Best values by metric.
pub(super) type Best = BTreeMap<String, (f64, String)>;

/// Older versions kept the one metric that there could be, without its name: it is the `mIoU` of
/// `best_mIoU_iter_4`. And one that was not a number stands as `null` and never was any.
fn numbers_alone<'de, D: Deserializer<'de>>(from: D) -> Result<Best, D::Error> {
    let finite = |(value, file): (Option<f64>, String)| {
        value.filter(|it| it.is_finite()).map(|it| (it, file))
    };
    match serde_json::Value::deserialize(from)? {
        serde_json::Value::Null => Ok(Best::new()),
        one @ serde_json::Value::Array(_) => {
            let best = serde_json::from_value(one).map_err(de::Error::custom)?;
            Ok(finite(best).into_iter().filter_map(|it| Some((named_in(&it.1)?, it))).collect())
        }
        many => {
            let many: BTreeMap<String, (Option<f64>, String)> =
                serde_json::from_value(many).map_err(de::Error::custom)?;
            Ok(many.into_iter().filter_map(|(name, it)| Some((name, finite(it)?))).collect())
        }
    }
}

/// The metric in the name of a best checkpoint.
pub(super) fn named_in(file: &str) -> Option<String> {
    let rest = file.strip_prefix("best_")?;
    let end = ["_iter_", "_epoch_"].iter().filter_map(|it| rest.rfind(it)).max()?;
    Some(rest[..end].to_owned())
}

impl RunState {
    pub(super) fn to_map(&self) -> serde_json::Map<String, serde_json::Value> {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(map)) => map,
            _ => serde_json::Map::new(),
        }
    }

    /// Reads a checkpoint's map; one of mmseg's has none.
    pub(super) fn from_map(
        map: &serde_json::Map<String, serde_json::Value>,
        path: &std::path::Path,
    ) -> Result<Self, Failure> {
        serde_json::from_value(serde_json::Value::Object(map.clone())).map_err(|error| {
            let path = path.display();
            let message = format!(
                "{path} holds weights but no state of a training ({error}): --cfg-options \
                 load_from={path} without --resume begins a run from these weights, and --resume \
                 without load_from goes on with the work dir's own newest checkpoint"
            );
            Failure::new(Exit::Data, message)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_best_that_was_no_number_is_none() {
        let state = |best: serde_json::Value| {
            let progress = serde_json::json!({ "iteration": 4, "validation_due": false });
            let window = serde_json::json!({ "size": 10, "values": {} });
            let map = serde_json::json!({ "progress": progress, "seed": 1, "world": 1, "window": window, "best": best });
            let map = map.as_object().expect("a map").clone();
            RunState::from_map(&map, std::path::Path::new("iter_4.safetensors"))
                .expect("a state")
                .best
        };
        let file = "best_mIoU_iter_4.safetensors";
        let one = Best::from([("mIoU".to_owned(), (0.5, file.to_owned()))]);
        assert_eq!(state(serde_json::json!([null, file])), Best::new());
        assert_eq!(state(serde_json::Value::Null), Best::new());
        assert_eq!(state(serde_json::json!([0.5, file])), one);
        assert_eq!(state(serde_json::json!({ "mIoU": [0.5, file], "mDice": [null, "b"] })), one);
    }
}
