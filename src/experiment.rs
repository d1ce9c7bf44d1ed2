//! The whole config as a type, and the checks that span its sections, made before any queue or
//! device is touched.

mod agreement;
mod completion;
#[cfg(test)]
mod documented;
mod environment;
mod hooks;
mod loops;
#[cfg(test)]
mod mutations;
mod old_style;
mod visualizer;

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::config::{self, Config, ConfigError, Node, OneOrMany, Only, Typed};
use crate::data::{DataloaderConfig, Transform};
use crate::ddp::WrapperConfig;
use crate::dist::Launcher;
use crate::exit::{Exit, Failure};
use crate::logging::LogLevel;
use crate::metrics::IoUMetricConfig;
use crate::models::SegmentorConfig;
use crate::optim::{OptimWrapperConfig, ParamSchedulerConfig};

pub(crate) use environment::{Compile, CustomImports, Randomness};
pub use environment::{EnvConfig, MemoryFormatChoice};
pub(crate) use hooks::{
    CheckpointHook, CustomHook, DefaultHooks, EarlyStoppingHook, EmaHook, EmaType, LoggerHook,
    NameTemplate, PublishedKey, Rule, SegVisualizationHook,
};
pub(crate) use loops::{
    EpochBased, IterBased, Milestone, TestLoopConfig, TrainLoopConfig, ValLoopConfig,
};
pub(crate) use visualizer::{LogProcessor, SegLocalVisualizer};

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
    pub val_evaluator: OneOrMany<EvaluatorConfig>,
    #[serde(default)]
    pub test_evaluator: OneOrMany<EvaluatorConfig>,
    #[serde(default)]
    pub optim_wrapper: Option<OptimWrapperConfig>,
    #[serde(default)]
    pub param_scheduler: OneOrMany<ParamSchedulerConfig>,
    #[serde(default)]
    pub train_cfg: Option<TrainLoopConfig>,
    #[serde(default)]
    pub val_cfg: Option<ValLoopConfig>,
    #[serde(default)]
    pub test_cfg: Option<TestLoopConfig>,
    #[serde(default)]
    pub default_hooks: DefaultHooks,
    #[serde(default)]
    pub custom_hooks: OneOrMany<CustomHook>,
    /// Whether learning rates follow the batch that all ranks have together.
    #[serde(default)]
    pub auto_scale_lr: AutoScaleLr,
    #[serde(default)]
    pub env_cfg: EnvConfig,
    /// How gradients travel between ranks.
    #[serde(default)]
    pub model_wrapper_cfg: Option<Only<WrapperConfig>>,
    /// mmengine's shorthand for a wrapper that looks for parameters without gradients; here every
    /// wrapper does.
    #[serde(default)]
    pub find_unused_parameters: bool,
    #[serde(default)]
    pub visualizer: Option<Only<SegLocalVisualizer>>,
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
    pub tta_model: Option<Only<SegTTAModel>>,
    /// Which registry mmengine starts in; segslurm has one, with the components of mmseg.
    #[serde(default)]
    pub default_scope: Option<Scope>,
    /// Without effect: as in mmseg's tools, `--launcher` says how the ranks are started, and its
    /// default is none.
    #[serde(default)]
    pub launcher: Option<Launcher>,
    /// What mmengine calls the run in its logs.
    #[serde(default)]
    pub experiment_name: Option<String>,
    /// Modules that mmengine imports first. Those of packages whose components are here under the
    /// same names need not be.
    #[serde(default)]
    pub custom_imports: Option<CustomImports>,
    /// Batch norms become synchronised ones where there are several ranks.
    #[serde(default)]
    pub sync_bn: Option<SyncBn>,
    /// Without effect: operations are fused in any case.
    #[serde(default)]
    pub compile: Compile,
    /// What is odd in the config and no error.
    #[serde(skip)]
    pub remarks: Vec<String>,
    /// What it was read from, which knows where each key stands.
    #[serde(skip)]
    tree: Option<Node>,
}

/// `default_scope`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    Mmseg,
    Mmengine,
    Mmcv,
}

/// `sync_bn`: whose implementation mmengine takes. There is one here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncBn {
    Torch,
    Mmcv,
}

/// What a config calls its parts before it uses them. A config that mmengine wrote down still has
/// these names, though nothing refers to them any more.
const USUAL_NAMES: [&str; 24] = [
    "albu_train_transforms",
    "backend_args",
    "backbone_norm_cfg",
    "checkpoint",
    "checkpoint_file",
    "class_weight",
    "classes",
    "crop_size",
    "data_preprocessor",
    "data_root",
    "dataset_type",
    "file_client_args",
    "img_ratios",
    "metainfo",
    "norm_cfg",
    "num_classes",
    "optimizer",
    "palette",
    "reduce_zero_label",
    "test_pipeline",
    "train_pipeline",
    "val_pipeline",
    "vis_backends",
    "vis_interval",
];

