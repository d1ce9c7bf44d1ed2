//! What a run writes into a checkpoint besides tensors, and takes out again.

use serde::{Deserialize, Serialize};

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
    pub(super) best: Option<(f64, String)>,
    /// The loss scale of mixed precision.
    #[serde(default)]
    pub(super) scaler: Option<ScalerState>,
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
            let message = format!(
                "{} holds weights but no state of a training ({error}): start from it with load_from, without --resume",
                path.display()
            );
            Failure::new(Exit::Data, message)
        })
    }
}
