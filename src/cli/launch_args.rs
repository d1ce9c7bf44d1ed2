//! Options that commands share: how the ranks of a run are started.

use clap::{Args, ValueEnum};

/// Who started this process, as mmengine's `--launcher` has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LauncherName {
    /// One process.
    #[default]
    None,
    /// torchrun, or `segslurm dist_train`: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT.
    Pytorch,
    /// A Slurm job step: the SLURM_* variables.
    Slurm,
    /// mpirun: OMPI_COMM_WORLD_*, PMI_* or PMIX_*.
    Mpi,
}

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct LaunchArgs {
    /// Who started this process; it says where rank and world size are read from
    #[arg(long, value_enum, default_value_t)]
    pub(crate) launcher: LauncherName,

    /// This process's place on its machine, where the launcher passes it as an option
    #[arg(long = "local_rank", alias = "local-rank", value_name = "N", env = "LOCAL_RANK")]
    pub(crate) local_rank: Option<usize>,
}
