//! Options that `train` and `test` share: the config's changes, the work dir, and who started this process.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::dist::Launcher;
use crate::exit::{Exit, Failure};
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
    #[arg(long, value_name = "DIR", overrides_with = "work_dir")]
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

    /// These options again, for the ranks of a job; `--launcher` and `--local_rank` are each rank's own.
    pub(crate) fn rank_options(&self) -> Vec<OsString> {
        let Self { work_dir, cfg_options, launcher: _, local_rank: _ } = self;
        let mut options = Vec::new();
        if let Some(folder) = work_dir {
            options.extend(["--work-dir".into(), folder.clone().into_os_string()]);
        }
        if !cfg_options.is_empty() {
            options.push("--cfg-options".into());
            options.extend(cfg_options.iter().map(OsString::from));
        }
        options
    }
}

/// The error for a number of positional arguments that has no meaning.
pub(super) fn positionals(expected: &str, given: &[OsString]) -> Failure {
    let said: Vec<String> = given.iter().map(|it| it.to_string_lossy().into_owned()).collect();
    let message =
        format!("expected {expected}, but got {}: {} (a work dir is given as --work-dir DIR)", said.len(), said.join(" "));
    Failure::new(Exit::Usage, message)
}

/// A positional argument that Slurm has to read.
pub(super) fn utf8<'a>(name: &str, text: &'a OsStr) -> Result<&'a str, Failure> {
    let refuse = || Failure::new(Exit::Usage, format!("{name} {} is not UTF-8", text.display()));
    text.to_str().ok_or_else(refuse)
}
