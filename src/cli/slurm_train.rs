//! `segslurm slurm_train`: the batch script of a training.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::args::path;
use super::train::Training;
use crate::exit::{Exit, Failure};
use crate::variables::Variables;

/// What to do with a script.
#[derive(Debug, ClapArgs)]
pub(super) struct ScriptArgs {
    /// Write the script into this file instead of standard output
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub(super) output: Option<PathBuf>,

    /// Replace FILE where it is there already and says something else
    #[arg(long, requires = "output")]
    pub(super) force: bool,

    /// The command line of srun instead of a batch script
    #[arg(long, conflicts_with = "submit")]
    pub(super) srun: bool,

    /// Submit the script that was printed
    #[arg(long)]
    pub(super) submit: bool,
}

/// Print the batch script of a training: PARTITION JOB_NAME CONFIG, and options of `segslurm train`
#[derive(Debug, ClapArgs)]
#[command(override_usage = "segslurm slurm_train PARTITION JOB_NAME CONFIG [WORK_DIR] [OPTIONS]")]
pub(crate) struct Args {
    #[command(flatten)]
    training: Training,

    #[command(flatten)]
    script: ScriptArgs,
}

const FORM: &str = "PARTITION JOB_NAME CONFIG [WORK_DIR]";

pub(crate) fn run(args: &Args, variables: Variables) -> Result<Exit, Failure> {
    let ScriptArgs { output, force, srun, submit } = &args.script;
    args.training.order(FORM)?.script(
        output.as_deref().map(|it| (it, *force)),
        *srun,
        *submit,
        variables,
    )
}
