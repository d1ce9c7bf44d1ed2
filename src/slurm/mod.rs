//! Slurm's languages, without Slurm: host lists, durations, job states, the environment of a step, the shape of a job and the
//! text of its script. Parsing is pure and tested on what real clusters print; only `client` starts Slurm's programs.

pub mod client;
pub mod env;
pub mod hostlist;
pub mod job;
pub mod options;
pub mod port;
pub mod script;
pub mod shape;
pub mod site;
pub mod state;
pub mod tasks;
pub mod time;

pub use env::{Context, EnvError, Place, Step};
pub use state::JobState;
