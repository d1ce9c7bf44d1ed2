//! The options of every command that can run on Slurm.

use std::path::PathBuf;

use clap::builder::TypedValueParser;
use clap::{Args, ValueEnum};

use super::args::path;
use crate::data::dataset::Look;
use crate::exit::{Exit, Failure};
use crate::slurm::job::Flags;

const ENVIRONMENT: &str = "Environment of a Slurm job (an option of the same name wins):
  GPUS                  GPUs, and ranks (8 for training, 4 for a test); 0 for a job on the CPU
  GPUS_PER_NODE         GPUs of one node (8, or GPUS if that is less)
  CPUS_PER_TASK         CPUs of one rank (5)
  SRUN_ARGS             more options for srun
  SBATCH_ARGS           more options for sbatch
  MASTER_PORT           where the ranks meet
  SBATCH_*              sbatch's own variables, such as SBATCH_ACCOUNT
  SEGSLURM_SITE         the site profile";

/// The end of a command's help: a process's variables, then a job's.
pub(super) fn help_end(process: &str) -> String {
    format!("{process}\n\n{ENVIRONMENT}")
}

/// The shape of a job. One option for each of mmseg's variables, and the usual ones of Slurm.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Slurm")]
pub(crate) struct SlurmArgs {
    /// GPUs, and ranks; 0 for a job on the CPU [GPUS, else 8 for training, 4 for a test]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    gpus: Option<String>,
    /// GPUs of one node [GPUS_PER_NODE, else 8, or GPUS if that is less]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    gpus_per_node: Option<String>,
    /// CPUs of one rank [CPUS_PER_TASK, else 5]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    cpus_per_task: Option<String>,
    /// Ranks of a job on the CPU, with GPUS=0 [1]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    ntasks: Option<String>,
    /// More options for srun, in one argument [SRUN_ARGS]
    #[arg(long, value_name = "ARGS", allow_hyphen_values = true)]
    srun_args: Option<String>,
    /// More options for sbatch, in one argument [SBATCH_ARGS]
    #[arg(long, value_name = "ARGS", allow_hyphen_values = true)]
    sbatch_args: Option<String>,
    /// The port where the ranks meet [MASTER_PORT, else one of the job's own]
    #[arg(long, value_name = "PORT", allow_hyphen_values = true)]
    master_port: Option<String>,
    /// GPUs to use where the cluster does not manage them [CUDA_VISIBLE_DEVICES]
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    cuda_visible_devices: Option<String>,
    /// Time limit: minutes, HH:MM:SS or D-HH:MM:SS
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    time: Option<String>,
    #[arg(long, value_name = "NAME")]
    qos: Option<String>,
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    #[arg(long, value_name = "NAME")]
    reservation: Option<String>,
    /// Features that nodes must have
    #[arg(long, value_name = "LIST")]
    constraint: Option<String>,
    /// Nodes to use, such as gpu[01-03]
    #[arg(long, value_name = "HOSTS")]
    nodelist: Option<String>,
    /// Nodes to avoid
    #[arg(long, value_name = "HOSTS")]
    exclude: Option<String>,
    /// Share nodes with no other job
    #[arg(long, value_name = "WHOM", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    exclusive: Option<String>,
    /// Memory of a node, such as 64G
    #[arg(long, value_name = "SIZE")]
    mem: Option<String>,
    /// When to send mail: END, FAIL, …
    #[arg(long, value_name = "EVENTS")]
    mail_type: Option<String>,
    #[arg(long, value_name = "ADDRESS")]
    mail_user: Option<String>,
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// Jobs to wait for, such as afterok:123
    #[arg(long, value_name = "LIST")]
    dependency: Option<String>,
    /// Several jobs at once, such as 0-7; each has its own folder in the work dir
    #[arg(long, value_name = "INDICES")]
    array: Option<String>,
    /// Put the job back into the queue when its time ends [for training]
    #[arg(long)]
    requeue: bool,
    /// End for good when the time ends
    #[arg(long)]
    no_requeue: bool,
    /// When the ranks are told to save [USR1@120, two minutes before the time limit]
    #[arg(long, value_name = "SIGNAL@SECONDS")]
    signal: Option<String>,
    /// A container for the ranks, where the cluster has pyxis
    #[arg(long, value_name = "IMAGE")]
    container_image: Option<String>,
    /// Any other option of sbatch and srun
    #[arg(long, value_name = "KEY=VALUE")]
    slurm: Vec<String>,
    /// A profile of the cluster: a name in slurm/sites or ~/.config/segslurm/sites, or a file [SEGSLURM_SITE, else by ClusterName]
    #[arg(long, value_name = "NAME", value_parser = path().try_map(|it| it.into_os_string().into_string().map_err(|_| "it is not UTF-8")))]
    pub(super) site: Option<String>,
    /// A script template of your own
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub(super) template: Option<PathBuf>,
}

