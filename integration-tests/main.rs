//! One test binary: it starts the real program, as a user would. See `harness`.

#![allow(clippy::disallowed_methods, reason = "it looks at the program from outside")]

mod accelerators;
mod amp;
mod architecture;
mod bad_input;
mod cluster;
mod convert;
mod first_day;
mod golden;
mod group;
mod habits;
mod harness;
mod hooks;
mod keeping;
mod launchers;
mod learning;
mod losses;
mod memory_format;
mod mistakes;
mod mmengine;
mod pretrained;
mod ranks;
mod readme;
mod resume;
mod slurm_jobs;
mod slurm_places;
mod slurm_templates;
mod slurm_training;
mod training;
mod tutorial;
mod two_ranks;
mod unusable;
mod viewer;
mod waiting;
mod weights;
mod wrong_results;
