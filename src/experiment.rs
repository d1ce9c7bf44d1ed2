//! The whole config as a type, and the checks that span its sections, made before any queue or device is touched.

mod agreement;

use std::path::PathBuf;

use serde::Deserialize;

use crate::config::Config;
use crate::data::{DataloaderConfig, Transform};
use crate::ddp::WrapperConfig;
use crate::dist::DistConfig;
use crate::exit::{Exit, Failure};
use crate::logging::LogLevel;
use crate::metrics::{IoUMetricConfig, VisBackendConfig};
use crate::models::SegmentorConfig;
use crate::optim::{OptimWrapperConfig, ParamSchedulerConfig};

/// The typed root: one field for each top-level key of an mmseg config.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    pub model: SegmentorConfig,
    #[serde(default)]
    pub train_dataloader: Option<DataloaderConfig>,
    #[serde(default)]
    pub val_dataloader: Option<DataloaderConfig>,
    #[serde(default)]
    pub test_dataloader: Option<DataloaderConfig>,
    #[serde(default)]
    pub val_evaluator: Option<EvaluatorConfig>,
    #[serde(default)]
    pub test_evaluator: Option<EvaluatorConfig>,
    #[serde(default)]
    pub optim_wrapper: Option<OptimWrapperConfig>,
    #[serde(default)]
    pub param_scheduler: Vec<ParamSchedulerConfig>,
    #[serde(default)]
    pub train_cfg: Option<TrainLoopConfig>,
    #[serde(default)]
    pub val_cfg: Option<ValLoopConfig>,
    #[serde(default)]
    pub test_cfg: Option<TestLoopConfig>,
    #[serde(default)]
    pub default_hooks: DefaultHooks,
    #[serde(default)]
    pub env_cfg: EnvConfig,
    /// How gradients travel between ranks.
    #[serde(default)]
    pub model_wrapper_cfg: Option<ModelWrapperConfig>,
    /// mmengine's shorthand for a wrapper that looks for parameters without gradients; here every wrapper does.
    #[serde(default)]
    pub find_unused_parameters: bool,
    #[serde(default)]
    pub visualizer: Option<VisualizerConfig>,
    #[serde(default)]
    pub log_processor: LogProcessor,
    #[serde(default)]
    pub log_level: LogLevel,
    #[serde(default)]
    pub load_from: Option<PathBuf>,
    #[serde(default)]
    pub resume: bool,
    #[serde(default)]
    pub work_dir: Option<PathBuf>,
    #[serde(default)]
    pub randomness: Randomness,
    /// Pipelines of test-time augmentation, for `test --tta`.
    #[serde(default)]
    pub tta_pipeline: Option<Vec<Transform>>,
    #[serde(default)]
    pub tta_model: Option<TtaModelSlot>,
    /// Which registry mmengine starts in; segslurm has one, `mmseg`.
    #[serde(default)]
    pub default_scope: Option<String>,
}

/// `val_evaluator`, `test_evaluator`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum EvaluatorConfig {
    IoUMetric(IoUMetricConfig),
}