/// What is looked at in place of a run.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct CheckArgs {
    /// Check config, data and model and start nothing; a few images and label maps are decoded, or every-file. Of a job on Slurm also
    /// when it would start, and every value and where it came from
    #[arg(long, value_name = "FILES", num_args = 0..=1, require_equals = true, default_missing_value = "some")]
    pub(super) dry_run: Option<Files>,
}

/// How many files `--dry-run` decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Files {
    Some,
    EveryFile,
}

impl From<Files> for Look {
    fn from(files: Files) -> Self {
        match files {
            Files::Some => Self::Some,
            Files::EveryFile => Self::EveryFile,
        }
    }
}

/// How a job is run: in the foreground unless one of these says otherwise.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Slurm")]
pub(crate) struct SubmitArgs {
    /// Submit with sbatch and return
    #[arg(long)]
    pub(super) batch: bool,
    #[command(flatten)]
    pub(super) check: CheckArgs,
    /// Fail where there is no Slurm, instead of running here
    #[arg(long)]
    pub(super) no_fallback: bool,
    /// Ranks where there is no Slurm [GPUS or the visible GPUs, whichever is less; one on the CPU]
    #[arg(long, value_name = "N")]
    pub(super) nproc: Option<std::num::NonZeroUsize>,
}

impl SlurmArgs {
    /// Values by flag name.
    pub(super) fn flags(&self) -> Flags {
        let switch = |it: bool| it.then(String::new);
        let all = [
            ("gpus", self.gpus.clone()),
            ("gpus-per-node", self.gpus_per_node.clone()),
            ("cpus-per-task", self.cpus_per_task.clone()),
            ("ntasks", self.ntasks.clone()),
            ("srun-args", self.srun_args.clone()),
            ("sbatch-args", self.sbatch_args.clone()),
            ("master-port", self.master_port.clone()),
            ("cuda-visible-devices", self.cuda_visible_devices.clone()),
            ("time", self.time.clone()),
            ("qos", self.qos.clone()),
            ("account", self.account.clone()),
            ("reservation", self.reservation.clone()),
            ("constraint", self.constraint.clone()),
            ("nodelist", self.nodelist.clone()),
            ("exclude", self.exclude.clone()),
            ("exclusive", self.exclusive.clone()),
            ("mem", self.mem.clone()),
            ("mail-type", self.mail_type.clone()),
            ("mail-user", self.mail_user.clone()),
            ("comment", self.comment.clone()),
            ("dependency", self.dependency.clone()),
            ("array", self.array.clone()),
            ("requeue", switch(self.requeue)),
            ("no-requeue", switch(self.no_requeue)),
            ("signal", self.signal.clone()),
            ("container-image", self.container_image.clone()),
        ];
        let values = all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        Flags { values, slurm: self.slurm.clone() }
    }

    /// Without PARTITION and JOB_NAME no option of a job has a meaning: none is dropped in silence.
    pub(super) fn refuse(&self, submit: &SubmitArgs) -> Result<(), Failure> {
        let flags = self.flags();
        let given = flags.values.keys().copied().next();
        let switches = [
            ("slurm", !flags.slurm.is_empty()),
            ("site", self.site.is_some()),
            ("template", self.template.is_some()),
            ("batch", submit.batch),
            ("dry-run", submit.check.dry_run.is_some()),
            ("no-fallback", submit.no_fallback),
            ("nproc", submit.nproc.is_some()),
        ];
        match given.or_else(|| switches.iter().find(|it| it.1).map(|it| it.0)) {
            None => Ok(()),
            Some(flag) => {
                let message = format!("--{flag} is for jobs on Slurm: put PARTITION and JOB_NAME in front of the config");
                Err(Failure::new(Exit::Usage, message))
            }
        }
    }
}
