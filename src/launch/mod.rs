//! Where the ranks of a run are started, and what is shown afterwards.

pub mod local;
pub mod slurm;
pub mod viewer;
