//! `segslurm train`: train a model.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::launch_args::LaunchArgs;
use crate::exit::Exit;
use crate::worker::{self, Variables};

/// Train a model: on this machine with CONFIG, on Slurm with PARTITION JOB_NAME CONFIG
#[derive(Debug, ClapArgs)]
#[command(after_help = "Environment:
  CUDA_VISIBLE_DEVICES  the GPUs to use; -1 for none
  OMP_NUM_THREADS       threads of one process on the CPU
  TORCH_HOME            where pretrained weights are looked for (hub/checkpoints below it)
  SEGSLURM_LOG          what to log, such as `debug`; wins over the config's log_level")]
pub(crate) struct Args {
    /// The config file
    config: PathBuf,

    /// Automatic mixed precision
    #[arg(long)]
    amp: bool,

    /// Go on from the newest whole checkpoint of the work dir, or from load_from
    #[arg(long)]
    resume: bool,

    #[command(flatten)]
    launch: LaunchArgs,
}

pub(crate) fn run(args: &Args, variables: Variables) -> anyhow::Result<Exit> {
    let mut more = Vec::new();
    if args.resume {
        more.push("resume=true".to_owned());
    }
    if args.amp {
        more.extend(["optim_wrapper.type=AmpOptimWrapper".to_owned(), "optim_wrapper.loss_scale=dynamic".to_owned()]);
    }
    worker::train(&args.launch.task(args.config.clone(), more), variables)
}
