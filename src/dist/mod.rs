//! (in progress)

/// Placeholder until the collectives land.
#[derive(Debug, Clone)]
pub struct Group;
