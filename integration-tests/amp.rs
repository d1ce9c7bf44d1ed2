//! Mixed precision on the CPU: bf16 activations, full-precision weights, and steps that overflow.

use std::path::Path;

use segslurm::data::{Image, LabelMap};
use segslurm::ops::MemoryFormat;
use segslurm::testing::checkpoint::Checkpoint;
use segslurm::testing::config;
use segslurm::testing::dist::Group;
use segslurm::testing::runner::Learner;
use tch::Kind;

use crate::harness::{self, ends_in, exact, steps, text};
use crate::learning;
use crate::ranks::dist_train;

/// Scaled by this, every gradient overflows; and the scale stays.
const OVERFLOW: [&str; 4] = [
    "optim_wrapper.type=AmpOptimWrapper",
    "optim_wrapper.loss_scale.init_scale=3e38",
    "optim_wrapper.loss_scale.backoff_factor=1.0",
    "model.decode_head.loss_decode.loss_weight=1e10",
];

fn skipped(checkpoint: &Checkpoint) -> i64 {
    checkpoint.meta.run["scaler"]["skipped"].as_i64().expect("a count")
}

/// Weights of two checkpoints that are equal to the bit; running statistics move in skipped steps
/// too.
fn same_weights(work_dir: &Path, first: &str, second: &str) -> bool {
    let read = |name: &str| Checkpoint::read(&work_dir.join(name)).expect("reads").model;
    let (first, second) = (read(first), read(second));
    let weights = first
        .iter()
        .filter(|(name, _)| !name.contains("running_") && !name.contains("num_batches"));
    weights.fold(true, |same, (name, tensor)| same & tensor.equal(&second[name]))
}

#[test]
fn amp_trains_in_bfloat16_near_full_precision_and_keeps_full_precision_weights() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (full, mixed) = (folder.path().join("full"), folder.path().join("mixed"));
    ends_in(&mut harness::train(&full, 4), 0);
    let told = text(&ends_in(harness::train(&mixed, 4).arg("--amp"), 0).stdout);
    assert!(told.contains("mixed precision: bfloat16"), "{told}");
    let loss = |work_dir: &Path| -> Vec<f64> {
        steps(work_dir).iter().map(|(_, it)| it["loss"].as_f64().expect("a loss")).collect()
    };
    let (full, losses) = (loss(&full), loss(&mixed));
    assert_ne!(full, losses, "nothing was computed in half precision");
    let apart = full
        .iter()
        .zip(&losses)
        .map(|(full, mixed)| (full - mixed).abs() / full)
        .fold(0.0, f64::max);
    assert!(apart < 5e-2, "{full:?} against {losses:?}");
    let checkpoint = Checkpoint::read(&mixed.join("iter_4.safetensors")).expect("reads");
    assert!(checkpoint.model.values().all(|it| matches!(it.kind(), Kind::Float | Kind::Int64)));
    assert!(!same_weights(&mixed, "iter_2.safetensors", "iter_4.safetensors"));
}

#[test]
fn a_step_that_overflows_is_skipped_and_logged() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let told = text(&ends_in(harness::train(folder.path(), 4).args(OVERFLOW), 0).stdout);
    assert!(told.contains("overflowed in half precision and were skipped"), "{told}");
    assert!(same_weights(folder.path(), "iter_2.safetensors", "iter_4.safetensors"));
    assert_eq!(
        skipped(&Checkpoint::read(&folder.path().join("iter_4.safetensors")).expect("reads")),
        4
    );
}

#[test]
fn two_ranks_skip_together() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    ends_in(dist_train(folder.path(), 2, 4).args(OVERFLOW), 0);
    assert!(same_weights(folder.path(), "iter_2.safetensors", "iter_4.safetensors"));
    assert_eq!(
        skipped(&Checkpoint::read(&folder.path().join("iter_4.safetensors")).expect("reads")),
        4
    );
}

