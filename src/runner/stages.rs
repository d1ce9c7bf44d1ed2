//! How a training comes to be, stage by stage: each takes what the one before it made, so that the
//! order is the types'.

use std::sync::Arc;

use super::build::{
    Setting, Training, average, describe, refuse_unknown_metrics, scaled, validation,
};
use super::evaluate::Evaluation;
use super::interrupt::Interrupt;
use super::journal::Journal;
use super::learner::{Learner, dropout_seed};
use super::lone_value;
use super::memory_format;
use super::mmengine;
use super::progress::{Progress, TrainPlan};
use super::start::Start;
use super::state::{Best, RunState};
use super::stopping::Stopping;
use super::survey::Survey;
use super::weights;
use crate::checkpoint::Fit;
use crate::data::{DataloaderConfig, Dataset, Loader, LoaderOptions, Position, SamplerConfig};
use crate::exit::{Exit, Failure, Within};
use crate::experiment::{Experiment, TrainLoopConfig};
use crate::metrics::Sink;
use crate::ops::Handle;
use crate::optim::{Horizon, OptimWrapperConfig, Schedule};
use crate::rundir;

/// The sections that a training cannot do without.
struct Needed {
    loader: DataloaderConfig,
    train_cfg: TrainLoopConfig,
    optim_wrapper: OptimWrapperConfig,
}

impl Needed {
    fn of(experiment: &Experiment) -> Result<Self, Failure> {
        let missing = |what: &str| {
            Failure::new(Exit::Config, format!("the config has no {what}, which a training needs"))
        };
        Ok(Self {
            loader: experiment
                .train_dataloader
                .clone()
                .ok_or_else(|| missing("train_dataloader"))?,
            train_cfg: experiment.train_cfg.clone().ok_or_else(|| missing("train_cfg"))?,
            optim_wrapper: experiment
                .optim_wrapper
                .clone()
                .ok_or_else(|| missing("optim_wrapper"))?,
        })
    }
}

/// The data that was looked at, on all ranks.
pub(super) struct Data {
    needed: Needed,
    dataset: Arc<Dataset>,
    evaluation: Option<Evaluation>,
    stopping: Vec<Stopping>,
}

impl Data {
    pub(super) fn look(setting: &Setting) -> Result<Self, Failure> {
        let experiment = &setting.experiment;
        experiment.check_training()?;
        let needed = Needed::of(experiment)?;
        let (num_classes, ignore_index) =
            (experiment.model.num_classes(), experiment.model.ignore_index());
        let dataset = Arc::new(needed.loader.dataset.init()?.for_model(num_classes, ignore_index));
        let mut survey = Survey::new(&setting.group);
        survey.look("train_dataloader.dataset", &dataset)?;
        let evaluation = validation(experiment, &setting.rundir, &mut survey)?;
        survey.end()?;
        let stopping = experiment.early_stopping().into_iter().map(Stopping::new).collect();
        refuse_unknown_metrics(experiment, evaluation.as_ref())?;
        Ok(Self { needed, dataset, evaluation, stopping })
    }

    /// Iterations of one pass over the data.
    fn epoch_length(&self, world: usize) -> u64 {
        let (per_rank, batch) = (self.dataset.len().div_ceil(world), self.needed.loader.batch_size);
        let length =
            if self.needed.loader.drop_last { per_rank / batch } else { per_rank.div_ceil(batch) };
        length.max(1) as u64
    }
}

/// Where this start begins, and how long the training is.
pub(super) struct Planned {
    data: Data,
    start: Start,
    plan: TrainPlan,
}

impl Planned {
    pub(super) fn new(data: Data, setting: &Setting) -> Result<Self, Failure> {
        let experiment = &setting.experiment;
        let start = Start::find(setting)?;
        let (epoch_length, validates) =
            (data.epoch_length(setting.group.world()), data.evaluation.is_some());
        let plan = TrainPlan::new(
            &data.needed.train_cfg,
            &experiment.checkpoint_hook(),
            epoch_length,
            validates,
        );
        if let Some(hook) = experiment.ema_hook() {
            let epochs = (plan.max_iterations / epoch_length).max(1);
            for (key, begin, end) in [
                ("begin_iter", hook.begin_iter, plan.max_iterations),
                ("begin_epoch", hook.begin_epoch, epochs),
            ] {
                if begin > end {
                    let message = format!(
                        "custom_hooks: EMAHook.{key} is {begin}, and this training ends at {end}"
                    );
                    return Err(Failure::new(Exit::Config, message));
                }
            }
        }
        Ok(Self { data, start, plan })
    }

