//! Where a training begins: which run it is, which checkpoint it takes, and what of that
//! checkpoint.
//!
//! A start without `resume` begins a new run, with the weights of `load_from` where there is one.
//! `resume` goes on with the newest checkpoint of the run that the work dir is busy with; a
//! `load_from` in the config is where that run began, and counts only while the run has no
//! checkpoint of its own. `load_from` on the command line is an order: that very file. And a job
//! that a queue starts again goes on with its own run, whatever its command line said the first
//! time.
//!
//! Rank 0 decides for all: file systems do not show all machines the same at the same moment.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::build::Setting;
use super::weights;
use crate::checkpoint::{
    Beginning, Checkpoint, CurrentRun, Found, Naming, Places, RunId, Source, Survey,
    last_checkpoint, mmengine, record_newest,
};
use crate::exit::{Exit, Failure, Within};

/// What a start was asked for besides its config.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    /// `load_from` stands on the command line, not in the config.
    pub file: bool,
    /// So does `resume`.
    pub resume: bool,
    /// The queue's name of the job that this is.
    pub job: Option<String>,
    /// Whether the queue has started that job before.
    pub again: bool,
}

/// A training's beginning.
pub(super) struct Start {
    pub(super) run: RunId,
    /// The checkpoint to take.
    pub(super) checkpoint: Option<(PathBuf, Checkpoint)>,
    /// Whether its whole state is taken, not the weights alone.
    pub(super) with_state: bool,
    /// On rank 0: the work dir says what it is busy with.
    pub(super) beginning: Option<Beginning>,
}

/// What rank 0 decides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Decision {
    run: RunId,
    /// As it was named: each machine finds its own copy of what comes from the network.
    path: Option<PathBuf>,
    with_state: bool,
}

impl Start {
    /// Decides where this start begins, reads the checkpoint, and notes in the work dir which run
    /// it is.
    pub(super) fn find(setting: &Setting) -> Result<Self, Failure> {
        let group = &setting.group;
        let (decision, read, beginning) = if group.is_main() {
            let place = StartContext::of(setting);
            let (decision, read) = place.decide()?;
            let beginning = place.note(&decision)?;
            group.broadcast_text(&serde_json::to_string(&decision).map_err(Failure::fault)?)?;
            (decision, read, Some(beginning))
        } else {
            (serde_json::from_str(&group.broadcast_text("")?).map_err(Failure::fault)?, None, None)
        };
        let Decision { run, path, with_state } = decision;
        let checkpoint = match (path, read) {
            (None, _) => None,
            (Some(path), read) => {
                let path = weights::obtain(&path, setting)?;
                let all = "rank 0 starts from this checkpoint; every rank needs it, on a file \
                           system that all share";
                let checkpoint = match read {
                    Some(checkpoint) => checkpoint,
                    None if group.is_main() => Checkpoint::read(&path)?,
                    None => Checkpoint::read(&path).within(all)?,
                };
                tracing::info!(
                    "{} {}",
                    if with_state { "resuming from" } else { "loading weights from" },
                    path.display()
                );
                Some((path, checkpoint))
            }
        };
        Ok(Self { run, checkpoint, with_state, beginning })
    }
}

fn same(left: &Path, right: &Path) -> bool {
    std::fs::canonicalize(left).ok() == std::fs::canonicalize(right).ok()
}

/// What rank 0 finds before it decides.
struct StartContext<'a> {
    asked: &'a Asked,
    resume: bool,
    load_from: Option<&'a Path>,
    work_dir: &'a Path,
    /// Where checkpoints lie.
    folder: &'a Path,
    naming: Naming,
    places: &'a Places,
    current: Option<CurrentRun>,
}

impl<'a> StartContext<'a> {
    fn of(setting: &'a Setting) -> Self {
        let work_dir = setting.rundir.work_dir();
        let current = CurrentRun::load(work_dir).unwrap_or_else(|error| {
            let file = work_dir.join("current_run");
            tracing::warn!(
                "{} cannot be read ({error}): the run is told by its checkpoints alone",
                file.display()
            );
            None
        });
        Self {
            asked: &setting.asked,
            resume: setting.experiment.resume,
            load_from: setting.experiment.load_from.as_deref(),
            work_dir,
            folder: setting.checkpoints(),
            naming: setting.naming(),
            places: &setting.places,
            current,
        }
    }

    /// The decision, and the checkpoint where deciding took reading it.
    fn decide(&self) -> Result<(Decision, Option<Checkpoint>), Failure> {
        let survey = Survey::of(self.folder, self.work_dir, &self.naming)?;
        if self.started_before(&survey) {
            return self.go_on(survey);
        }
        match (self.resume, self.load_from) {
            (true, Some(file)) if self.asked.file => self.go_on_from(file, &survey),
            (true, _) => self.go_on(survey),
            (false, _) => Ok((self.begin(&survey), None)),
        }
    }

