//! `segslurm test`: test a checkpoint, here or on Slurm.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args as ClapArgs;

use super::args::path;
use super::check::{check, report};
use super::job::Order;
use super::launch_args::{LaunchArgs, positionals, utf8};
use super::slurm_args::{CheckArgs, Files, SlurmArgs, SubmitArgs, help_end};
use crate::exit::{Exit, Failure};
use crate::launch::viewer;
use crate::rundir::RunDir;
use crate::runner::TestOptions;
use crate::slurm::job::JobKind;
use crate::variables::Variables;
use crate::worker::{self, Task};

/// Test a checkpoint: on this machine with CONFIG CHECKPOINT, on Slurm with PARTITION JOB_NAME
/// CONFIG CHECKPOINT
#[derive(Debug, ClapArgs)]
#[command(
    override_usage = "segslurm test CONFIG CHECKPOINT [OPTIONS]\n       segslurm test PARTITION \
                      JOB_NAME CONFIG CHECKPOINT [OPTIONS]",
    after_help = help_end(ENVIRONMENT)
)]
pub(crate) struct Args {
    #[command(flatten)]
    testing: Testing,

    #[command(flatten)]
    submit: SubmitArgs,
}

const ENVIRONMENT: &str = "Environment:
  CUDA_VISIBLE_DEVICES  the GPUs to use; -1 for none
  SEGSLURM_DEVICE       cpu or cuda; GPUs that are given and cannot be used are an error unless it is cpu
  OMP_NUM_THREADS       threads of one process on the CPU
  TORCH_HOME            where fetched checkpoints are looked for (hub/checkpoints below it)
  DISPLAY, WAYLAND_DISPLAY  the desktop that --show opens pictures on
  SEGSLURM_LOG          what to log, such as `debug`; wins over the config's log_level";

/// A test, wherever it runs.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Testing {
    /// The config file and a checkpoint of segslurm's or a .pth of mmseg's, as a path or an
    /// address; for a job on Slurm behind its partition (`-` for the default one) and its name
    #[arg(value_name = "[PARTITION JOB_NAME] CONFIG CHECKPOINT", required = true, num_args = 1..)]
    positionals: Vec<OsString>,

    /// Write label maps as PNG into this folder
    #[arg(long, value_name = "DIR", value_parser = path())]
    out: Option<PathBuf>,

    /// Paint predictions over the images, into work_dir/<time>/<DIR>
    #[arg(long, value_name = "DIR", value_parser = path())]
    show_dir: Option<PathBuf>,

    /// Show the painted pictures with the desktop's viewer
    #[arg(long)]
    show: bool,

    /// Seconds between two pictures that are shown
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = seconds)]
    wait_time: f64,

    /// Test-time augmentation, with the config's tta_pipeline
    #[arg(long)]
    tta: bool,

    #[command(flatten)]
    launch: LaunchArgs,

    #[command(flatten)]
    slurm: SlurmArgs,
}

const FORMS: &str = "CONFIG CHECKPOINT to test here, or PARTITION JOB_NAME CONFIG CHECKPOINT \
                     [WORK_DIR] to test on Slurm";

impl Testing {
    /// What a rank with this command line does, and its checkpoint, if it has CONFIG and CHECKPOINT
    /// alone.
    pub(super) fn here(&self) -> Result<(Task, PathBuf), Failure> {
        match &self.positionals[..] {
            [config, checkpoint] => {
                self.slurm.refuse(&SubmitArgs::default())?;
                Ok((self.launch.task(config.into(), Vec::new()), checkpoint.into()))
            }
            given => Err(positionals("CONFIG CHECKPOINT", given)),
        }
    }

    /// The job that PARTITION JOB_NAME CONFIG CHECKPOINT orders.
    pub(super) fn order(&self, forms: &str) -> Result<Order<'_>, Failure> {
        // Exhaustive on purpose: an option that is not passed on to the ranks would be lost.
        let Self { positionals: given, out, show_dir, show, wait_time, tta, launch, slurm } = self;
        let ([partition, name, config, checkpoint], behind) =
            given.split_first_chunk().ok_or_else(|| positionals(forms, given))?;
        let launch = &launch.clone().in_folder(behind, forms, given)?;
        let mut arguments: Vec<OsString> = vec!["test".into(), config.clone(), checkpoint.clone()];
        for (flag, folder) in [("--out", out), ("--show-dir", show_dir)] {
            arguments
                .extend(folder.iter().flat_map(|it| [flag.into(), it.clone().into_os_string()]));
        }
        if *show {
            arguments.extend(["--show".into(), "--wait-time".into(), wait_time.to_string().into()]);
        }
        arguments.extend(tta.then(|| "--tta".into()));
        arguments.extend(launch.rank_options());
        Ok(Order {
            kind: JobKind::Test,
            partition: utf8("PARTITION", partition)?,
            name: utf8("JOB_NAME", name)?,
            task: launch.task(config.into(), Vec::new()),
            checkpoint: Some(checkpoint.into()),
            arguments,
            slurm,
        })
    }

    /// What can be known of it before it runs.
    pub(super) fn check(&self, files: Files, variables: Variables) -> Result<Exit, Failure> {
        let (task, checkpoint) = self.here()?;
        let experiment = worker::typed(&task)?;
        experiment.check_test(self.out.is_some())?;
        let checked =
            check(JobKind::Test, &experiment, Some(&checkpoint), files.into(), variables)?;
        let work_dir =
            RunDir::choose(task.work_dir.as_deref(), experiment.work_dir.as_deref(), &task.config);
        report(JobKind::Test, &task.config, &checked, &experiment, &work_dir)
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|&it| Duration::try_from_secs_f64(it).is_ok());
    number.ok_or_else(|| "expected seconds, such as 0.5".to_owned())
}

pub(crate) fn run(args: &Args, variables: Variables) -> Result<Exit, Failure> {
    let Args { testing: args, submit } = args;
    if args.positionals.len() != 2 {
        return args.order(FORMS)?.run(submit, variables);
    }
    args.slurm.refuse(&SubmitArgs { check: CheckArgs::default(), ..submit.clone() })?;
    args.launch.notice_launcher(variables)?;
    if let Some(files) = submit.check.dry_run {
        return args.check(files, variables);
    }
    let (task, checkpoint) = args.here()?;
    let show_dir =
        args.show_dir.clone().or_else(|| args.show.then(|| PathBuf::from("vis_data/vis_image")));
    let options = TestOptions {
        checkpoint,
        out_dir: args.out.clone(),
        show_dir: show_dir.clone(),
        tta: args.tta,
    };
    let rundir = worker::test(&task, &options, variables)?;
    // Rank 0's desktop, if any.
    if let Some(rundir) = rundir.filter(|_| args.show) {
        let folder = rundir.show_dir(show_dir.as_deref().unwrap_or(Path::new("")));
        let wait = Duration::try_from_secs_f64(args.wait_time).map_err(Failure::fault)?;
        viewer::show(&folder, wait, variables).map_err(|error| {
            Failure::new(
                Exit::NoInput,
                format!("cannot read the pictures in {}: {error}", folder.display()),
            )
        })?;
    }
    Ok(Exit::Done)
}
