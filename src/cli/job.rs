//! From a command line with PARTITION and JOB_NAME to a job: resolved, checked, then shown,
//! submitted, run, or run here.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::check::check;
use super::slurm_args::{SlurmArgs, SubmitArgs};
use crate::checkpoint::{Checkpoint, CheckpointError, Places, Source};
use crate::data::dataset::Look;
use crate::dist::{self, Accelerator, Launcher};
use crate::exit::{Exit, Failure};
use crate::experiment::Experiment;
use crate::launch::local::{Local, Machines};
use crate::launch::slurm::Foreground;
use crate::port::Port;
use crate::rundir::{RunDir, stamp_now, write_atomically};
use crate::runner::Footprint;
use crate::shipped;
use crate::slurm::client::{self, Reach};
use crate::slurm::job::{JobKind, JobSpec};
use crate::slurm::script::{RankCommand, Template};
use crate::slurm::site::{self, Site};
use crate::terminal;
use crate::variables::{self, Variables};
use crate::worker::Task;

/// What was asked for on the command line.
pub(super) struct Order<'a> {
    pub kind: JobKind,
    pub partition: &'a str,
    pub name: &'a str,
    pub task: Task,
    pub checkpoint: Option<PathBuf>,
    /// What every rank is told, without `--launcher`.
    pub arguments: Vec<OsString>,
    pub slurm: &'a SlurmArgs,
}

/// An order with everything resolved; nothing was submitted yet.
struct JobPlan {
    spec: JobSpec,
    command: RankCommand,
    experiment: Experiment,
    /// Those that the job is given, as far as they are on this machine.
    checkpoints: Vec<PathBuf>,
    work_dir: PathBuf,
    reach: Reach,
    site: Option<Site>,
    /// GPUs that ranks could use on this machine.
    gpus_here: usize,
    /// Why the job's ranks could use no GPU on any node, although they ask for some.
    never: Option<String>,
}

fn usage(message: impl Into<String>) -> Failure {
    Failure::new(Exit::Usage, message)
}

/// A checkpoint's file on this machine. One that is still to be fetched is fetched by the job.
fn local(named: &Path, variables: Variables) -> Result<Option<PathBuf>, CheckpointError> {
    Source::parse(named, &Places::of(variables))?.local()
}

