//! Configs of mmseg 0.x. Hardly a key of theirs is one today, so a list of unknown keys would help
//! nobody: one message names the parts that were found, and what each is called now.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::config::Node;
use crate::exit::{Exit, Failure};

/// A key of 0.x, and what there is now.
const RENAMED: [(&str, &str); 16] = [
    (
        "data",
        "train_dataloader, val_dataloader and test_dataloader, each with its batch_size \
         (samples_per_gpu), num_workers (workers_per_gpu), sampler and dataset; img_dir and \
         ann_dir are data_prefix: {img_path, seg_map_path}, and split is ann_file",
    ),
    ("optimizer", "optim_wrapper: {type: OptimWrapper, optimizer: …}"),
    ("optimizer_config", "optim_wrapper.clip_grad and optim_wrapper.accumulative_counts"),
    ("fp16", "optim_wrapper: {type: AmpOptimWrapper, loss_scale: …}"),
    (
        "lr_config",
        "param_scheduler, a list: policy: poly is \
         {type: PolyLR, eta_min: min_lr, power, begin: 0, end, by_epoch: false}, and warmup is a \
         LinearLR in front of it",
    ),
    ("momentum_config", "param_scheduler, with the schedules of the momentum"),
    (
        "runner",
        "train_cfg: {type: IterBasedTrainLoop, max_iters, val_interval}, with val_cfg: \
         {type: ValLoop} and test_cfg: {type: TestLoop}",
    ),
    ("total_iters", "train_cfg.max_iters"),
    ("total_epochs", "train_cfg.max_epochs, with type: EpochBasedTrainLoop"),
    (
        "evaluation",
        "val_evaluator: {type: IoUMetric, iou_metrics: [mIoU]}; its interval is \
         train_cfg.val_interval, and save_best is one of default_hooks.checkpoint",
    ),
    (
        "checkpoint_config",
        "default_hooks.checkpoint: {type: CheckpointHook, interval, by_epoch: false}",
    ),
    (
        "log_config",
        "default_hooks.logger: {type: LoggerHook, interval}, and visualizer.vis_backends for \
         TensorBoard",
    ),
    ("workflow", "nothing: validation follows train_cfg.val_interval"),
    ("resume_from", "resume: true, with the checkpoint in load_from; on the command line --resume"),
    ("dist_params", "env_cfg.dist_cfg: {backend, port}"),
    ("cudnn_benchmark", "env_cfg.cudnn_benchmark"),
];

/// Keys that no config of 0.x lacks and none of today has.
const SIGNS: [&str; 7] = [
    "data",
    "lr_config",
    "runner",
    "evaluation",
    "checkpoint_config",
    "log_config",
    "optimizer_config",
];

/// Keys that no config of 0.x has.
const TODAY: [&str; 5] =
    ["train_dataloader", "test_dataloader", "optim_wrapper", "train_cfg", "default_hooks"];

/// Refuses a config of mmseg 0.x. One that has both kinds of keys is taken for today's.
pub(super) fn refuse(root: &Node) -> Result<(), Failure> {
    let is_set = |key: &&&str| root.get(key).is_some();
    if SIGNS.iter().filter(is_set).count() < 2 || TODAY.iter().any(|it| root.get(it).is_some()) {
        return Ok(());
    }
    let mut text =
        "this is a config of mmseg 0.x, whose keys have other names since mmseg 1.0:".to_owned();
    for (key, now) in RENAMED {
        if let Some(node) = root.get(key) {
            let _ = write!(text, "\n  {}: {key} is now {now}", node.origin);
        }
    }
    text += "\n  model.data_preprocessor has what the pipeline's Normalize and Pad had, \
             DefaultFormatBundle and Collect are PackSegInputs, and configs/ has every recipe in \
             today's form";
    Err(Failure::new(Exit::Config, text))
}

/// What a config of today still has of 0.x: keys that nothing reads any more.
pub(super) fn remarks(root: &Node, used: &BTreeSet<String>) -> Vec<String> {
    let there = RENAMED.iter().filter(|(key, _)| *key != "optimizer" && !used.contains(*key));
    there
        .filter_map(|(key, now)| {
            Some(format!(
                "{}: nothing reads `{key}` since mmseg 1.0: it is now {now}",
                root.get(key)?.origin
            ))
        })
        .collect()
}
