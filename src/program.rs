//! segslurm with components of one's own: a program that depends on this library registers them and hands over.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::cli;
use crate::config::{Both, register};
use crate::data::{BaseSegDataset, Kind, OwnDataset, RunTransform};
use crate::models::Loss;
use crate::models::contract::{BackboneSpec, HeadKeys, HeadSpec};
use crate::models::head::DecodeConfig;

/// The program, and what it knows beside segslurm's own components. A `type:` that segslurm has too is then the registered one's.
///
/// ```no_run
/// # #[derive(Debug, serde::Deserialize)] struct Grey {}
/// # impl segslurm::data::RunTransform for Grey {
/// #     fn apply(&self, _: &mut segslurm::data::Frame, _: &mut segslurm::data::Pcg64) -> Result<(), segslurm::data::DataError> { Ok(()) }
/// # }
/// fn main() -> std::process::ExitCode {
///     segslurm::Program::new().transform::<Grey>("Grey").run(std::env::args_os())
/// }
/// ```
#[derive(Debug, Default)]
pub struct Program(());

impl Program {
    pub fn new() -> Self {
        Self::default()
    }

    /// A step of pipelines, `type: NAME`, whose other keys are `T`'s.
    #[must_use]
    pub fn transform<T: RunTransform + DeserializeOwned + 'static>(self, name: &'static str) -> Self {
        register::<T, dyn RunTransform>(name, |it| Arc::new(it));
        self
    }

    /// A loss for `loss_decode`, `type: NAME`, whose other keys are `T`'s.
    #[must_use]
    pub fn loss<T: Loss + DeserializeOwned + 'static>(self, name: &'static str) -> Self {
        register::<T, dyn Loss>(name, |it| Arc::new(it));
        self
    }

    /// A head for `decode_head` and `auxiliary_head`, `type: NAME`, whose keys are those of every head and `K`'s.
    #[must_use]
    pub fn head<K: HeadKeys + DeserializeOwned>(self, name: &'static str) -> Self {
        register::<Both<DecodeConfig, K>, dyn HeadSpec>(name, |it| Arc::new(it));
        self
    }

    /// A backbone, `type: NAME`, whose other keys are `T`'s.
    #[must_use]
    pub fn backbone<T: BackboneSpec + DeserializeOwned + 'static>(self, name: &'static str) -> Self {
        register::<T, dyn BackboneSpec>(name, |it| Arc::new(it));
        self
    }

    /// A folder dataset whose classes and suffixes are known by its `type`; it has the keys of `BaseSegDataset`.
    #[must_use]
    pub fn dataset(self, kind: Kind) -> Self {
        register::<BaseSegDataset, OwnDataset>(kind.name, move |config| Arc::new(OwnDataset { kind, config }));
        self
    }

    /// Runs the command line and returns the process's exit code. Ranks are started from the same program.
    pub fn run(self, args: impl IntoIterator<Item = OsString>) -> ExitCode {
        cli::run(args)
    }
}
