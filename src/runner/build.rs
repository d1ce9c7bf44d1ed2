//! From a typed config to a training that can begin, or go on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use burn::tensor::Device;

use super::evaluate::{Evaluation, Leaves, Pass};
use super::interrupt::Interrupt;
use super::journal::{Communication, Journal, StepFigures};
use super::keeping::{SAVE_BEST, chosen, unknown_metric};
use super::learner::Learner;
use super::outcome::Outcome;
use super::progress::{Progress, TrainPlan};
use super::stages::{Data, Loaded, Planned, Resumed};
use super::start::Asked;
use super::state::Best;
use super::stopping::Stopping;
use super::survey::Survey;
use crate::checkpoint::{Beginning, Naming, Places, RunId};
use crate::data::{Dataset, Loader};
use crate::dist::{Group, Traffic};
use crate::exit::{Exit, Failure};
use crate::experiment::{EmaHook, EmaType, EvaluatorConfig, Experiment};
use crate::lock::Lock;
use crate::logging::Console;
use crate::metrics::Counts;
use crate::ops::GradScaler;
use crate::optim::{Average, Averaging, Schedule};
use crate::rundir::RunDir;
use crate::weights::{Role, Weight};

/// Where a run takes place: everything about it that is not in its config.
pub(crate) struct Setting {
    pub experiment: Experiment,
    /// The merged config, for checkpoints.
    pub config_text: String,
    pub rundir: RunDir,
    /// Where checkpoints lie: the work dir, or one in `checkpoint.out_dir`.
    pub checkpoints: PathBuf,
    pub asked: Asked,
    /// On rank 0 of a training: its hold on the folders that it writes checkpoints into.
    pub locks: Vec<Lock>,
    pub console: Console,
    pub group: Group,
    /// The plain device, without autodiff.
    pub device: Device,
    /// The run's seed, the same on all ranks.
    pub seed: u64,
    /// Folders that names of checkpoints refer to.
    pub places: Places,
}

impl Setting {
    /// Where checkpoints lie.
    pub(super) fn checkpoints(&self) -> &Path {
        &self.checkpoints
    }

    /// How numbered checkpoints are called.
    pub(super) fn naming(&self) -> Naming {
        Naming(self.experiment.checkpoint_hook().filename_tmpl.map(|it| (it.prefix, it.suffix)))
    }

    /// An error where another training has taken the folders over, because this one seemed dead for
    /// minutes.
    pub(super) fn still_held(&self) -> Result<(), Failure> {
        self.locks.iter().try_for_each(|it| it.confirm().map_err(Failure::from))
    }
}

/// A training: its parts, and how far it is.
pub(crate) struct Training {
    pub plan: TrainPlan,
    pub progress: Progress,
    pub batches: Loader,
    pub schedule: Schedule,
    pub learner: Learner,
    pub interrupt: Interrupt,
    pub group: Group,
    /// Whose checkpoints these are.
    pub(super) run: RunId,
    pub(super) beginning: Option<Beginning>,
    pub(super) setting: Setting,
    pub(super) evaluation: Option<Evaluation>,
    pub(super) journal: Journal,
    pub(super) dataset: Arc<Dataset>,
    pub(super) best: Best,
    /// The averages of the weights, where an EMAHook wants them.
    pub(super) average: Option<Average>,
    pub(super) stopping: Vec<Stopping>,
    /// Why the training ends before its plan does.
    pub(super) stopped: Option<String>,
    /// What had been communicated before the step that is logged next.
    pub(super) traffic: Traffic,
    /// Overflowed steps that were told already.
    pub(super) skipped: i64,
}

impl Training {
    /// Builds every part, on the checkpoint that this start begins with. Each stage takes the one
    /// before it: what fails early costs nothing, and nothing is written before all that can be
    /// seen was seen.
    pub(crate) fn new(setting: Setting, interrupt: Interrupt) -> Result<Self, Failure> {
        let data = Data::look(&setting)?;
        let planned = Planned::new(data, &setting)?;
        let loaded = Loaded::new(planned, &setting)?;
        Resumed::new(loaded, &setting)?.training(setting, interrupt)
    }

    /// Whether another step comes.
    pub(crate) fn goes_on(&self) -> bool {
        self.stopped.is_none() && self.progress.iteration < self.plan.max_iterations
    }

