//! Options that `train` and `test` share: the config's changes, the work dir, and who started this
//! process.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::Args;

use super::args::path;
use crate::dist::Launcher;
use crate::exit::{Exit, Failure};
use crate::variables::{Variables, number, text};
use crate::worker::Task;

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct LaunchArgs {
    /// Where checkpoints, logs and results go; else the config's work_dir, else work_dirs/<config
    /// name>
    #[arg(long, value_name = "DIR", value_parser = path(), overrides_with = "work_dir")]
    pub(crate) work_dir: Option<PathBuf>,

    /// Scale the learning rates to the batch of all ranks, by the config's
    /// auto_scale_lr.base_batch_size
    #[arg(long)]
    pub(crate) auto_scale_lr: bool,

    /// Change settings of the config: `model.backbone.depth=101`, `train_pipeline.0.type=X`,
    /// `a.b=1,2` or `"a.b=[(1,2),(3,4)]"`
    #[arg(long, value_name = "KEY=VALUE", num_args = 1..)]
    pub(crate) cfg_options: Vec<String>,

    /// Who started this process; it says which variables hold rank and world size
    #[arg(long, value_enum, hide_possible_values = false)]
    pub(crate) launcher: Option<Launcher>,

    /// This process's place on its machine, where the launcher passes it as an option
    #[arg(long = "local_rank", alias = "local-rank", value_name = "N")]
    pub(crate) local_rank: Option<usize>,
}

impl LaunchArgs {
    /// The task of this process on `config`, with `more` changes of the config.
    pub(crate) fn task(&self, config: PathBuf, more: Vec<String>) -> Task {
        let scaled = self.auto_scale_lr.then(|| "auto_scale_lr.enable=true".to_owned());
        let overrides = [self.cfg_options.clone(), scaled.into_iter().collect(), more].concat();
        Task {
            config,
            overrides,
            work_dir: self.work_dir.clone(),
            launcher: self.launcher.unwrap_or_default(),
            local_rank: self.local_rank,
        }
    }

    /// With the work dir that stands behind the other words, as mmseg's tutorial has it.
    pub(crate) fn in_folder(
        mut self,
        behind: &[OsString],
        forms: &str,
        given: &[OsString],
    ) -> Result<Self, Failure> {
        match (behind, &self.work_dir) {
            ([], _) => {}
            ([folder], None) => self.work_dir = Some(folder.into()),
            ([folder], Some(other)) => {
                let message = format!(
                    "two work dirs are given, {} and --work-dir {}: give one",
                    folder.display(),
                    other.display()
                );
                return Err(Failure::new(Exit::Usage, message));
            }
            _ => return Err(positionals(forms, given)),
        }
        Ok(self)
    }

    /// Another program started several of these, and without `--launcher` each would train the
    /// whole for itself. That is never meant.
    pub(crate) fn notice_launcher(&self, variables: Variables) -> Result<(), Failure> {
        let set = |name: &str| text(variables, name);
        // What is no number is told by whoever reads the variables to be a rank.
        let many = |name: &str| number::<u32>(variables, name).ok().flatten().filter(|it| *it > 1);
        let torchrun =
            many("WORLD_SIZE").filter(|_| set("RANK").is_some() && set("LOCAL_RANK").is_some());
        // srun speaks PMI too.
        let mpirun = many("OMPI_COMM_WORLD_SIZE")
            .or_else(|| many("PMI_SIZE").filter(|_| set("SLURM_PROCID").is_none()));
        let (program, count, name) = match (torchrun, mpirun) {
            _ if self.launcher.is_some() => return Ok(()),
            (Some(count), _) => ("torchrun", count, "pytorch"),
            (None, Some(count)) => ("mpirun", count, "mpi"),
            (None, None) => return Ok(()),
        };
        let message = format!(
            "{program} started {count} of this, and each would be a run of its own: add --launcher \
             {name} to make them one run, or --launcher none where that is meant"
        );
        Err(Failure::new(Exit::Usage, message))
    }

    /// These options again, for the ranks of a job; `--launcher` and `--local_rank` are each rank's
    /// own.
    pub(crate) fn rank_options(&self) -> Vec<OsString> {
        let Self { work_dir, auto_scale_lr, cfg_options, launcher: _, local_rank: _ } = self;
        let mut options = Vec::new();
        options.extend(auto_scale_lr.then(|| "--auto-scale-lr".into()));
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
    let message = format!(
        "expected {expected}, but got {}: {} (a work dir is given as --work-dir DIR)",
        said.len(),
        said.join(" ")
    );
    Failure::new(Exit::Usage, message)
}

/// A positional argument that Slurm has to read.
pub(super) fn utf8<'a>(name: &str, text: &'a OsStr) -> Result<&'a str, Failure> {
    let refuse = || Failure::new(Exit::Usage, format!("{name} {} is not UTF-8", text.display()));
    text.to_str().ok_or_else(refuse)
}
