//! `segslurm slurm_test`: the batch script of a test.

use clap::Args as ClapArgs;

use super::slurm_train::ScriptArgs;
use super::test::Testing;
use crate::exit::{Exit, Failure};
use crate::variables::Variables;

/// Print the batch script of a test: PARTITION JOB_NAME CONFIG CHECKPOINT, and options of `segslurm
/// test`
#[derive(Debug, ClapArgs)]
#[command(
    override_usage = "segslurm slurm_test PARTITION JOB_NAME CONFIG CHECKPOINT [WORK_DIR] [OPTIONS]"
)]
pub(crate) struct Args {
    #[command(flatten)]
    testing: Testing,

    #[command(flatten)]
    script: ScriptArgs,
}

const FORM: &str = "PARTITION JOB_NAME CONFIG CHECKPOINT [WORK_DIR]";

pub(crate) fn run(args: &Args, variables: Variables) -> Result<Exit, Failure> {
    let ScriptArgs { output, force, srun, submit } = &args.script;
    args.testing.order(FORM)?.script(
        output.as_deref().map(|it| (it, *force)),
        *srun,
        *submit,
        variables,
    )
}