    fn horizon(&self) -> Horizon {
        let TrainPlan { max_iterations, epoch_length, by_epoch, .. } = self.plan;
        let max_epochs = by_epoch.then(|| max_iterations / epoch_length);
        Horizon { max_epochs, max_iters: max_iterations, epoch_length }
    }
}

/// The model with the weights that it begins with, and what changes it.
pub(super) struct Loaded {
    planned: Planned,
    learner: Learner,
    schedule: Schedule,
}

impl Loaded {
    pub(super) fn new(mut planned: Planned, setting: &Setting) -> Result<Self, Failure> {
        let (experiment, group) = (&setting.experiment, &setting.group);
        let needed = &planned.data.needed;
        let format = memory_format::decide(&experiment.env_cfg, &setting.device)?;
        let (device, iterations) = (setting.device.clone().autodiff(), planned.plan.max_iterations);
        let mut learner = Learner::new(
            &experiment.model,
            &needed.optim_wrapper,
            &device,
            group,
            setting.seed,
            iterations,
            format,
        )?;
        if let Some(dtype) = learner.half {
            let scaled = if learner.scaler.is_some() { "with" } else { "without" };
            tracing::info!("mixed precision: {dtype}, {scaled} a loss scale");
        }
        let initial =
            scaled(learner.optimizer.initial_rates(), experiment, needed.loader.batch_size, group);
        let horizon = planned.horizon();
        let with_state = planned.start.with_state;
        match &mut planned.start.checkpoint {
            Some((path, checkpoint)) if with_state => {
                mmengine::take_averages(path, checkpoint)?;
                let averages = experiment.ema_hook().is_some();
                weights::load(
                    &learner.weights,
                    &weights::to_train(checkpoint, averages),
                    path,
                    Fit::Exact,
                )
                .within(
                    "a training goes on with weights of its own shapes; load_from, without \
                     --resume, begins a new one",
                )?;
                if let Some(evaluation) = &planned.data.evaluation {
                    evaluation.refuse_other_classes(&checkpoint.meta.dataset_meta.classes, path)?;
                }
            }
            begin => {
                let given =
                    begin.as_ref().map(|(path, checkpoint)| (path.as_path(), &checkpoint.model));
                weights::begin(&learner.weights, learner.segmentor.pretrained(), given, setting)?;
            }
        }
        let mut schedule = Schedule::new(&experiment.param_scheduler, &initial, horizon)?;
        if with_state && let Some((path, checkpoint)) = &mut planned.start.checkpoint {
            mmengine::take_over(path, checkpoint, &learner, &mut schedule, &planned.plan, setting)?;
        }
        learner.seed = dropout_seed(setting.seed, group);
        Ok(Self { planned, learner, schedule })
    }
}

/// The state that the training goes on with; of a new one there is none.
pub(super) struct Resumed {
    loaded: Loaded,
    state: Option<RunState>,
}

impl Resumed {
    pub(super) fn new(mut loaded: Loaded, setting: &Setting) -> Result<Self, Failure> {
        let start = &loaded.planned.start;
        let Some((path, checkpoint)) = start.checkpoint.as_ref().filter(|_| start.with_state)
        else {
            return Ok(Self { loaded, state: None });
        };
        // Its message, of a file without any, tells more than the optimizer's.
        let state = RunState::from_map(&checkpoint.meta.run, path)?;
        let saved = checkpoint
            .optimizer
            .iter()
            .map(|(name, it)| (name.clone(), Handle::sharing(it)))
            .collect();
        loaded.learner.optimizer.load_state(&saved)?;
        if let (Some(scaler), Some(saved)) = (&mut loaded.learner.scaler, &state.scaler) {
            scaler.load_state(saved);
        }
        loaded.learner.seed = dropout_seed(state.seed, &setting.group);
        let world = setting.group.world();
        tracing::info!(
            "resumed at iteration {}, run {}, seed {}",
            state.progress.iteration,
            start.run,
            state.seed
        );
        if state.world != world {
            tracing::warn!(
                "the checkpoint is of a run of {} ranks and this one has {world}: it goes on \
                 exactly but for the order of images",
                state.world
            );
        }
        Ok(Self { loaded, state: Some(state) })
    }

