//! What can be wrong with a checkpoint.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a checkpoint could not be read, written or used.
#[derive(Debug, Error)]
pub enum CheckpointError {
    #[error("checkpoint {}: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    /// Not a checkpoint, or not all of one.
    #[error("checkpoint {} cannot be read: {problem}", path.display())]
    Damaged { path: PathBuf, problem: String },
    #[error("cannot write the checkpoint {}: {source}; nothing was left behind", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// The checkpoint is of another model.
    #[error(
        "{name} has shape {found:?} in the checkpoint and {expected:?} in the model; it is a checkpoint of another model or config"
    )]
    Shape { name: String, expected: Vec<i64>, found: Vec<i64> },
    /// Not one tensor of the checkpoint is the model's.
    #[error("no tensor of the checkpoint is one of the model's; the checkpoint has {found}, the model {expected}")]
    Foreign { found: String, expected: String },
}

impl CheckpointError {
    pub(super) fn damaged(path: &Path, problem: impl ToString) -> Self {
        Self::Damaged { path: path.to_owned(), problem: problem.to_string() }
    }

    pub(super) fn open(path: &Path, source: io::Error) -> Self {
        Self::Open { path: path.to_owned(), source }
    }

    pub(super) fn write(path: &Path, source: io::Error) -> Self {
        Self::Write { path: path.to_owned(), source }
    }
}

/// The first bytes of a file, which tell formats apart.
pub(super) fn first_bytes(path: &Path) -> Result<Vec<u8>, CheckpointError> {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(16).read_to_end(&mut start));
    read.map_err(|source| CheckpointError::open(path, source))?;
    Ok(start)
}
