//! The whole config as a type, and the checks that span its sections, made before any queue or device is touched.

mod agreement;
mod environment;
mod hooks;
mod loops;
mod visualizer;

use std::path::PathBuf;

use serde::Deserialize;

use crate::config::Config;
use crate::data::{DataloaderConfig, Transform};
use crate::ddp::WrapperConfig;
use crate::exit::{Exit, Failure};
use crate::logging::LogLevel;
use crate::metrics::IoUMetricConfig;
use crate::models::SegmentorConfig;
use crate::optim::{OptimWrapperConfig, ParamSchedulerConfig};

pub use environment::{EnvConfig, MemoryFormatChoice, MpConfig, Randomness};
pub use hooks::{
    CheckpointHook, CheckpointSlot, DefaultHooks, LoggerHook, LoggerSlot, ParamSchedulerSlot, Rule, SamplerSeedSlot,
    SegVisualizationHook, TimerSlot, VisualizationSlot,
};
pub use loops::{EpochBased, IterBased, TestLoopConfig, TrainLoopConfig, ValLoopConfig};
pub use visualizer::{LogProcessor, LogProcessorType, SegLocalVisualizer, VisualizerConfig};

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

/// A part that has no options.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum TtaModelSlot {
    SegTTAModel(Nothing),
}

/// `model_wrapper_cfg`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum ModelWrapperConfig {
    MMDistributedDataParallel(WrapperConfig),
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