impl Order<'_> {
    fn plan(self, variables: Variables) -> Result<(Self, JobPlan), Failure> {
        let folders: Vec<PathBuf> = dirs::config_dir()
            .map(|it| it.join("segslurm/sites"))
            .into_iter()
            .chain(["slurm/sites".into()])
            .collect();
        let folders = [folders, shipped::folders("slurm/sites")].concat();
        let named = self.slurm.site.clone().or_else(|| variables::text(variables, "SEGSLURM_SITE"));
        let reach = client::reach();
        let site = match named {
            Some(name) => Some(Site::named(&name, &folders)?),
            None if reach == Reach::Answers && site::any(&folders) => {
                let cluster = client::cluster_name();
                cluster.map(|it| Site::of_cluster(&it, &folders)).transpose()?.flatten()
            }
            None => None,
        };
        let flags = self.slurm.flags();
        let spec = JobSpec::resolve(
            self.kind,
            self.partition,
            self.name,
            &flags,
            variables,
            site.as_ref(),
        )?;
        if self.task.launcher != Launcher::None || self.task.local_rank.is_some() {
            return Err(usage(
                "--launcher and --local_rank are for the ranks, which the job starts: leave them \
                 out",
            ));
        }
        // Read here first: a mistake in the config is told before anything waits in a queue.
        let config = Experiment::load_config(&self.task.config, &self.task.overrides)?;
        let experiment = Experiment::from_config(&config)?;
        experiment.remarks.iter().for_each(|it| terminal::note(format!("segslurm: {it}")));
        if variables::text(variables, "PORT").is_some()
            && variables::text(variables, "MASTER_PORT").is_none()
        {
            terminal::note(
                "segslurm: PORT is for dist_train; a job on Slurm takes MASTER_PORT, and without \
                 it a port of its own",
            );
        }
        match self.kind {
            JobKind::Train => experiment.check_training()?,
            JobKind::Test => {
                experiment.check_test(self.arguments.iter().any(|it| it == "--out"))?;
            }
        }
        let checkpoint =
            self.checkpoint.iter().map(|it| local(it, variables)).collect::<Result<Vec<_>, _>>()?;
        let checkpoints = checkpoint.into_iter().flatten().collect();
        let work_dir = RunDir::choose(
            self.task.work_dir.as_deref(),
            experiment.work_dir.as_deref(),
            &self.task.config,
        );
        let directory = std::env::current_dir().map_err(|error| {
            Failure::new(Exit::NoInput, format!("the current folder is gone: {error}"))
        })?;
        let text = |path: &Path| {
            let refuse =
                || usage(format!("{} is not UTF-8: a script cannot hold it", path.display()));
            path.to_str().map(str::to_owned).ok_or_else(refuse)
        };
        let gpus_here = Accelerator::find(variables, Launcher::None)?.gpus;
        let own = site.as_ref().is_none_or(|it| it.program.is_none());
        let never =
            dist::never_uses_gpus(variables)?.filter(|_| own && spec.shape.gpus_per_node > 0);
        let program = match site.as_ref().and_then(|it| it.program.clone()) {
            Some(program) => program,
            None => std::env::current_exe()
                .map_err(|error| Failure::fault(format!("its own path is not known: {error}")))?,
        };
        let arguments =
            self.arguments.iter().map(|it| text(Path::new(it))).collect::<Result<_, _>>()?;
        let command = RankCommand {
            program: text(&program)?,
            arguments,
            log_dir: text(&directory.join(RunDir::job_logs(&work_dir)))?,
            directory: text(&directory)?,
            work_dir: text(&work_dir)?,
        };
        Ok((
            self,
            JobPlan {
                spec,
                command,
                experiment,
                checkpoints,
                work_dir,
                reach,
                site,
                gpus_here,
                never,
            },
        ))
    }

    /// The template for the batch script: the user's, the site's, or ours.
    fn template(&self, plan: &JobPlan) -> Result<Template, Failure> {
        let by_site = plan.site.as_ref().and_then(|it| match self.kind {
            JobKind::Train => it.template.train.clone(),
            JobKind::Test => it.template.test.clone(),
        });
        match self.slurm.template.clone().or(by_site) {
            Some(path) => Ok(Template::load(path)?),
            None => Ok(Template::batch(self.kind)),
        }
    }

    /// Runs the job: in the foreground, with `--batch` in the queue, without a Slurm here.
    pub(super) fn run(self, submit: &SubmitArgs, variables: Variables) -> Result<Exit, Failure> {
        let (order, mut plan) = self.plan(variables)?;
        // A training that goes on may have left behind what it began with.
        if let Some(named) = plan.experiment.load_from.as_ref().filter(|_| !plan.experiment.resume)
        {
            plan.checkpoints.extend(local(named, variables)?);
        }
        let script = plan.command.render(&plan.spec, &order.template(&plan)?)?;
        if plan.spec.array && !submit.batch {
            return Err(usage("--array makes several jobs at once: give --batch as well"));
        }
        if let Some(files) = submit.check.dry_run {
            return order.dry_run(&plan, submit, &script, files.into(), variables);
        }
        if let Some(without) = plan.without_slurm() {
            return order.here(&plan, submit, &without);
        }
        for note in &plan.spec.notes {
            terminal::note(format!("segslurm: {note}"));
        }
        plan.usable()?;
        plan.hardly_fits(order.kind)
            .iter()
            .for_each(|it| terminal::note(format!("segslurm: {it}")));
        plan.log_folder()?;
        if submit.batch {
            return plan.submit(&script);
        }
        if !plan.spec.sbatch_args.is_empty() {
            terminal::note(
                "segslurm: SBATCH_ARGS are for --batch; srun in the foreground takes SRUN_ARGS",
            );
        }
        plan.accepted(&script)?;
        let partition = plan.spec.partition.as_deref().unwrap_or("Slurm's default");
        terminal::note(format!(
            "segslurm: {} on partition {partition}",
            plan.spec.shape.describe()
        ));
        let line = plan.command.srun(&plan.spec);
        Foreground { line, exports: plan.spec.exports.clone(), saves: order.kind == JobKind::Train }
            .execute()
    }

    /// Prints or submits the script alone.
    pub(super) fn script(
        self,
        output: Option<(&Path, bool)>,
        srun: bool,
        submit: bool,
        variables: Variables,
    ) -> Result<Exit, Failure> {
        let (order, plan) = self.plan(variables)?;
        let template = if srun && order.slurm.template.is_none() {
            Template::srun()
        } else {
            order.template(&plan)?
        };
        let text = plan.command.render(&plan.spec, &template)?;
        for note in &plan.spec.notes {
            terminal::note(format!("segslurm: {note}"));
        }
        // Without the folder Slurm ends the job at its start, without a word.
        plan.log_folder()?;
        match output {
            Some((path, force)) => {
                if !force && fs::read(path).is_ok_and(|it| it != text.as_bytes()) {
                    let message = format!(
                        "{} is there and says something else, which may be your own: name another \
                         file, or add --force",
                        path.display()
                    );
                    return Err(Failure::new(Exit::CannotWrite, message));
                }
                let refuse = |error| {
                    Failure::new(
                        Exit::CannotWrite,
                        format!("cannot write {}: {error}", path.display()),
                    )
                };
                write_atomically(path, text.as_bytes()).map_err(refuse)?;
            }
            None => terminal::print(&text)?,
        }
        if !submit {
            if let Err(failure) = plan.usable() {
                terminal::note(format!("segslurm: {}", failure.message));
            }
            return Ok(Exit::Done);
        }
        plan.usable()?;
        match plan.without_slurm() {
            Some(without) => {
                Err(Failure::new(Exit::Unavailable, format!("cannot submit: {without}")))
            }
            None => {
                plan.hardly_fits(order.kind)
                    .iter()
                    .for_each(|it| terminal::note(format!("segslurm: {it}")));
                plan.submit(&text)
            }
        }
    }

    /// Runs the ranks on this machine, where there is no Slurm.
    fn here(&self, plan: &JobPlan, submit: &SubmitArgs, without: &str) -> Result<Exit, Failure> {
        if submit.no_fallback {
            let message = format!("{without}; without --no-fallback the same command runs here");
            return Err(Failure::new(Exit::Unavailable, message));
        }
        let ranks = plan.ranks_here(submit);
        terminal::note(format!(
            "segslurm: {without}: running here, {}",
            plan.describe_here(self.kind, ranks)
        ));
        let output = RunDir::output(&plan.work_dir, &stamp_now());
        let port = plan.port()?;
        let local = Local {
            arguments: self.arguments.clone(),
            ranks,
            machines: Machines::default(),
            port,
            output,
        };
        local.execute()
    }

    fn dry_run(
        &self,
        plan: &JobPlan,
        submit: &SubmitArgs,
        script: &str,
        look: Look,
        variables: Variables,
    ) -> Result<Exit, Failure> {
        let checked =
            check(self.kind, &plan.experiment, self.checkpoint.as_deref(), look, variables)?;
        for path in &plan.checkpoints {
            Checkpoint::read(path)?;
        }
        let mut text = String::new();
        for line in &checked.lines {
            let _ = writeln!(text, "{line}");
        }
        text.push('\n');
        for setting in &plan.spec.settings {
            let _ = writeln!(text, "{:<16} {:<24} {}", setting.name, setting.value, setting.origin);
        }
        let _ = writeln!(text, "\n{}", plan.spec.shape.describe());
        for note in &plan.spec.notes {
            let _ = writeln!(text, "{note}");
        }
        plan.hardly_fits(self.kind).iter().for_each(|it| text += &format!("{it}\n"));
        plan.log_folder()?;
        match plan.without_slurm() {
            Some(without) if submit.no_fallback => {
                return Err(Failure::new(Exit::Unavailable, without));
            }
            Some(without) => {
                let here = plan.describe_here(self.kind, plan.ranks_here(submit));
                let _ = writeln!(text, "{without}: it would run here, {here}");
            }
            None => {
                plan.usable()?;
                let estimate = plan.accepted(script)?;
                let _ = writeln!(text, "{estimate}");
                if submit.batch {
                    let _ = write!(text, "\n{script}");
                } else {
                    let line = plan.command.render(&plan.spec, &Template::srun())?;
                    let _ = write!(text, "\n{line}");
                }
            }
        }
        terminal::print(&text)?;
        Ok(Exit::Done)
    }
}

