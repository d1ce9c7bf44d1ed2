//! One test binary: it starts the real program, as a user would. See `harness`.

mod architecture;
mod bad_input;
mod cluster;
mod group;
mod harness;
mod launchers;
mod ranks;
mod resume;
mod slurm_places;
mod slurm_training;
mod training;
