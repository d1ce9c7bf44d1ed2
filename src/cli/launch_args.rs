//! Options that `train` and `test` share: the config's changes, the work dir, and who started this process.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::dist::Launcher;
use crate::worker::Task;

/// Who started this process, as mmengine's `--launcher` has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LauncherName {
    /// One process
    #[default]
    None,
    /// torchrun or `segslurm dist_train`: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT
    Pytorch,
    /// A Slurm job step: the SLURM_* variables
    Slurm,
    /// mpirun: OMPI_COMM_WORLD_*, PMI_* or PMIX_*
    Mpi,
}

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct LaunchArgs {
    /// Where checkpoints, logs and results go; else the config's work_dir, else work_dirs/<config name>
    #[arg(long, value_name = "DIR")]
    pub(crate) work_dir: Option<PathBuf>,

    /// Change settings of the config: `model.backbone.depth=101`, `train_pipeline.0.type=X`, `a.b=1,2` or `"a.b=[(1,2),(3,4)]"`
    #[arg(long, value_name = "KEY=VALUE", num_args = 1..)]
    pub(crate) cfg_options: Vec<String>,

    /// Who started this process; it says which variables hold rank and world size
    #[arg(long, value_enum, default_value_t, hide_possible_values = false)]
    pub(crate) launcher: LauncherName,

    /// This process's place on its machine, where the launcher passes it as an option
    #[arg(long = "local_rank", alias = "local-rank", value_name = "N")]
    pub(crate) local_rank: Option<usize>,
}

impl LaunchArgs {
    /// The task of this process on `config`, with `more` changes of the config.
    pub(crate) fn task(&self, config: PathBuf, more: Vec<String>) -> Task {
        let launcher = match self.launcher {
            LauncherName::None => Launcher::None,
            LauncherName::Pytorch => Launcher::Pytorch,
            LauncherName::Slurm => Launcher::Slurm,
            LauncherName::Mpi => Launcher::Mpi,
        };
        let overrides = [self.cfg_options.clone(), more].concat();
        Task { config, overrides, work_dir: self.work_dir.clone(), launcher, local_rank: self.local_rank }
    }
}
