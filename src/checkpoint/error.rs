//! What can be wrong with a checkpoint.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::load::Reshaped;
use crate::excerpt::line;
use crate::exit::{Exit, Exits};

/// Why a checkpoint could not be read, written or used.
#[derive(Debug, Error)]
pub enum CheckpointError {
    #[error("checkpoint {}: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    /// Not a checkpoint, or not all of one.
    #[error("checkpoint {} cannot be read: {}", path.display(), line(.problem))]
    Damaged { path: PathBuf, problem: String },
    #[error("cannot write the checkpoint {}: {source}; nothing was left behind", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// Tensors of the checkpoint have other shapes than the model's.
    #[error("the checkpoint does not fit the model: {}", shapes(tensors))]
    Shapes { tensors: Vec<Reshaped> },
    /// Not one tensor of the checkpoint is the model's.
    #[error(
        "no tensor of the checkpoint is one of the model's; the checkpoint has {found}, the model \
         {expected}{hint}"
    )]
    Foreign { found: String, expected: String, hint: &'static str },
    /// A checkpoint that should be on this machine, or come to it, and does not.
    #[error("the checkpoint {name}: {problem}")]
    Missing { name: String, problem: String },
    /// A fetched file whose content is not what its name promises.
    #[error("{}: sha256 starts with {found}, but the name promises {expected}; delete the file to \
             fetch it again", path.display())]
    Hash { path: PathBuf, expected: String, found: String },
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

impl Exits for CheckpointError {
    fn exit(&self) -> Exit {
        match self {
            Self::Open { source, .. } if source.kind() == io::ErrorKind::NotFound => Exit::NoInput,
            Self::Missing { .. } => Exit::NoInput,
            Self::Write { .. } => Exit::CannotWrite,
            _ => Exit::Data,
        }
    }
}

/// Every tensor with both shapes; of very many the first.
fn shapes(tensors: &[Reshaped]) -> String {
    const FEW: usize = 8;
    let mut parts: Vec<_> = tensors.iter().take(FEW).map(ToString::to_string).collect();
    if tensors.len() > FEW {
        parts.push(format!("and {} more tensors", tensors.len() - FEW));
    }
    parts.join("; ")
}

/// The first bytes of a file, which tell formats apart.
pub(super) fn first_bytes(path: &Path) -> Result<Vec<u8>, CheckpointError> {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(16).read_to_end(&mut start));
    read.map_err(|source| CheckpointError::open(path, source))?;
    Ok(start)
}