    /// Averaged weights follow a finished step. Called after the iteration was counted.
    pub(crate) fn follow(&mut self) {
        let iteration = self.progress.iteration;
        if let (Some(average), Some(hook)) = (&mut self.average, self.setting.experiment.ema_hook())
        {
            // As mmengine counts: epochs that were begun.
            let epoch = (iteration - 1) / self.plan.epoch_length + 1;
            average.update(if hook.begin_epoch > 0 {
                epoch >= hook.begin_epoch
            } else {
                iteration >= hook.begin_iter
            });
        }
    }

    /// Takes a finished step into the log. Called after the iteration was counted.
    pub(crate) fn log(
        &mut self,
        losses: &[(String, f64)],
        rates: &[f64],
        time: Duration,
        data_time: Duration,
    ) -> Result<(), Failure> {
        let rate = |rate: Option<&f64>| rate.copied().unwrap_or(0.0);
        let traffic = self.group.traffic();
        let since = std::mem::replace(&mut self.traffic, traffic);
        let communication = (self.group.world() > 1).then(|| Communication {
            waited: traffic.waited.saturating_sub(since.waited),
            bytes: traffic.bytes - since.bytes,
        });
        let step = StepFigures {
            base_lr: rate(rates.last()),
            lr: rate(rates.first()),
            losses: losses.to_vec(),
            time,
            data_time,
            communication,
        };
        self.journal.step(self.progress.iteration, &step)?;
        if self.journal.log_due(self.progress.iteration) {
            self.tell_overflows();
        }
        Ok(())
    }

    /// Steps that mixed precision skipped since the last time. Reading them waits for the device,
    /// so this is for log lines.
    fn tell_overflows(&mut self) {
        let Some(state) = self.learner.scaler.as_ref().map(GradScaler::state) else { return };
        if state.skipped > self.skipped {
            let count = state.skipped - self.skipped;
            tracing::warn!(
                "{count} step(s) overflowed in half precision and were skipped; the loss scale is \
                 now {}",
                state.scale
            );
        }
        self.skipped = state.skipped;
    }

    /// Validates the weights as they are, and keeps the best checkpoint.
    pub(crate) fn validate(&mut self) -> Result<Outcome, Failure> {
        let Some(evaluation) = &self.evaluation else { return Ok(Outcome::Finished) };
        let Learner { segmentor, preprocessor, .. } = &self.learner;
        let watch = self.journal.watch(self.progress.iteration, evaluation.dataset.len());
        let device = &self.setting.device;
        self.average.iter_mut().for_each(Average::swap);
        let evaluated =
            evaluation.run(segmentor, preprocessor, device, &self.group, &self.interrupt, watch);
        self.average.iter_mut().for_each(Average::swap);
        let Some(evaluated) = evaluated? else {
            return Ok(Outcome::Interrupted);
        };
        self.progress.validation_due = false;
        self.traffic = self.group.traffic();
        if let Some(metrics) = &evaluated.metrics {
            if self.group.is_main() {
                self.journal.validation(
                    self.progress.iteration,
                    metrics,
                    evaluated.images,
                    &evaluated.timing,
                )?;
            }
            self.keep_best(metrics)?;
            self.schedule
                .observe(self.progress.iteration, |name| metrics.summary.get(name).copied());
            let judged = self
                .stopping
                .iter_mut()
                .filter_map(|it| it.judge(*metrics.summary.get(it.monitor())?));
            self.stopped = judged.collect::<Vec<_>>().into_iter().next();
        }
        Ok(Outcome::Finished)
    }
}

pub(super) fn validation(
    experiment: &Experiment,
    rundir: &RunDir,
    survey: &mut Survey<'_>,
) -> Result<Option<Evaluation>, Failure> {
    let evaluators = Some(&experiment.val_evaluator).filter(|it| !it.is_empty());
    let (Some(loader), Some(_), Some(evaluators)) =
        (&experiment.val_dataloader, &experiment.val_cfg, evaluators)
    else {
        let parts = [
            experiment.val_dataloader.is_some(),
            experiment.val_cfg.is_some(),
            evaluators.is_some(),
        ];
        if parts.contains(&true) {
            let message = "val_dataloader, val_cfg and val_evaluator belong together: set all of \
                           them or none";
            return Err(Failure::new(Exit::Config, message));
        }
        return Ok(None);
    };
    let metrics =
        evaluators.iter().map(|EvaluatorConfig::IoUMetric(metric)| metric.clone()).collect();
    let hook = experiment.visualization_hook();
    let leaves = Leaves {
        out_dir: None,
        show_dir: hook.draw.then(|| rundir.vis_data().join("vis_image")),
        interval: hook.interval,
        alpha: experiment.visualizer().alpha,
    };
    Evaluation::new(Pass::Val, loader.clone(), metrics, leaves, experiment, survey).map(Some)
}

