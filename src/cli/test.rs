//! `segslurm test`: test a checkpoint.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args as ClapArgs;

use super::launch_args::LaunchArgs;
use crate::exit::Exit;
use crate::launch::viewer;
use crate::runner::TestOptions;
use crate::worker::{self, Task, Variables};

/// Test a checkpoint: on this machine with CONFIG CHECKPOINT, on Slurm with PARTITION JOB_NAME CONFIG CHECKPOINT
#[derive(Debug, ClapArgs)]
#[command(after_help = "Environment:
  CUDA_VISIBLE_DEVICES  the GPUs to use; -1 for none
  OMP_NUM_THREADS       threads of one process on the CPU
  DISPLAY, WAYLAND_DISPLAY  the desktop that --show opens pictures on
  SEGSLURM_LOG          what to log, such as `debug`; wins over the config's log_level")]
pub(crate) struct Args {
    /// The config file
    config: PathBuf,

    /// A checkpoint of segslurm's or a .pth of mmseg's
    checkpoint: PathBuf,

    /// Write label maps as PNG into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Paint predictions over the images, into work_dir/<time>/<DIR>
    #[arg(long, value_name = "DIR")]
    show_dir: Option<PathBuf>,

    /// Show the painted pictures with the desktop's viewer
    #[arg(long)]
    show: bool,

    /// Seconds between two pictures that are shown
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    wait_time: f64,

    /// Test-time augmentation, with the config's tta_pipeline
    #[arg(long)]
    tta: bool,

    #[command(flatten)]
    launch: LaunchArgs,
}

impl Args {
    /// What a rank with this command line does.
    pub(super) fn task(&self) -> Task {
        self.launch.task(self.config.clone(), Vec::new())
    }
}

pub(crate) fn run(args: &Args, variables: Variables) -> anyhow::Result<Exit> {
    let show_dir = args.show_dir.clone().or_else(|| args.show.then(|| PathBuf::from("vis_data/vis_image")));
    let options =
        TestOptions { checkpoint: args.checkpoint.clone(), out_dir: args.out.clone(), show_dir: show_dir.clone(), tta: args.tta };
    let rundir = worker::test(&args.task(), &options, variables)?;
    // Rank 0's desktop, if any.
    if let Some(rundir) = rundir.filter(|_| args.show) {
        let folder = rundir.show_dir(show_dir.as_deref().unwrap_or(Path::new("")));
        viewer::show(&folder, Duration::try_from_secs_f64(args.wait_time)?, variables)?;
    }
    Ok(Exit::Done)
}