#[test]
fn a_resume_goes_on_with_the_loss_scale() {
    let growing = [
        "optim_wrapper.type=AmpOptimWrapper",
        "optim_wrapper.loss_scale.init_scale=256.0",
        "optim_wrapper.loss_scale.growth_interval=1",
    ];
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (straight, resumed) = (folder.path().join("straight"), folder.path().join("resumed"));
    ends_in(harness::train(&straight, 4).args(growing), 0);
    std::fs::create_dir(&resumed).expect("a folder");
    std::fs::copy(straight.join("iter_2.safetensors"), resumed.join("iter_2.safetensors"))
        .expect("copies");
    ends_in(harness::train(&resumed, 4).args(growing).arg("--resume"), 0);
    assert_eq!(exact(&steps(&straight))[2..], exact(&steps(&resumed))[..]);
    for work_dir in [&straight, &resumed] {
        let run = Checkpoint::read(&work_dir.join("iter_4.safetensors")).expect("reads").meta.run;
        assert_eq!(run["scaler"]["scale"].as_f64(), Some(4096.0));
    }
}

/// Losses of the first step in full precision, in half, and with channels innermost in memory.
fn first_losses(name: &str, model: &serde_json::Value) -> [f64; 3] {
    let size = (49, 65);
    let images =
        [0, 1].map(|it| Image { height: size.0, width: size.1, data: pixels(size, 3, it) });
    let labels = [0, 1].map(|_| LabelMap {
        height: size.0,
        width: size.1,
        data: (0..size.0 * size.1).map(|it| u8::from(it % 5 == 0)).collect(),
    });
    let batch = learning::batch(images.into(), labels.into());
    let ways = [
        ("OptimWrapper", MemoryFormat::Contiguous),
        ("AmpOptimWrapper", MemoryFormat::Contiguous),
        ("OptimWrapper", MemoryFormat::ChannelsLast),
    ];
    ways.map(|(wrapper, format)| {
        let text = format!("{{type: {wrapper}, optimizer: {{type: SGD, lr: 0.01}}}}");
        let model =
            config::parse_str(&model.to_string()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let wrapper = config::parse_str(&text).expect("an optimizer");
        let device = learning::cpu().autodiff();
        let learner = Learner::new(&model, &wrapper, &device, &Group::alone(), 3, 1, format);
        let mut learner = learner.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let losses =
            learner.step(&batch, 0, &[0.01; 2]).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert!(
            learner.weights.parameters().all(|it| it.tensor.kind() == Kind::Float),
            "{name}: weights stay in full precision"
        );
        losses[0].1
    })
}

fn pixels((height, width): (usize, usize), channels: usize, seed: usize) -> Vec<u8> {
    (0..height * width * channels).map(|it| ((it * 7919 + seed * 104_729) >> 3) as u8).collect()
}

/// Every kind of model once: the golden ones, and those of `configs/` but for the number of their
/// classes.
#[test]
fn every_model_takes_a_step_in_half_precision_and_with_channels_last() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = |folder: &str| -> Vec<_> {
        let mut files: Vec<_> = std::fs::read_dir(root.join(folder))
            .expect(folder)
            .flatten()
            .map(|it| it.path())
            .collect();
        files.sort();
        files
    };
    let mut models: Vec<(String, serde_json::Value)> = Vec::new();
    for file in files("integration-tests/golden/models") {
        let text = std::fs::read_to_string(&file).expect("a golden file");
        let golden: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        models.push((file.display().to_string(), golden["model"].clone()));
    }
    for file in ["configs/demo", "configs/fcn", "configs/pspnet"].iter().flat_map(|it| files(it)) {
        let config = config::load(&file, &["model.pretrained=null".to_owned()]).expect("a config");
        let mut whole: serde_json::Value = serde_json::from_str(&config.to_json()).expect("JSON");
        let mut model = whole["model"].take();
        model["data_preprocessor"]["size"] = serde_json::json!([49, 65]);
        for key in ["decode_head", "auxiliary_head"] {
            model[key]["num_classes"] = 7.into();
            model[key]["dropout_ratio"] = 0.into();
        }
        model["test_cfg"] = serde_json::json!({"mode": "whole"});
        if !models.iter().any(|(_, it)| *it == model) {
            models.push((file.display().to_string(), model));
        }
    }
    assert!(models.len() > 50, "{} models", models.len());
    for (name, model) in &models {
        let [full, half, last] = first_losses(name, model);
        assert!(
            half.is_finite() && (half - full).abs() < 0.05 * full,
            "{name}: {half} in half precision, {full} in full"
        );
        assert!((last - full).abs() < 1e-4 * full, "{name}: {last} in channels-last, {full} else");
    }
}