/// `val_evaluator`, `test_evaluator`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum EvaluatorConfig {
    IoUMetric(IoUMetricConfig),
}

/// `auto_scale_lr`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AutoScaleLr {
    pub enable: bool,
    /// The batch, of all ranks together, that the config's learning rates are for.
    #[serde(deserialize_with = "crate::config::positive")]
    pub base_batch_size: Option<u64>,
}

/// `tta_model`, which has no keys.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegTTAModel {}

impl Typed for SegTTAModel {
    const TYPES: &'static [&'static str] = &["SegTTAModel"];
}

impl Experiment {
    /// Loads a config file with its changes. What is wrong with its Python or its merging is told
    /// with what is wrong in the rest of it.
    pub fn load_config(path: &Path, overrides: &[String]) -> Result<Config, Failure> {
        config::load(path, overrides).map_err(|error| match error {
            ConfigError::Partly { faults, rest } => {
                let rest = completion::complete(&rest)
                    .ok()
                    .and_then(|it| it.read::<Self>(&USUAL_NAMES).err());
                let more = rest.into_iter().flat_map(|it| it.errors).filter(|it| !it.is_lack());
                ConfigError::all(std::iter::once(*faults).chain(more).collect()).into()
            }
            error => error.into(),
        })
    }

    /// Types the merged config and refuses one whose sections contradict each other.
    pub fn from_config(config: &Config) -> Result<Self, Failure> {
        old_style::refuse(&config.root)?;
        let config = completion::complete(config)?;
        let (mut experiment, remarks) =
            config.read::<Self>(&USUAL_NAMES).map_err(|mut faulty| {
                let contradictions = faulty.value.as_mut().and_then(|it| {
                    it.tree = Some(config.root.clone());
                    agreement::check(it).err()
                });
                let faults = ConfigError::all(faulty.errors).to_string();
                let told = faults
                    + &contradictions.map(|it| format!("\n{}", it.message)).unwrap_or_default();
                Failure::new(Exit::Config, told)
            })?;
        experiment.tree = Some(config.root.clone());
        agreement::check(&experiment)?;
        let old = old_style::remarks(&config.root, &config.variables.names);
        let odd = agreement::remarks(&experiment);
        experiment.remarks =
            config.remarks.iter().cloned().chain(remarks).chain(old).chain(odd).collect();
        if experiment.sync_bn.is_some() {
            experiment.model.synchronize_norms();
        }
        Ok(experiment)
    }

    /// Refuses what is wrong with a config, and says what is odd. A piece of one, such as a base,
    /// may lack its model.
    pub fn check_config(config: &Config) -> Result<Vec<String>, Failure> {
        if config.root.get("model").is_some() {
            return Self::from_config(config).map(|it| it.remarks);
        }
        old_style::refuse(&config.root)?;
        match completion::complete(config)?.read::<Self>(&USUAL_NAMES) {
            Ok((_, remarks)) => Ok(remarks),
            Err(faulty) => {
                let of_model = |it: &ConfigError| matches!(it, ConfigError::Text { message, .. } if message.contains("`model`"));
                let errors: Vec<_> = faulty.errors.into_iter().filter(|it| !of_model(it)).collect();
                if errors.is_empty() {
                    return Ok(vec!["this is a piece of a config: it has no model".to_owned()]);
                }
                Err(ConfigError::all(errors).into())
            }
        }
    }

