//! What a run writes into a checkpoint besides tensors, and takes out again.

use serde::{Deserialize, Deserializer, Serialize};

use super::progress::Progress;
use crate::exit::{Exit, Failure};
use crate::metrics::Window;
use crate::optim::ScalerState;

/// The state of a run between two iterations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct RunState {
    pub(super) progress: Progress,
    pub(super) seed: u64,
    /// Ranks of the run; resuming with another number is exact up to the order of data.
    pub(super) world: usize,
    /// Smoothed log values.
    pub(super) window: Window,
    /// The best value so far of the metric that `save_best` names, and its checkpoint's file name.
    #[serde(default, deserialize_with = "a_number_or_none")]
    pub(super) best: Option<(f64, String)>,
    /// The loss scale of mixed precision.
    #[serde(default)]
    pub(super) scaler: Option<ScalerState>,
}

/// Older versions kept a metric that was not a number as the best one; it stands as `null` and never was any.
fn a_number_or_none<'de, D: Deserializer<'de>>(from: D) -> Result<Option<(f64, String)>, D::Error> {
    let best = Option::<(Option<f64>, String)>::deserialize(from)?;
    Ok(best.and_then(|(value, file)| value.filter(|it| it.is_finite()).map(|it| (it, file))))
}

impl RunState {
    pub(super) fn to_map(&self) -> serde_json::Map<String, serde_json::Value> {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(map)) => map,
            _ => serde_json::Map::new(),
        }
    }

    /// Reads a checkpoint's map; one of mmseg's has none.
    pub(super) fn from_map(map: &serde_json::Map<String, serde_json::Value>, path: &std::path::Path) -> Result<Self, Failure> {
        serde_json::from_value(serde_json::Value::Object(map.clone())).map_err(|error| {
            let path = path.display();
            let message = format!(
                "{path} holds weights but no state of a training ({error}): --cfg-options load_from={path} without --resume begins a \
                 run from these weights, and --resume without load_from goes on with the work dir's own newest checkpoint"
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
            RunState::from_map(&map, std::path::Path::new("iter_4.safetensors")).expect("a state").best
        };
        assert_eq!(state(serde_json::json!([null, "best_mIoU_iter_4.safetensors"])), None);
        assert_eq!(state(serde_json::Value::Null), None);
        assert_eq!(state(serde_json::json!([0.5, "b"])), Some((0.5, "b".to_owned())));
    }
}
