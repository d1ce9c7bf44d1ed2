//! The config's `model_wrapper_cfg`, with mmengine's and torch's names.

use serde::Deserialize;

use super::DdpOptions;
use crate::config::Typed;

/// `type: MMDistributedDataParallel`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WrapperConfig {
    /// Mebibytes of gradients that travel together.
    #[serde(deserialize_with = "crate::config::above_zero")]
    pub bucket_cap_mb: f64,
    /// Send gradients while the backward pass makes the next ones. `false` is for measuring what
    /// that gains.
    pub overlap: bool,
    /// Parameters without gradients are found in any case, at no cost.
    pub find_unused_parameters: bool,
    /// As `find_unused_parameters`.
    pub static_graph: bool,
    /// Gradients are views of the buckets in any case.
    pub gradient_as_bucket_view: bool,
    /// Buffers (running statistics) are rank 0's at the start; which ranks' they are later matters
    /// only to checkpoints, which rank 0 writes. Only `false`, mmengine's default, is there.
    pub broadcast_buffers: OnlyFalse,
}

impl Typed for WrapperConfig {
    const TYPES: &'static [&'static str] = &["MMDistributedDataParallel"];
}

impl Default for WrapperConfig {
    fn default() -> Self {
        Self {
            bucket_cap_mb: 25.0,
            overlap: true,
            find_unused_parameters: false,
            static_graph: false,
            gradient_as_bucket_view: true,
            broadcast_buffers: OnlyFalse,
        }
    }
}

impl WrapperConfig {
    /// The first bucket is small, so that the network has work early.
    pub fn options(&self) -> DdpOptions {
        let bytes = |mebibytes: f64| (mebibytes.max(0.0) * f64::from(1 << 20)) as usize;
        DdpOptions {
            bucket_bytes: bytes(self.bucket_cap_mb),
            first_bucket_bytes: bytes(self.bucket_cap_mb.min(1.0)),
            overlap: self.overlap,
        }
    }
}

/// A switch that cannot be turned on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "bool")]
pub struct OnlyFalse;

impl TryFrom<bool> for OnlyFalse {
    type Error = &'static str;

    fn try_from(on: bool) -> Result<Self, Self::Error> {
        if on {
            Err("true is not supported: use SyncBN to have one running statistic on all ranks")
        } else {
            Ok(Self)
        }
    }
}