    /// The first section that a training needs and that is not there.
    pub fn lacks_for_training(&self) -> Option<&'static str> {
        let there = [
            ("train_dataloader", self.train_dataloader.is_some()),
            ("train_cfg", self.train_cfg.is_some()),
            ("optim_wrapper", self.optim_wrapper.is_some()),
        ];
        there.into_iter().find(|(_, there)| !there).map(|(name, _)| name)
    }

    /// Every folder of images and label maps that the config names: whose it is, what it holds,
    /// where it is.
    pub fn dataset_folders(&self) -> Vec<(String, &'static str, PathBuf)> {
        let loaders = [
            ("train_dataloader.dataset", &self.train_dataloader),
            ("val_dataloader.dataset", &self.val_dataloader),
            ("test_dataloader.dataset", &self.test_dataloader),
        ];
        let loaders = loaders.into_iter().filter_map(|(key, loader)| Some((key, loader.as_ref()?)));
        let sources = loaders.flat_map(|(key, loader)| loader.dataset.sources(key));
        sources
            .flat_map(|it| {
                it.folders().map(|(what, path)| (it.key.clone(), what, path)).collect::<Vec<_>>()
            })
            .collect()
    }

    /// Refuses what cannot be trained, though it may be tested.
    pub fn check_training(&self) -> Result<(), Failure> {
        agreement::check_training(self)
    }

    /// Refuses what cannot be tested; `out` says whether the command line names a folder for label
    /// maps.
    pub fn check_test(&self, out: bool) -> Result<(), Failure> {
        agreement::check_test(self, out)
    }

    /// Height and width of images in training: the preprocessor's, else the crop's, else what
    /// mmseg's configs crop to most often.
    pub fn trained_size(&self) -> [usize; 2] {
        let own = self.model.data_preprocessor().and_then(|it| it.size);
        let sources = self.train_dataloader.iter().flat_map(|it| it.dataset.sources(""));
        let mut crops = sources.flat_map(|it| it.pipeline().to_vec()).filter_map(|it| match it {
            Transform::RandomCrop(crop) => Some(crop.crop_size.0),
            _ => None,
        });
        own.or_else(|| crops.next_back()).unwrap_or([512, 512])
    }

    /// The hook that logs; one that is null has an interval without an end.
    pub fn logger(&self) -> LoggerHook {
        match &self.default_hooks.logger {
            Some(Only(logger)) => logger.clone(),
            None => LoggerHook { interval: u64::MAX, ..LoggerHook::default() },
        }
    }

    pub fn checkpoint_hook(&self) -> CheckpointHook {
        self.default_hooks.checkpoint.as_deref().cloned().unwrap_or_else(CheckpointHook::never)
    }

    pub fn visualization_hook(&self) -> SegVisualizationHook {
        self.default_hooks.visualization.as_deref().cloned().unwrap_or_default()
    }

    /// The hook that averages weights, if any.
    pub fn ema_hook(&self) -> Option<&EmaHook> {
        self.custom_hooks
            .iter()
            .find_map(|it| if let CustomHook::EMAHook(hook) = it { Some(hook) } else { None })
    }

    /// The hooks that end a training early.
    pub fn early_stopping(&self) -> Vec<EarlyStoppingHook> {
        let hooks = self.custom_hooks.iter();
        hooks
            .filter_map(|it| {
                if let CustomHook::EarlyStoppingHook(hook) = it { Some(hook.clone()) } else { None }
            })
            .collect()
    }

    /// The metrics that end a training early or act on its rates, with the keys that name them.
    pub fn watched_metrics(&self) -> Vec<(String, String)> {
        let stopping = self.early_stopping().into_iter();
        let stopping =
            stopping.map(|it| ("custom_hooks: EarlyStoppingHook.monitor".to_owned(), it.monitor));
        let schedules = self
            .param_scheduler
            .iter()
            .enumerate()
            .filter_map(|(index, it)| Some((index, it.monitor()?)));
        stopping
            .chain(
                schedules.map(|(index, name)| {
                    (format!("param_scheduler.{index}.monitor"), name.to_owned())
                }),
            )
            .collect()
    }

    pub fn model_wrapper(&self) -> WrapperConfig {
        self.model_wrapper_cfg.as_deref().cloned().unwrap_or_default()
    }

    pub fn visualizer(&self) -> SegLocalVisualizer {
        self.visualizer.as_deref().cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::models::SegmentorConfig;
    /// What becomes of a config whose bases are the shipped ones.
    fn read(file: &str, text: &str, overrides: &[&str]) -> Result<Experiment, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(file);
        std::fs::write(&path, text).expect("a file");
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        let tidy = |text: String| text.replace(&format!("{}/", folder.path().display()), "");
        let config =
            Experiment::load_config(&path, &overrides).map_err(|it| tidy(it.to_string()))?;
        let mut experiment = Experiment::from_config(&config).map_err(|it| tidy(it.to_string()))?;
        experiment.remarks = experiment.remarks.into_iter().map(tidy).collect();
        Ok(experiment)
    }

    const DEMO: &str = "_base_ = ['mmseg::demo/pspnet_r18-d8_demo-128x128.py']\n";

    fn demo(text: &str) -> Result<Experiment, String> {
        read("a.py", &format!("{DEMO}{text}"), &[])
    }

    #[test]
    fn every_fault_of_a_config_is_told_at_once() {
        let text = "model = dict(backbone=dict(depht=18), decode_head=dict(type='PSPhead', \
                    channels='many'),\nauxiliary_head=dict(channels=0, \
                    loss_decode=dict(type='CrossEntropy')))\ntrain_dataloader = \
                    dict(batch_size='two', sampler=dict(type='Infinite'))\nparam_scheduler = \
                    [dict(type='PolyLR', power='x'), dict(type='Poly')]\ndefault_hooks = \
                    dict(logger=dict(intervall=5), checkpoint=dict(interval=0))\nvisualizer = \
                    dict(vis_backends=[dict(type='WandbVisBackend')])\ntrain_cfg = \
                    dict(_delete_=True, type='IterBasedTrainLoop')";
        insta::assert_snapshot!(demo(text).expect_err("is wrong"));
    }

    #[test]
    fn faults_of_python_and_of_merging_do_not_hide_the_others() {
        let text = "import os\nlr = float(os.environ['LR'])\noptim_wrapper = \
                    dict(optimizer=dict(lr=lr), clip_grad=dict(max_norm=1))\ncustom_hooks = \
                    [dict(type='MyHook')]\nmodel = dict(backbone=dict(depht=18))\nval_dataloader = \
                    dict(batch_size=os.cpu_count())\ntest_evaluator = dict(_delete_=True, \
                    type='IoUMetric', metric='mIoU')";
        let error = demo(text).expect_err("is wrong");
        let told: Vec<&str> =
            error.lines().map(|it| it.split(' ').next().unwrap_or_default()).collect();
        assert_eq!(
            told,
            ["a.py:2:", "a.py:3:", "a.py:7:", "a.py:5:", "a.py:6:", "a.py:8:"],
            "{error}"
        );
        let merging =
            "param_scheduler = dict(type='PolyLR')\nmodel = dict(decode_head=dict(chanels=3))";
        let error = demo(merging).expect_err("is wrong");
        assert!(
            error.contains("a.py:2: param_scheduler: a mapping cannot be merged into a list"),
            "{error}"
        );
        assert!(
            error.contains("add `_delete_=True`")
                && error.contains("a.py:3: model.decode_head.chanels: unknown key"),
            "{error}"
        );
        let gone = "def f():\n    return 1\nmodel = dict(_delete_=True, type='EncoderDecoder', \
                    backbone=f())";
        let error = demo(gone).expect_err("is wrong");
        assert!(!error.contains("missing"), "{error}");
    }

    #[test]
    fn contradictions_are_told_beside_unknown_keys() {
        let error =
            demo("model = dict(decode_head=dict(num_classes=5, foo=1))").expect_err("is wrong");
        assert!(
            error.contains("decode_head.foo: unknown key") && error.contains("num_classes is 5"),
            "{error}"
        );
    }

    #[test]
    fn names_of_a_python_config_that_nothing_uses_are_no_error() {
        let experiment = demo(
            "enf_cfg = dict(dist_cfg=dict(port=29500))\nfoo = 3\nimg_ratios = [1.0]\ncrop_size = \
             (64, 64)",
        );
        assert_eq!(
            experiment.expect("is read").remarks,
            [
                "a.py:2: nothing uses `enf_cfg`; did you mean `env_cfg`?",
                "a.py:5: crop_size: no value refers to this name any more; set the values \
                 themselves"
            ]
        );
    }

    #[test]
    fn what_means_nothing_here_is_taken() {
        let text = "custom_imports = None\ncompile = False\nsync_bn = None\nexperiment_name = \
                    'x'\nresume = None\nlauncher = 'pytorch'\ndefault_scope = 'mmseg'\nload_from = \
                    None\nrandomness = None\nenv_cfg = dict(cudnn_benchmark=True)\nparam_scheduler \
                    = dict(_delete_=True, type='mmengine.optim.PolyLR', eta_min=0.0001)\nmodel = \
                    dict(type='mmseg.EncoderDecoder', _scope_='mmseg', \
                    neck=None,\nbackbone=dict(dcn=None, plugins=None, stage_with_dcn=(False, \
                    False, False, False)), \
                    data_preprocessor=dict(batch_augments=None))\ntrain_dataloader = \
                    dict(timeout=0, worker_init_fn=None, batch_sampler=None)\noptim_wrapper = \
                    dict(paramwise_cfg=dict(dcn_offset_lr_mult=0.1))\nvisualizer = \
                    dict(vis_backends=dict(_delete_=True, \
                    type='mmengine.LocalVisBackend'))\ncustom_imports = \
                    dict(imports=['mmpretrain.models'], allow_failed_imports=False)";
        let experiment = demo(text).expect("is read");
        assert_eq!((experiment.param_scheduler.len(), experiment.resume), (1, false));
        let error = demo("custom_imports = dict(imports=['mmseg.models', 'my.models'])")
            .expect_err("would have to run");
        assert!(
            error.starts_with("a.py:2: custom_imports.imports.1: segslurm runs no Python"),
            "{error}"
        );
        assert!(
            demo("default_scope = 'mmdet'").expect_err("another").contains("default_scope"),
            "another scope"
        );
    }

    #[test]
    fn what_mmengine_fills_in_may_be_left_out() {
        let text = "optim_wrapper = dict(_delete_=True, optimizer=dict(type='SGD', \
                    lr=0.1))\nval_cfg = dict(_delete_=True)\ntrain_cfg = dict(_delete_=True, \
                    by_epoch=True, max_epochs=3)\nvisualizer = dict(_delete_=True, name='x', \
                    vis_backends=None)\nparam_scheduler = [dict(type='LinearLR', start_factor=0.1, \
                    verbose=True)]\nmodel = dict(decode_head=dict(dropout_ratio=-1))";
        let experiment = demo(text).expect("is read");
        assert!(
            matches!(experiment.train_cfg, Some(TrainLoopConfig::EpochBasedTrainLoop(_))),
            "{:?}",
            experiment.train_cfg
        );
        let error = demo("default_hooks = dict(mine=dict(type='MyHook'), loger=dict(interval=5))")
            .expect_err("is wrong");
        assert!(
            error.contains("default_hooks.loger: unknown key")
                && !error.contains("default_hooks.mine"),
            "{error}"
        );
    }

    #[test]
    fn sync_bn_makes_batch_norms_synchronised() {
        let experiment = demo("sync_bn = 'torch'").expect("is read");
        let plain = demo("").expect("is read").model;
        let norms = |model: &SegmentorConfig, kind: &str| {
            let built = model.init(&Device::libtorch(), 0).expect("builds");
            format!("{built:?}").matches(kind).count()
        };
        let (sync, other) = ("sync: true", "sync: false");
        assert!(norms(&plain, other) > 20 && norms(&plain, sync) == 0);
        assert_eq!(norms(&experiment.model, other), 0);
        assert_eq!(norms(&experiment.model, sync), norms(&plain, other));
    }

    #[test]
    fn a_preprocessor_at_the_top_is_the_models() {
        let text = "model = dict(data_preprocessor=None)\ndata_preprocessor = \
                    dict(type='SegDataPreProcessor', size=(96, 64), seg_pad_val=7)";
        assert_eq!(
            demo(text)
                .map(|it| it.model.seg_pad_val())
                .map_err(|it| it.contains("seg_pad_val is 7")),
            Err(true)
        );
    }

    #[test]
    fn the_size_of_batches_is_changed_in_one_place() {
        for (file, text, overrides) in [
            (
                "a.yaml",
                "_base_: mmseg::demo/pspnet_r18-d8_demo-128x128.yaml",
                &["model.data_preprocessor.size=64,64"][..],
            ),
            (
                "a.yaml",
                "_base_: mmseg::pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512.yaml",
                &["model.data_preprocessor.size=64,64"],
            ),
            (
                "a.yaml",
                "_base_: mmseg::demo/pspnet_r18-d8_demo-128x128.yaml\nmodel: \
                 {data_preprocessor: {size: [64, 64]}}",
                &[],
            ),
            (
                "a.py",
                "_base_ = 'configs/demo/pspnet_r18-d8_demo-128x128.py'\nmodel = \
                 dict(data_preprocessor=dict(size=(64, 64)))",
                &[],
            ),
        ] {
            let experiment = read(file, text, overrides).expect("is read");
            assert!(format!("{:?}", experiment.model).contains("size: Some([64, 64])"), "{text}");
        }
    }

    #[test]
    fn a_config_of_mmseg_0_x_is_told_what_its_parts_are_called_now() {
        let text = "_base_ = []\ndata = dict(samples_per_gpu=4)\noptimizer = \
                    dict(type='SGD')\noptimizer_config = dict()\nlr_config = \
                    dict(policy='poly')\nrunner = dict(type='IterBasedRunner', \
                    max_iters=80000)\ncheckpoint_config = dict(by_epoch=False)\nevaluation = \
                    dict(interval=8000)\nmodel = dict()";
        insta::assert_snapshot!(read("old.py", text, &[]).expect_err("is of another time"));
        let mixed = demo("lr_config = dict(policy='poly', power=0.9)").expect("is read").remarks;
        assert!(
            mixed.len() == 1 && mixed[0].starts_with("a.py:2: nothing reads `lr_config`"),
            "{mixed:?}"
        );
    }
}
