//! `segslurm train`: train a model.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::launch_args::LaunchArgs;
use crate::exit::Exit;
use crate::worker::{self, Task, Variables};

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

    /// Automatic mixed precision: fp16 on CUDA, bf16 on the CPU, unless the config's AmpOptimWrapper says more
    #[arg(long)]
    amp: bool,

    /// Go on from the newest whole checkpoint of the work dir, or from load_from
    #[arg(long)]
    resume: bool,

    #[command(flatten)]
    launch: LaunchArgs,
}

impl Args {
    /// What a rank with this command line does.
    pub(super) fn task(&self) -> Task {
        let mut more = Vec::new();
        if self.resume {
            more.push("resume=true".to_owned());
        }
        if self.amp {
            more.push("optim_wrapper.type=AmpOptimWrapper".to_owned());
        }
        self.launch.task(self.config.clone(), more)
    }
}

pub(crate) fn run(args: &Args, variables: Variables) -> anyhow::Result<Exit> {
    worker::train(&args.task(), variables)
}
