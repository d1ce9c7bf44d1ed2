//! segslurm trains and tests semantic-segmentation models on Slurm clusters, with Burn on libtorch
//! doing the compute.
//!
//! The modules below are floors, ground first: a module may name only modules of lower floors,
//! never a sibling. `docs/architecture.md` is the map, and a test holds the rule.

// `println!` panics where nobody reads any more: what is printed goes through `terminal`.
#![warn(clippy::print_stdout, clippy::print_stderr)]

// Floor 0: what every error ends in, and what the program finds beside itself.
mod excerpt;
mod exit;
mod shipped;
mod text;

// Floor 1: the environment.
mod variables;

// Floor 2: where ranks meet.
mod port;

// Floor 3: languages. No tensors, no siblings.
mod config;
mod rundir;
mod slurm;
mod terminal;

// Floor 4: processes that talk, to each other and to people.
mod dist;
mod lock;
mod logging;

// Floor 5: fast paths for Burn.
pub mod ops;

// Floor 6: what parts speak of to each other.
mod geometry;
pub mod weights;

// Floor 7: parts that never meet.
mod checkpoint;
pub mod data;
mod ddp;
mod metrics;
pub mod models;
mod optim;
mod visualization;

// Floor 8: the whole as a type.
mod experiment;

// Floor 9: time.
mod runner;

// Floor 10: processes.
mod launch;
mod worker;

// Floor 11: the command line.
mod cli;

// Floor 12: the door for components of one's own, and for tests.
mod program;
#[doc(hidden)]
pub mod testing;

use std::ffi::OsString;
use std::process::ExitCode;

pub use program::Program;

/// Runs the program on its command line and returns the process's exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    Program::new().run(args)
}
