//! One test binary: it starts the real program, as a user would. See `harness`.

mod accelerators;
mod amp;
mod architecture;
mod bad_input;
mod cluster;
mod convert;
mod golden;
mod group;
mod harness;
mod keeping;
mod launchers;
mod learning;
mod losses;
mod memory_format;
mod mistakes;
mod pretrained;
mod ranks;
mod readme;
mod resume;
mod slurm_jobs;
mod slurm_places;
mod slurm_templates;
mod slurm_training;
mod training;
mod two_ranks;
mod viewer;
