//! What can be wrong with a model before it runs.

use thiserror::Error;

use crate::exit::{Exit, Exits};

/// Why a model could not be built or fed.
#[derive(Debug, Error)]
pub enum ModelError {
    /// Values of the config that contradict each other or that no model has; `key` is a path below
    /// `model`.
    #[error("model.{key}: {problem}")]
    Config { key: String, problem: String },
    /// Images or labels that the model cannot take.
    #[error("{0}")]
    Input(String),
}

impl ModelError {
    /// A fault at `key`, a path below the component that tells of it.
    pub fn config(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Config { key: key.into(), problem: problem.into() }
    }

    /// The same error seen from the section `outer`, one level further out.
    pub(crate) fn within(self, outer: &str) -> Self {
        match self {
            Self::Config { key, problem } if key.is_empty() => {
                Self::Config { key: outer.to_owned(), problem }
            }
            Self::Config { key, problem } => {
                Self::Config { key: format!("{outer}.{key}"), problem }
            }
            other @ Self::Input(_) => other,
        }
    }
}

impl Exits for ModelError {
    fn exit(&self) -> Exit {
        match self {
            Self::Config { .. } => Exit::Config,
            Self::Input(_) => Exit::Data,
        }
    }
}