    /// Puts the parts together. All ranks come here together.
    pub(super) fn training(
        self,
        setting: Setting,
        interrupt: Interrupt,
    ) -> Result<Training, Failure> {
        let Self { loaded: Loaded { planned, mut learner, mut schedule }, state } = self;
        let Planned { data: Data { needed, dataset, evaluation, mut stopping }, start, plan } =
            planned;
        let experiment = &setting.experiment;
        let group = setting.group.clone();
        let progress = state.as_ref().map_or_else(Progress::default, |it| it.progress.clone());
        let seed = state.as_ref().map_or(setting.seed, |it| it.seed);

        let position = match needed.loader.sampler {
            SamplerConfig::InfiniteSampler(_) => Position { epoch: 0, batch: progress.iteration },
            SamplerConfig::DefaultSampler(_) => Position {
                epoch: progress.iteration / plan.epoch_length,
                batch: progress.iteration % plan.epoch_length,
            },
        };
        let options = LoaderOptions {
            rank: group.rank(),
            world: group.world(),
            seed,
            start: position,
            repeat: true,
        };
        let batches = Loader::new(Arc::clone(&dataset), &needed.loader, &options)?;

        let vis_data = setting.rundir.vis_data();
        let sink =
            group.is_main().then(|| Sink::open(&experiment.visualizer().vis_backends, &vis_data));
        let sink = sink.transpose().map_err(|error| {
            Failure::new(
                Exit::CannotWrite,
                format!("cannot write scalars into {}: {error}", vis_data.display()),
            )
        })?;
        let (logger, processor) = (experiment.logger(), &experiment.log_processor);
        let mut journal = Journal::new(
            plan.clone(),
            logger,
            processor,
            sink,
            setting.console.clone(),
            progress.iteration,
        );
        let mut best = Best::new();
        let mut stopped = None;
        let mut average = average(&learner, experiment.ema_hook());
        let skipped = state.as_ref().and_then(|it| it.scaler).map_or(0, |it| it.skipped);
        if let Some(state) = state {
            journal.restore(state.window);
            best = state.best;
            schedule.restore(state.observed);
            stopping.iter_mut().zip(state.stopping).for_each(|(it, seen)| it.seen = seen);
            stopped = stopping.iter().find_map(Stopping::spent);
            if let (Some(average), Some((path, checkpoint))) = (&mut average, &start.checkpoint) {
                if checkpoint.trained.is_empty() {
                    let path = path.display();
                    tracing::warn!(
                        "{path} has no averaged weights: the EMAHook's begin as a copy of its \
                         weights"
                    );
                }
                average.restore(
                    |name| checkpoint.model.get(name).map(Handle::sharing),
                    state.averaged.unwrap_or(0),
                );
            }
        }
        describe(&dataset, evaluation.as_ref(), &learner, &plan);
        learner.join_ranks(&experiment.model_wrapper())?;
        lone_value::refuse(&learner, &needed.loader, &dataset, &plan)?;
        if group.is_main() {
            sweep(&setting);
        }
        let traffic = group.traffic();
        let (run, beginning) = (start.run, start.beginning);
        let setting = Setting { seed, ..setting };
        Ok(Training {
            plan,
            progress,
            batches,
            schedule,
            learner,
            interrupt,
            group,
            run,
            beginning,
            setting,
            evaluation,
            journal,
            dataset,
            best,
            average,
            stopping,
            stopped,
            traffic,
            skipped,
        })
    }
}

/// Removes what killed runs left unfinished in the folders that are this training's now.
fn sweep(setting: &Setting) {
    let folders = [setting.rundir.work_dir(), setting.checkpoints()];
    let distinct = if folders[0] == folders[1] { &folders[..1] } else { &folders[..] };
    for folder in distinct {
        match rundir::sweep(folder) {
            Ok(0) => {}
            Ok(count) => tracing::info!("removed {count} unfinished files that a killed run left"),
            Err(error) => {
                tracing::warn!("cannot look for unfinished files of killed runs: {error}");
            }
        }
    }
}