    /// Whether a queue starts this job once more, which has begun or gone on with this work dir's
    /// run before.
    fn started_before(&self, survey: &Survey) -> bool {
        match (&self.asked.job, &self.current) {
            _ if !self.asked.again => false,
            (Some(job), Some(current)) => current.jobs.contains(job),
            // Begun by a version that took no notes.
            (_, None) => !survey.entries.is_empty(),
            (None, _) => false,
        }
    }

    /// A new run, beside those that are there.
    fn begin(&self, survey: &Survey) -> Decision {
        let folder = self.folder.display();
        if let Some(newest) = survey.entries.last() {
            let path = newest.path.display();
            tracing::warn!(
                "{folder} holds checkpoints of another run, the newest {path} (iteration {}): this \
                 start begins a new run, which keeps them (one whose name it needs becomes \
                 …-{}.safetensors); to go on with that one instead, start with --resume \
                 --cfg-options load_from={path}",
                newest.iteration,
                newest.run.own_part()
            );
        }
        Decision {
            run: self.new_run(survey),
            path: self.load_from.map(Path::to_owned),
            with_state: false,
        }
    }

    fn new_run(&self, survey: &Survey) -> RunId {
        RunId::draw(survey.latest_run().max(self.current.as_ref().map(|it| &it.id)))
    }

    /// Goes on with the run of the work dir.
    fn go_on(&self, survey: Survey) -> Result<(Decision, Option<Checkpoint>), Failure> {
        let new_run = self.new_run(&survey);
        let folder = self.folder.display();
        let latest = survey.entries.last().cloned();
        if let Some(found) = self.of_mmengine(&survey)? {
            for problem in &found.skipped {
                tracing::warn!("skipped: {problem}");
            }
            tracing::info!(
                "{} is a checkpoint of mmengine's, which stays as it is",
                found.path.display()
            );
            return Ok((
                Decision { run: new_run, path: Some(found.path), with_state: true },
                Some(found.checkpoint),
            ));
        }
        let run = self.current.as_ref().map(|it| &it.id).or(survey.latest_run()).cloned();
        if let Some(found) = survey.newest(run.as_ref().unwrap_or(&RunId::default()))? {
            for problem in &found.skipped {
                tracing::warn!("skipped: {problem}");
            }
            self.point_to(&found.path)?;
            let run = run.filter(|it| !it.is_unknown()).unwrap_or(new_run);
            return Ok((
                Decision { run, path: Some(found.path), with_state: true },
                Some(found.checkpoint),
            ));
        }
        if let Some(current) = &self.current {
            let others = latest.map_or_else(String::new, |it| {
                let path = it.path.display();
                format!(
                    "; the checkpoints here are of another run, and --resume --cfg-options \
                     load_from={path} goes on with that one"
                )
            });
            tracing::warn!(
                "the run of {folder}, {}, has no checkpoint yet: it begins again{others}",
                current.id
            );
            // Where it began, unless the config or the command line says another place, or none.
            let said = self.load_from.is_some() || self.asked.file;
            let from = if said && !current.with_state {
                self.load_from.map(Path::to_owned)
            } else {
                current.from.clone()
            };
            return Ok((
                Decision { run: current.id.clone(), path: from, with_state: current.with_state },
                None,
            ));
        }
        // `resume` and `load_from` side by side in a config are mmengine's way to say "go on from
        // this file".
        let with_state = self.load_from.is_some() && !self.asked.resume;
        if let Some(file) = self.load_from.filter(|_| with_state) {
            let (local, checkpoint) = self.read(file)?;
            if checkpoint.meta.is_weights_alone() && mmengine::read(&local)?.is_none() {
                let message = format!(
                    "the config has resume: true and load_from: {}, but that file holds weights \
                     alone, and no state of a training to go on with; leave resume out to begin a \
                     run from these weights",
                    file.display()
                );
                return Err(Failure::new(Exit::Data, message));
            }
            tracing::info!(
                "no checkpoint in {folder} yet: going on from load_from, {}",
                file.display()
            );
            return Ok((
                Decision { run: new_run, path: Some(file.to_owned()), with_state },
                Some(checkpoint),
            ));
        }
        match self.load_from {
            Some(file) => tracing::info!(
                "--resume: no checkpoint in {folder} yet, starting from load_from, {}",
                file.display()
            ),
            None => {
                tracing::warn!("--resume: no checkpoint in {folder}, starting from the beginning");
            }
        }
        Ok((Decision { run: new_run, path: self.load_from.map(Path::to_owned), with_state }, None))
    }