/// How long to train, and when to validate.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum TrainLoopConfig {
    IterBasedTrainLoop(IterBased),
    EpochBasedTrainLoop(EpochBased),
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IterBased {
    /// Iterations in all.
    #[serde(deserialize_with = "crate::config::positive")]
    pub max_iters: u64,
    /// Validate every so many iterations.
    #[serde(default = "thousand")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub val_interval: u64,
    /// No validation before this iteration.
    #[serde(default = "one")]
    pub val_begin: u64,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochBased {
    /// Epochs in all.
    #[serde(deserialize_with = "crate::config::positive")]
    pub max_epochs: u64,
    /// Validate every so many epochs.
    #[serde(default = "one")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub val_interval: u64,
    /// No validation before this epoch.
    #[serde(default = "one")]
    pub val_begin: u64,
}

fn thousand() -> u64 {
    1000
}

fn one() -> u64 {
    1
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum ValLoopConfig {
    ValLoop(Nothing),
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum TestLoopConfig {
    TestLoop(Nothing),
}

/// A part that has no options.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// The hooks that every mmengine run has. Their work is part of the loop here; these are its settings.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DefaultHooks {
    pub timer: Option<TimerSlot>,
    pub logger: LoggerSlot,
    pub param_scheduler: Option<ParamSchedulerSlot>,
    pub checkpoint: CheckpointSlot,
    pub sampler_seed: Option<SamplerSeedSlot>,
    pub visualization: VisualizationSlot,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum TimerSlot {
    IterTimerHook(Nothing),
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum ParamSchedulerSlot {
    ParamSchedulerHook(Nothing),
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum SamplerSeedSlot {
    DistSamplerSeedHook(Nothing),
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum LoggerSlot {
    LoggerHook(LoggerHook),
}

impl Default for LoggerSlot {
    fn default() -> Self {
        Self::LoggerHook(LoggerHook::default())
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoggerHook {
    /// A log line every so many iterations.
    #[serde(deserialize_with = "crate::config::positive")]
    pub interval: u64,
    /// Plots of metrics have epochs on their x-axis; iterations otherwise.
    pub log_metric_by_epoch: bool,
    /// Log the last, shorter interval of an epoch too.
    pub ignore_last: bool,
}

impl Default for LoggerHook {
    fn default() -> Self {
        Self { interval: 10, log_metric_by_epoch: true, ignore_last: true }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum CheckpointSlot {
    CheckpointHook(CheckpointHook),
}

impl Default for CheckpointSlot {
    fn default() -> Self {
        Self::CheckpointHook(CheckpointHook::default())
    }
}

/// When checkpoints are written and how many stay.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointHook {
    /// Every so many epochs (`by_epoch`) or iterations; -1 for never.
    #[serde(deserialize_with = "crate::config::positive_or_never")]
    pub interval: i64,
    pub by_epoch: bool,
    /// Older checkpoints go; -1 keeps all.
    #[serde(deserialize_with = "crate::config::positive_or_all")]
    pub max_keep_ckpts: i64,
    /// Write one at the end of training.
    pub save_last: bool,
    /// The metric whose best checkpoint is kept, such as `mIoU`.
    pub save_best: Option<String>,
    /// Whether more of that metric is better: `greater` (the default) or `less`.
    pub rule: Option<Rule>,
    /// Another folder than the work dir.
    pub out_dir: Option<PathBuf>,
    /// Save the optimizer's state; a checkpoint without it cannot be resumed exactly.
    pub save_optimizer: bool,
    /// Save the schedulers' state.
    pub save_param_scheduler: bool,
}

impl Default for CheckpointHook {
    fn default() -> Self {
        Self {
            interval: -1,
            by_epoch: true,
            max_keep_ckpts: -1,
            save_last: true,
            save_best: None,
            rule: None,
            out_dir: None,
            save_optimizer: true,
            save_param_scheduler: true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    Greater,
    Less,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum VisualizationSlot {
    SegVisualizationHook(SegVisualizationHook),
}

impl Default for VisualizationSlot {
    fn default() -> Self {
        Self::SegVisualizationHook(SegVisualizationHook::default())
    }
}

/// Painted pictures while validating and testing.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SegVisualizationHook {
    pub draw: bool,
    /// Paint every so many validation images.
    #[serde(deserialize_with = "crate::config::positive")]
    pub interval: usize,
    pub show: bool,
    /// Seconds a shown picture stays.
    #[serde(deserialize_with = "crate::config::not_negative")]
    pub wait_time: f64,
}

impl Default for SegVisualizationHook {
    fn default() -> Self {
        Self { draw: false, interval: 50, show: false, wait_time: 0.0 }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum VisualizerConfig {
    SegLocalVisualizer(SegLocalVisualizer),
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SegLocalVisualizer {
    pub name: String,
    pub vis_backends: Vec<VisBackendConfig>,
    /// The weight of the colours against the image.
    #[serde(deserialize_with = "crate::config::share")]
    pub alpha: f64,
}

impl Default for SegLocalVisualizer {
    fn default() -> Self {
        Self { name: "visualizer".to_owned(), vis_backends: Vec::new(), alpha: crate::visualization::ALPHA }
    }
}

/// `log_processor.type`, which configs of mmseg leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum LogProcessorType {
    LogProcessor,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogProcessor {
    pub r#type: Option<LogProcessorType>,
    /// Losses and times are means over so many iterations.
    #[serde(deserialize_with = "crate::config::positive")]
    pub window_size: usize,
    pub by_epoch: bool,
}

impl Default for LogProcessor {
    fn default() -> Self {
        Self { r#type: None, window_size: 10, by_epoch: true }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum TtaModelSlot {
    SegTTAModel(Nothing),
}

/// `model_wrapper_cfg`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum ModelWrapperConfig {
    MMDistributedDataParallel(WrapperConfig),
}

/// `env_cfg`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnvConfig {
    pub cudnn_benchmark: bool,
    /// TF32 on CUDA, in convolutions and matrix products alike. Left out it is as PyTorch has it: in convolutions alone.
    pub allow_tf32: Option<bool>,
    pub memory_format: MemoryFormatChoice,
    pub mp_cfg: Option<MpConfig>,
    pub dist_cfg: DistConfig,
}

/// How images and convolution weights lie in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryFormatChoice {
    /// The faster one: as measured when a run starts on a GPU, as known on the CPU.
    #[default]
    Auto,
    Contiguous,
    ChannelsLast,
}

/// Settings of Python's data workers. The loader's workers are threads: they are accepted and have no effect.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MpConfig {
    pub mp_start_method: Option<String>,
    pub opencv_num_threads: Option<i64>,
}

/// `randomness`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Randomness {
    /// Seeds weights, sampling, augmentation and dropout; drawn anew for each run when absent.
    pub seed: Option<u64>,
    /// On the CPU a seed gives the same run in any case; on GPUs it is asked in vain, and the log says so.
    pub deterministic: bool,
    /// Without effect: every rank draws its own images and dropout in any case.
    pub diff_rank_seed: bool,
}

impl Experiment {
    /// Types the merged config and refuses one whose sections contradict each other.
    pub fn from_config(config: &Config) -> Result<Self, Failure> {
        let experiment: Self = config.parse().map_err(|error| Failure::new(Exit::Config, error.to_string()))?;
        agreement::check(&experiment)?;
        Ok(experiment)
    }

    /// Every folder of images and label maps that the config names: whose it is, what it holds, where it is.
    pub fn dataset_folders(&self) -> Vec<(String, &'static str, PathBuf)> {
        let loaders = [
            ("train_dataloader.dataset", &self.train_dataloader),
            ("val_dataloader.dataset", &self.val_dataloader),
            ("test_dataloader.dataset", &self.test_dataloader),
        ];
        let loaders = loaders.into_iter().filter_map(|(key, loader)| Some((key, loader.as_ref()?)));
        let sources = loaders.flat_map(|(key, loader)| loader.dataset.sources(key));
        sources.flat_map(|it| it.folders().map(|(what, path)| (it.key.clone(), what, path)).collect::<Vec<_>>()).collect()
    }

    /// Refuses what cannot be trained, though it may be tested.
    pub fn check_training(&self) -> Result<(), Failure> {
        agreement::check_training(self)
    }

    /// Refuses what cannot be tested; `out` says whether the command line names a folder for label maps.
    pub fn check_test(&self, out: bool) -> Result<(), Failure> {
        agreement::check_test(self, out)
    }

    pub fn logger(&self) -> &LoggerHook {
        let LoggerSlot::LoggerHook(logger) = &self.default_hooks.logger;
        logger
    }

    pub fn checkpoint_hook(&self) -> &CheckpointHook {
        let CheckpointSlot::CheckpointHook(hook) = &self.default_hooks.checkpoint;
        hook
    }

    pub fn visualization_hook(&self) -> &SegVisualizationHook {
        let VisualizationSlot::SegVisualizationHook(hook) = &self.default_hooks.visualization;
        hook
    }

    pub fn model_wrapper(&self) -> WrapperConfig {
        match &self.model_wrapper_cfg {
            Some(ModelWrapperConfig::MMDistributedDataParallel(wrapper)) => wrapper.clone(),
            None => WrapperConfig::default(),
        }
    }

    pub fn visualizer(&self) -> SegLocalVisualizer {
        match &self.visualizer {
            Some(VisualizerConfig::SegLocalVisualizer(visualizer)) => visualizer.clone(),
            None => SegLocalVisualizer::default(),
        }
    }
}
