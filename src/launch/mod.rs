//! Where the ranks of a run are started, and what is shown afterwards.

pub(crate) mod local;
pub(crate) mod slurm;
pub(crate) mod viewer;
