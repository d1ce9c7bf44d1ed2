//! Everything needed to go on, as one value and one file: weights, optimizer, progress.
//!
//! Our files are safetensors: model tensors under mmseg's state-dict names, the optimizer's state
//! under `optimizer.`, and a JSON text in the header's metadata for the rest. They are written
//! beside their place, synced and renamed, and carry a checksum, so a checkpoint is whole or it is
//! not one. mmseg's `.pth` files are read and written too; pickle code is never run.

mod archive;
mod error;
mod identity;
mod load;
pub(crate) mod mmengine;
mod newest;
mod pickle;
mod pth;
mod safetensors;
mod source;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use error::CheckpointError;
pub(crate) use identity::{Beginning, CurrentRun, RunId};
pub(crate) use load::listed;
pub use load::{Fit, Report, load_into};
pub(crate) use newest::{
    Found, Naming, Survey, last_checkpoint, owner, prune, record_newest, set_aside,
};
pub(crate) use source::{Places, Source};

/// A state dict: tensors on the CPU by name.
pub type StateDict = BTreeMap<String, tch::Tensor>;

/// One checkpoint, in memory.
#[derive(Debug, Default)]
pub struct Checkpoint {
    /// The model's tensors, by mmseg's names.
    pub model: StateDict,
    /// The optimizer's state, by names of its own; empty in a file of mmseg's.
    pub optimizer: StateDict,
    /// The trained weights, where the model's tensors are their averages; empty otherwise.
    pub trained: StateDict,
    pub meta: Meta,
}

/// What a checkpoint holds besides tensors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// The run that wrote this; the unknown one in older files and in mmseg's.
    #[serde(default, skip_serializing_if = "RunId::is_unknown")]
    pub run_id: RunId,
    /// The classes and colours that the model was trained for.
    #[serde(default)]
    pub dataset_meta: DatasetMeta,
    /// The merged config, as YAML.
    #[serde(default)]
    pub config: Option<String>,
    /// The rest of a run's state, as its owners wrote it; empty in a file of mmseg's.
    #[serde(default)]
    pub run: serde_json::Map<String, Value>,
}

/// A tensor of these bytes; a shape that libtorch cannot hold is an error.
fn tensor_of(bytes: &[u8], shape: &[usize], kind: tch::Kind) -> Result<tch::Tensor, String> {
    // Sizes beside a zero count too: libtorch multiplies them for strides.
    let strides = shape
        .iter()
        .try_fold(1_i64, |product, &size| product.checked_mul(i64::try_from(size.max(1)).ok()?));
    let sizes: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
    let impossible = || format!("it has the shape {shape:?}, which no tensor can have");
    strides.ok_or_else(impossible)?;
    tch::Tensor::f_from_data_size(bytes, &sizes, kind).map_err(|_| impossible())
}

/// Where a run's state says how far it is.
const PROGRESS: &str = "progress";

impl Meta {
    /// Finished iterations of the run that wrote this, where a run did.
    fn iteration(&self) -> Option<i64> {
        self.run.get(PROGRESS)?.get("iteration")?.as_i64()
    }

    /// Whether nothing of a run's state is here, or no more than the number of iterations.
    pub fn is_weights_alone(&self) -> bool {
        self.run.keys().all(|key| key == PROGRESS)
    }
}

/// Classes and palette of a dataset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetMeta {
    pub classes: Vec<String>,
    pub palette: Vec<[u8; 3]>,
}

impl Checkpoint {
    /// Reads a checkpoint of ours or of mmseg's; the content decides which it is, not the name.
    pub fn read(path: &Path) -> Result<Self, CheckpointError> {
        let start = error::first_bytes(path)?;
        // The length of a safetensors header may look like the start of anything; the brace after
        // it does not.
        let ours = start.get(6..9) == Some(b"\0\0{");
        // A zip archive, and the two formats of torch before it: a pickle, and a tar.
        let torchs = start.starts_with(b"PK") || start.starts_with(&[0x80]);
        if !ours && (torchs || path.extension().is_some_and(|it| it == "pth" || it == "pt")) {
            return pth::read(path);
        }
        safetensors::read(path)
    }

    /// What is left for use without going on: weights, classes, config, and the number of
    /// iterations behind them.
    #[must_use]
    pub fn into_weights(mut self) -> Self {
        self.optimizer.clear();
        self.trained.clear();
        self.meta.run_id = RunId::default();
        self.meta.run.retain(|key, _| key == PROGRESS);
        self
    }

    /// Writes a checkpoint of ours, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), CheckpointError> {
        safetensors::write(self, path)
    }

    /// Writes the model as a `.pth` that `torch.load` reads with its default `weights_only=True`,
    /// and mmseg's tools with it.
    pub fn write_pth(&self, path: &Path) -> Result<(), CheckpointError> {
        pth::write(self, path)
    }
}
