//! Mixed precision on the CPU: bf16 activations, full-precision weights, and steps that overflow.

use std::path::Path;

use segslurm::checkpoint::Checkpoint;
use tch::Kind;

use crate::harness::{self, ends_in, exact, steps, text};
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

/// Weights of two checkpoints that are equal to the bit; running statistics move in skipped steps too.
fn same_weights(work_dir: &Path, first: &str, second: &str) -> bool {
    let read = |name: &str| Checkpoint::read(&work_dir.join(name)).expect("reads").model;
    let (first, second) = (read(first), read(second));
    let weights = first.iter().filter(|(name, _)| !name.contains("running_") && !name.contains("num_batches"));
    weights.fold(true, |same, (name, tensor)| same & tensor.equal(&second[name]))
}

#[test]
fn amp_trains_in_bfloat16_near_full_precision_and_keeps_full_precision_weights() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (full, mixed) = (folder.path().join("full"), folder.path().join("mixed"));
    ends_in(&mut harness::train(&full, 4), 0);
    let told = text(&ends_in(harness::train(&mixed, 4).arg("--amp"), 0).stdout);
    assert!(told.contains("mixed precision: bfloat16"), "{told}");
    let loss =
        |work_dir: &Path| -> Vec<f64> { steps(work_dir).iter().map(|(_, it)| it["loss"].as_f64().expect("a loss")).collect() };
    let (full, losses) = (loss(&full), loss(&mixed));
    assert_ne!(full, losses, "nothing was computed in half precision");
    let apart = full.iter().zip(&losses).map(|(full, mixed)| (full - mixed).abs() / full).fold(0.0, f64::max);
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
    assert_eq!(skipped(&Checkpoint::read(&folder.path().join("iter_4.safetensors")).expect("reads")), 4);
}

#[test]
fn two_ranks_skip_together() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    ends_in(dist_train(folder.path(), 2, 4).args(OVERFLOW), 0);
    assert!(same_weights(folder.path(), "iter_2.safetensors", "iter_4.safetensors"));
    assert_eq!(skipped(&Checkpoint::read(&folder.path().join("iter_4.safetensors")).expect("reads")), 4);
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
    std::fs::copy(straight.join("iter_2.safetensors"), resumed.join("iter_2.safetensors")).expect("copies");
    ends_in(harness::train(&resumed, 4).args(growing).arg("--resume"), 0);
    assert_eq!(exact(&steps(&straight))[2..], exact(&steps(&resumed))[..]);
    for work_dir in [&straight, &resumed] {
        let run = Checkpoint::read(&work_dir.join("iter_4.safetensors")).expect("reads").meta.run;
        assert_eq!(run["scaler"]["scale"].as_f64(), Some(4096.0));
    }
}