impl JobPlan {
    fn log_folder(&self) -> Result<(), Failure> {
        fs::create_dir_all(&self.command.log_dir).map_err(|error| {
            let message = format!(
                "cannot write the folder of the job's log, {}: {error}; choose --work-dir",
                self.command.log_dir
            );
            Failure::new(Exit::CannotWrite, message)
        })
    }

    /// A job that cannot use its GPUs does not go into a queue.
    fn usable(&self) -> Result<(), Failure> {
        let Some(why) = &self.never else { return Ok(()) };
        let message = format!(
            "the job asks for {} GPUs, but its ranks could use none: {why}",
            self.spec.shape.ranks
        );
        Err(Failure::new(Exit::Unavailable, message))
    }

    /// What to say of a training that a GPU of this site has hardly enough memory for, as far as
    /// the profile knows.
    fn hardly_fits(&self, kind: JobKind) -> Option<String> {
        let memory = self
            .site
            .as_ref()?
            .gpu
            .memory
            .filter(|_| kind == JobKind::Train && self.spec.shape.gpus_per_node > 0)?;
        match Footprint::of(&self.experiment, None) {
            Ok(footprint) => footprint.misfit(memory.0),
            Err(error) => {
                Some(format!("how much memory a training step takes was not found: {error}"))
            }
        }
    }

