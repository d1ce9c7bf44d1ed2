//! Processes that talk: the ranks of a run, how they find each other, and what they compute
//! together.
//!
//! The collectives are libtorch's own (c10d over NCCL or Gloo). Around them this module puts what
//! c10d leaves out: who is missing when a rank does not come ([`rendezvous`]), who is gone when one
//! dies or hangs ([`lifeline`]), and whether all ranks are about to train the same thing
//! ([`Group::agree`]).

mod accelerator;
mod agreement;
mod config;
mod group;
pub(crate) mod handoff;
mod launcher;
mod lifeline;
mod rendezvous;
mod tether;

pub use accelerator::Accelerator;
pub(crate) use accelerator::{card, libtorch, never_uses_gpus};
pub use config::{Backend, DistConfig};
pub(crate) use group::{Answer, Pending, Traffic};
pub use group::{Group, Reduce};
pub(crate) use handoff::Handoff;
pub use launcher::{Launched, Launcher};
pub use rendezvous::join;
pub(crate) use rendezvous::listen;
pub(crate) use segslurm_native::collective::libtorch_version;
pub(crate) use segslurm_native::cuda::libtorch_folder;
pub(crate) use tether::tether;

use crate::exit::{Exit, Exits};
use crate::variables::VariableError;

/// Reads what another process might send, as the rendezvous and the lifeline read it; for `make
/// fuzz`.
#[doc(hidden)]
pub fn overheard(bytes: &[u8], world: usize) -> String {
    let roster = rendezvous::Roster::read(bytes, world)
        .map_or_else(|error| error, |_| "a roster".to_owned());
    let arrival = serde_json::from_slice::<rendezvous::Arrival>(bytes)
        .map_or_else(|error| error.to_string(), |_| "an arrival".to_owned());
    let mut lines = lifeline::Lines::default();
    let mut said = Vec::new();
    for part in bytes.chunks(7) {
        if lines.push(part).is_some() {
            said.extend(
                lines.take().iter().map(|line| format!("{:?}", lifeline::Line::parse(line))),
            );
        }
    }
    format!("{roster}; {arrival}; {}", said.join(", "))
}

/// Why ranks could not meet or could not go on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DistError {
    /// The launcher's variables are missing or contradict each other.
    #[error("{0}")]
    Launcher(String),
    /// GPUs were given and cannot be used.
    #[error("{0}")]
    Accelerator(String),
    /// A rank did not come, a port is taken, the backend does not fit the machine.
    #[error("{0}")]
    Rendezvous(String),
    /// The ranks came, but they are about to do different things.
    #[error("{0}")]
    Disagreement(String),
    /// A rank died, failed or hangs; or libtorch refused a collective.
    #[error("{0}")]
    Collective(String),
}

impl From<VariableError> for DistError {
    fn from(error: VariableError) -> Self {
        Self::Launcher(error.to_string())
    }
}

impl Exits for DistError {
    fn exit(&self) -> Exit {
        match self {
            Self::Launcher(_) => Exit::Usage,
            Self::Disagreement(_) => Exit::Config,
            Self::Accelerator(_) | Self::Rendezvous(_) | Self::Collective(_) => Exit::Unavailable,
        }
    }
}
