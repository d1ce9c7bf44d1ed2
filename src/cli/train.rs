//! `segslurm train`: train a model, here or on Slurm.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::check::{check, report};
use super::job::Order;
use super::launch_args::{LaunchArgs, positionals, utf8};
use super::slurm_args::{CheckArgs, Files, SlurmArgs, SubmitArgs, help_end};
use crate::exit::{Exit, Failure};
use crate::rundir::RunDir;
use crate::slurm::job::JobKind;
use crate::variables::Variables;
use crate::worker::{self, Task};

/// Train a model: on this machine with CONFIG, on Slurm with PARTITION JOB_NAME CONFIG
#[derive(Debug, ClapArgs)]
#[command(
    override_usage = "segslurm train CONFIG [OPTIONS]\n       segslurm train PARTITION JOB_NAME \
                      CONFIG [WORK_DIR] [OPTIONS]",
    after_help = help_end(ENVIRONMENT)
)]
pub(crate) struct Args {
    #[command(flatten)]
    training: Training,

    #[command(flatten)]
    submit: SubmitArgs,
}

const ENVIRONMENT: &str = "Environment:
  CUDA_VISIBLE_DEVICES  the GPUs to use; -1 for none
  SEGSLURM_DEVICE       cpu or cuda; GPUs that are given and cannot be used are an error unless it is cpu
  OMP_NUM_THREADS       threads of one process on the CPU
  TORCH_HOME            where fetched weights are looked for (hub/checkpoints below it)
  SEGSLURM_LOG          what to log, such as `debug`; wins over the config's log_level";

/// A training, wherever it runs.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Training {
    /// The config file; for a job on Slurm behind its partition (`-` for the default one) and its
    /// name
    #[arg(value_name = "[PARTITION JOB_NAME] CONFIG [WORK_DIR]", required = true, num_args = 1..)]
    positionals: Vec<OsString>,

    /// Automatic mixed precision: fp16 on CUDA, bf16 on the CPU, unless the config's
    /// AmpOptimWrapper says more
    #[arg(long)]
    amp: bool,

    /// Go on from the newest whole checkpoint of the work dir's latest run, or from the load_from
    /// of --cfg-options
    #[arg(long, overrides_with = "resume")]
    resume: bool,

    #[command(flatten)]
    launch: LaunchArgs,

    #[command(flatten)]
    slurm: SlurmArgs,
}

const FORMS: &str =
    "CONFIG to train here, or PARTITION JOB_NAME CONFIG [WORK_DIR] to train on Slurm";

impl Training {
    /// What a rank with this command line does, if it has CONFIG alone.
    pub(super) fn here(&self) -> Result<Task, Failure> {
        match &self.positionals[..] {
            [config] => {
                self.slurm.refuse(&SubmitArgs::default())?;
                Ok(self.task(config.into()))
            }
            given => Err(positionals("CONFIG", given)),
        }
    }

    /// What can be known of it before it runs.
    pub(super) fn check(&self, files: Files, variables: Variables) -> Result<Exit, Failure> {
        let task = self.here()?;
        let experiment = worker::typed(&task)?;
        experiment.check_training()?;
        let checked = check(JobKind::Train, &experiment, None, files.into(), variables)?;
        let work_dir =
            RunDir::choose(task.work_dir.as_deref(), experiment.work_dir.as_deref(), &task.config);
        report(JobKind::Train, &task.config, &checked, &experiment, &work_dir)
    }

    fn task(&self, config: PathBuf) -> Task {
        let mut more = Vec::new();
        if self.resume {
            more.push("resume=true".to_owned());
        }
        if self.amp {
            more.push("optim_wrapper.type=AmpOptimWrapper".to_owned());
        }
        self.launch.task(config, more)
    }

    /// The job that PARTITION JOB_NAME CONFIG orders.
    pub(super) fn order(&self, forms: &str) -> Result<Order<'_>, Failure> {
        // Exhaustive on purpose: an option that is not passed on to the ranks would be lost.
        let Self { positionals: given, amp, resume, launch, slurm } = self;
        let ([partition, name, config], behind) =
            given.split_first_chunk().ok_or_else(|| positionals(forms, given))?;
        let launch = &launch.clone().in_folder(behind, forms, given)?;
        let mut arguments: Vec<OsString> = vec!["train".into(), config.clone()];
        arguments.extend(amp.then(|| "--amp".into()));
        arguments.extend(resume.then(|| "--resume".into()));
        arguments.extend(launch.rank_options());
        Ok(Order {
            kind: JobKind::Train,
            partition: utf8("PARTITION", partition)?,
            name: utf8("JOB_NAME", name)?,
            task: Self { launch: launch.clone(), ..self.clone() }.task(config.into()),
            checkpoint: None,
            arguments,
            slurm,
        })
    }
}

pub(crate) fn run(args: &Args, variables: Variables) -> Result<Exit, Failure> {
    if args.training.positionals.len() == 1 {
        args.training
            .slurm
            .refuse(&SubmitArgs { check: CheckArgs::default(), ..args.submit.clone() })?;
        args.training.launch.notice_launcher(variables)?;
        if let Some(files) = args.submit.check.dry_run {
            return args.training.check(files, variables);
        }
        return worker::train(&args.training.here()?, variables);
    }
    args.training.order(FORMS)?.run(&args.submit, variables)
}