/// Names of metrics in hooks that no validation would give are found before the first step.
pub(super) fn refuse_unknown_metrics(
    experiment: &Experiment,
    evaluation: Option<&Evaluation>,
) -> Result<(), Failure> {
    let watched = experiment.watched_metrics();
    let Some(evaluation) = evaluation.filter(|it| it.measured) else {
        return match watched.first() {
            Some((key, name)) => {
                Err(Failure::new(Exit::Config, format!("{key} is {name}, but nothing is measured")))
            }
            None => Ok(()),
        };
    };
    let Some(metrics) =
        evaluation.measure(&Counts::new(evaluation.dataset.metainfo().classes.len()))
    else {
        return Ok(());
    };
    let best = chosen(&experiment.checkpoint_hook(), &metrics)
        .into_iter()
        .map(|it| (SAVE_BEST.to_owned(), it));
    let unknown = best.chain(watched).filter(|(_, name)| !metrics.summary.contains_key(name));
    let told: Vec<String> =
        unknown.map(|(key, name)| unknown_metric(&key, &name, &metrics).message).collect();
    if told.is_empty() { Ok(()) } else { Err(Failure::new(Exit::Config, told.join("\n"))) }
}

/// What is trained, and on what: the size of it all is where most mistakes show.
pub(super) fn describe(
    dataset: &Dataset,
    evaluation: Option<&Evaluation>,
    learner: &Learner,
    plan: &TrainPlan,
) {
    let validated = evaluation.map_or_else(
        || "no validation".to_owned(),
        |it| format!("{} to validate", it.dataset.len()),
    );
    tracing::info!(
        "{} images to train, {validated}, {} classes",
        dataset.len(),
        dataset.metainfo().classes.len()
    );
    let count = |it: &Weight| it.tensor.numel() as f64 / 1e6;
    let all: f64 = learner.weights.parameters().map(count).sum();
    let trained: f64 = learner.weights.trained().map(|(_, it)| count(it)).sum();
    let frozen = if trained < all {
        format!(", {trained:.2} million of them trained")
    } else {
        String::new()
    };
    let length = if plan.by_epoch {
        format!(
            "{} epochs of {} iterations",
            plan.max_iterations / plan.epoch_length,
            plan.epoch_length
        )
    } else {
        format!("{} iterations", plan.max_iterations)
    };
    tracing::info!("{all:.2} million parameters{frozen}; {length}");
}

/// Learning rates as `auto_scale_lr` has them: in proportion to the batch that all ranks have
/// together.
pub(super) fn scaled(
    rates: Vec<f64>,
    experiment: &Experiment,
    batch_size: usize,
    group: &Group,
) -> Vec<f64> {
    let Some(base) =
        experiment.auto_scale_lr.base_batch_size.filter(|_| experiment.auto_scale_lr.enable)
    else {
        return rates;
    };
    let batch = batch_size * group.world();
    let factor = batch as f64 / base as f64;
    tracing::info!(
        "auto_scale_lr: the learning rates are for a batch of {base}, this one has {batch}: they \
         are {factor} times those"
    );
    rates.into_iter().map(|it| it * factor).collect()
}

/// The averages that an EMAHook wants, as copies of the weights.
pub(super) fn average(learner: &Learner, hook: Option<&EmaHook>) -> Option<Average> {
    let hook = hook?;
    let momentum = hook.momentum.map_or(0.0002, |it| it.0);
    let averaging = match hook.ema_type {
        EmaType::ExponentialMovingAverage => Averaging::Exponential { momentum, gamma: None },
        EmaType::MomentumAnnealingEMA => {
            Averaging::Exponential { momentum, gamma: Some(hook.gamma.unwrap_or(100)) }
        }
        EmaType::StochasticWeightAverage => Averaging::Stochastic,
    };
    let tensors = learner
        .weights
        .iter()
        .map(|it| (it.name.clone(), it.tensor.clone(), it.role == Role::Buffer));
    Some(Average::new(averaging, hook.interval, hook.update_buffers, tensors))
}
