//! Slurm's languages, without Slurm: host lists, durations, job states, the environment of a step,
//! the shape of a job and the text of its script. Parsing is pure and tested on what real clusters
//! print; only `client` starts Slurm's programs.

pub(crate) mod client;
pub(crate) mod env;
pub(crate) mod hostlist;
pub(crate) mod job;
pub(crate) mod options;
pub(crate) mod port;
pub(crate) mod script;
pub(crate) mod shape;
pub(crate) mod site;
pub(crate) mod state;
pub(crate) mod tasks;
pub(crate) mod time;

pub use env::Place;
pub(crate) use env::{Context, EnvError, Step};
pub use state::JobState;
