//! How a run ends when nothing went wrong.

/// Finished, or stopped on request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Finished,
    /// Somebody asked; everything needed to go on is saved.
    Interrupted,
}
