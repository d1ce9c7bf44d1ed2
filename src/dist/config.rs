//! The config's `env_cfg.dist_cfg` section.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Which library carries the collectives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// GPUs, each rank its own.
    Nccl,
    /// CPUs; also GPUs, through host memory.
    Gloo,
}

/// `env_cfg.dist_cfg`, with mmengine's names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DistConfig {
    /// `nccl` or `gloo`; without it NCCL when every rank has a GPU of its own, else Gloo.
    pub backend: Option<Backend>,
    /// The port to meet at, where the launcher's variables name none.
    pub port: Option<u16>,
    /// Seconds that a collective may take before the run is stopped.
    #[serde(deserialize_with = "crate::config::above_zero")]
    pub timeout: f64,
    /// Seconds to wait for all ranks at the start.
    #[serde(deserialize_with = "crate::config::above_zero")]
    pub rendezvous_timeout: f64,
}

impl Default for DistConfig {
    fn default() -> Self {
        Self { backend: None, port: None, timeout: 1800.0, rendezvous_timeout: 300.0 }
    }
}

impl DistConfig {
    pub(super) fn timeout(&self) -> Duration {
        seconds(self.timeout)
    }

    pub(super) fn rendezvous_timeout(&self) -> Duration {
        seconds(self.rendezvous_timeout)
    }
}

/// From a millisecond to ten years: what is outside is a slip of the pen, and c10d would count it
/// as "for ever" or "now".
fn seconds(value: f64) -> Duration {
    Duration::from_secs_f64(if value.is_nan() { 1800.0 } else { value.clamp(1e-3, 3.2e8) })
}