    /// Why there is no Slurm here, if there is none.
    fn without_slurm(&self) -> Option<String> {
        match &self.reach {
            Reach::Answers => None,
            Reach::NotInstalled(programs) => {
                Some(format!("no Slurm here ({} not on PATH)", programs.join(", ")))
            }
            Reach::Silent(said) => Some(format!("no Slurm controller answers ({said})")),
        }
    }

    /// Whether Slurm would take the job; its estimate of the start.
    fn accepted(&self, script: &str) -> Result<String, Failure> {
        if let Some(error) = client::misfit(&self.spec, &client::partitions()) {
            return Err(error.into());
        }
        Ok(client::test_only(&self.spec, script)?)
    }

    fn submit(&self, script: &str) -> Result<Exit, Failure> {
        if let Some(error) = client::misfit(&self.spec, &client::partitions()) {
            return Err(error.into());
        }
        let job = client::submit(&self.spec, script)?;
        let on = job.cluster.map(|it| format!(" on cluster {it}")).unwrap_or_default();
        let log = self
            .command
            .log(&self.spec)
            .replace("%j", &job.id.to_string())
            .replace("%A", &job.id.to_string());
        let log = log.replace("%%", "%");
        terminal::note(format!(
            "segslurm: submitted job {}{on}: {}",
            job.id,
            self.spec.shape.describe()
        ));
        terminal::note(format!("  log     {log}"));
        let quoted = shlex::try_quote(&log).unwrap_or_default();
        // Every element of an array has a log of its own.
        match log.strip_suffix("_%a.log") {
            Some(stem) => terminal::note(format!(
                "  follow  tail -F {}_*.log",
                shlex::try_quote(stem).unwrap_or_default()
            )),
            None => terminal::note(format!("  follow  tail -F {quoted}")),
        }
        terminal::note(format!("  state   squeue -j {}", job.id));
        if self.spec.kind == JobKind::Train {
            terminal::note(format!(
                "  stop    scancel --batch --signal=INT {}    (saves first)",
                job.id
            ));
        }
        terminal::note(format!("  cancel  scancel {}", job.id));
        // For scripts: `JOB=$(segslurm train … --batch)`.
        terminal::print(format!("{}\n", job.id))?;
        Ok(Exit::Done)
    }

    fn ranks_here(&self, submit: &SubmitArgs) -> usize {
        let visible = self.gpus_here;
        let asked = self.spec.shape.ranks;
        submit.nproc.map_or_else(
            || if visible == 0 { 1 } else { asked.min(visible) },
            std::num::NonZeroUsize::get,
        )
    }

    /// The port that was chosen for the ranks.
    fn port(&self) -> Result<Option<Port>, Failure> {
        let exported =
            |name: &str| self.spec.exports.iter().find(|it| it.0 == name).map(|it| it.1.clone());
        Ok(Port::chosen(self.experiment.env_cfg.dist_cfg.port, &exported, &["MASTER_PORT"])?)
    }

    /// How many ranks run here, and what that changes.
    fn describe_here(&self, kind: JobKind, ranks: usize) -> String {
        let on = if self.gpus_here == 0 { "on the CPU" } else { "with one GPU each" };
        let mut text = format!("{ranks} rank{} {on}", if ranks == 1 { "" } else { "s" });
        let asked = self.spec.shape.ranks;
        let batch = self.experiment.train_dataloader.as_ref().map(|it| it.batch_size);
        if let (JobKind::Train, Some(batch), true) = (kind, batch, asked != ranks) {
            let _ = write!(
                text,
                "; a step sees {} images instead of {} ({asked} ranks with {batch} each), which \
                 may want another learning rate",
                ranks * batch,
                asked * batch
            );
        }
        text
    }
}