    /// `last_checkpoint` names another than the newest where a run was killed between saving and
    /// saying so, or where somebody wrote into it. From now on it names the newest.
    fn point_to(&self, newest: &Path) -> Result<(), Failure> {
        let last = last_checkpoint(self.work_dir);
        if last.as_ref().is_some_and(|it| same(it, newest)) {
            return Ok(());
        }
        if let Some(last) = last {
            let (last, path) = (last.display(), newest.display());
            tracing::warn!(
                "last_checkpoint names {last}, but {path} is this run's newest and is taken; to go \
                 back, start with --resume --cfg-options load_from={last}"
            );
        }
        record_newest(self.work_dir, newest).map_err(|error| {
            Failure::new(
                Exit::CannotWrite,
                format!("cannot write last_checkpoint in {}: {error}", self.work_dir.display()),
            )
        })
    }

    /// mmengine's latest checkpoint, where mmengine was the last to write one here. A run of ours
    /// that has none yet knows by its own notes where it began.
    fn of_mmengine(&self, survey: &Survey) -> Result<Option<Found>, Failure> {
        let pending = self.current.as_ref().is_some_and(|it| survey.newest_entry(&it.id).is_none());
        Ok(if pending { None } else { mmengine::newest(self.work_dir)? })
    }

    /// Goes on from a file that the command line names. It is the same run only where that file is
    /// its newest: a run that goes back would meet its own later checkpoints.
    fn go_on_from(
        &self,
        file: &Path,
        survey: &Survey,
    ) -> Result<(Decision, Option<Checkpoint>), Failure> {
        let (local, checkpoint) = self.read(file)?;
        if checkpoint.meta.is_weights_alone() && mmengine::read(&local)?.is_none() {
            return Err(self.weights_alone(file, survey));
        }
        let run = &checkpoint.meta.run_id;
        let newest = survey.newest_entry(run).filter(|_| !run.is_unknown());
        let own = newest.is_some_and(|newest| {
            let here = survey.entries.iter().find(|it| same(&it.path, &local));
            here.is_some_and(|it| it.iteration == newest.iteration)
        });
        let run = if own { run.clone() } else { self.new_run(survey) };
        let path =
            if Source::parse(file, self.places)?.is_remote() { file.to_owned() } else { local };
        Ok((Decision { run, path: Some(path), with_state: true }, Some(checkpoint)))
    }

    /// A checkpoint that was named, and its file on this machine.
    fn read(&self, file: &Path) -> Result<(PathBuf, Checkpoint), Failure> {
        let local = Source::parse(file, self.places)?.fetched()?;
        let checkpoint = Checkpoint::read(&local)?;
        Ok((local, checkpoint))
    }

    fn weights_alone(&self, file: &Path, survey: &Survey) -> Failure {
        let file = file.display();
        let run = self.current.as_ref().map(|it| &it.id).or(survey.latest_run());
        let own = run.and_then(|it| survey.newest_entry(it)).map_or_else(String::new, |it| {
            format!(
                ", or write --resume without load_from to go on with the newest checkpoint here, \
                 {}",
                it.path.display()
            )
        });
        let message = format!(
            "--resume --cfg-options load_from={file}: that file holds weights alone, and no state \
             of a training to go on with; write --cfg-options load_from={file} without --resume to \
             begin a run from these weights{own}"
        );
        Failure::new(Exit::Data, message)
    }

    /// What a path means wherever the program is started the next time.
    fn lasting(&self, named: &Path) -> Option<PathBuf> {
        let source = Source::parse(named, self.places).ok()?;
        if source.is_remote() {
            Some(named.to_owned())
        } else {
            std::path::absolute(source.local().ok()??).ok()
        }
    }

    /// Notes in the work dir which run it is busy with.
    fn note(&self, decision: &Decision) -> Result<Beginning, Failure> {
        let before = self.current.clone().filter(|it| it.id == decision.run);
        let from = decision.path.as_deref().and_then(|it| self.lasting(it));
        let new = || CurrentRun {
            id: decision.run.clone(),
            from,
            with_state: decision.with_state,
            jobs: Vec::new(),
        };
        let mut current = before.unwrap_or_else(new);
        if let Some(job) = &self.asked.job
            && !current.jobs.contains(job)
        {
            current.jobs.push(job.clone());
        }
        current.begin(self.work_dir).map_err(|error| {
            let file = self.work_dir.join("current_run");
            Failure::new(Exit::CannotWrite, format!("cannot write {}: {error}", file.display()))
        })
    }
}
