//! Training and testing from end to end, through the command line.

use crate::harness::{self, CONFIG, dataset, ends_in, segslurm, small, steps, text};

#[test]
fn a_training_leaves_what_users_of_mmengine_expect_and_its_checkpoint_tests() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let work_dir = folder.path().join("work");
    let output = ends_in(&mut harness::train(&work_dir, 8), 0);
    let log = text(&output.stdout);
    assert!(log.contains("Iter(train) [8/8]"), "{log}");
    assert!(log.contains("Iter(val) [") && log.contains("mIoU: "), "{log}");

    let steps = steps(&work_dir);
    for name in [
        "base_lr",
        "lr",
        "time",
        "data_time",
        "loss",
        "decode.loss_ce",
        "decode.acc_seg",
        "aux.loss_ce",
        "aux.acc_seg",
        "memory",
    ] {
        assert!(steps[0].1.contains_key(name), "{name} is not in {:?}", steps[0].1);
    }
    let last = std::fs::read_to_string(work_dir.join("last_checkpoint")).expect("last_checkpoint");
    assert_eq!(last, "iter_8.safetensors", "named from the work dir");

    let tested = folder.path().join("tested");
    let out = folder.path().join("out");
    let mut command = segslurm();
    command
        .args(["test", CONFIG])
        .arg(work_dir.join(last))
        .args(["--show-dir", "painted", "--work-dir"])
        .arg(&tested);
    command.arg("--out").arg(&out).args(small(dataset(), 8));
    let output = ends_in(&mut command, 0);
    let printed = text(&output.stdout);
    assert!(printed.contains("| Class |") || printed.contains("Class"), "{printed}");

    let run = std::fs::read_dir(&tested)
        .expect("the work dir")
        .flatten()
        .find(|it| it.path().is_dir())
        .expect("a run's folder")
        .path();
    let stamp = run.file_name().expect("a name").to_string_lossy().into_owned();
    let metrics = std::fs::read_to_string(run.join(format!("{stamp}.json"))).expect("the metrics");
    let metrics: serde_json::Value = serde_json::from_str(&metrics).expect("JSON");
    assert!(metrics["mIoU"].is_number(), "{metrics}");

    let images = std::fs::read_dir(dataset().join("images/validation")).expect("images").count();
    assert_eq!(std::fs::read_dir(run.join("painted")).expect("painted pictures").count(), images);
    assert_eq!(std::fs::read_dir(&out).expect("label maps").count(), images);
}

#[test]
fn load_from_starts_at_iteration_zero_with_the_weights() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let first = folder.path().join("first");
    ends_in(&mut harness::train(&first, 2), 0);
    let second = folder.path().join("second");
    let mut command = harness::train(&second, 2);
    command.arg(format!("load_from={}", first.join("iter_2.safetensors").display()));
    ends_in(&mut command, 0);
    let (first, second) = (steps(&first), steps(&second));
    assert_eq!(second[0].0, 1);
    assert_ne!(
        first[0].1["loss"], second[0].1["loss"],
        "the loaded weights are not the initial ones"
    );
}

#[test]
fn epochs_count_passes_over_the_dataset() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = folder.path().join("epochs.yaml");
    let base = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(CONFIG);
    let yaml = format!(
        "_base_: {}\ntrain_cfg: {{_delete_: true, type: EpochBasedTrainLoop, max_epochs: 2, \
         val_interval: 2}}\ntrain_dataloader: {{sampler: {{_delete_: true, type: DefaultSampler, \
         shuffle: true}}}}\ndefault_hooks: {{checkpoint: {{by_epoch: true, interval: 1}}}}\n",
        base.display()
    );
    std::fs::write(&config, yaml).expect("writes");
    let work_dir = folder.path().join("work");
    let loops = |option: &String| {
        option.starts_with("train_cfg.") || option.starts_with("default_hooks.checkpoint.interval")
    };
    let options = small(dataset(), 1).into_iter().filter(|option| !loops(option));
    let output = ends_in(
        segslurm().arg("train").arg(&config).arg("--work-dir").arg(&work_dir).args(options),
        0,
    );
    let log = text(&output.stdout);
    assert!(log.contains("Epoch(train) [2]") && log.contains("Epoch(val) [2]"), "{log}");
    let images = std::fs::read_dir(dataset().join("images/training")).expect("images").count();
    assert_eq!(steps(&work_dir).len(), 2 * images.div_ceil(2));
    assert!(
        work_dir.join("epoch_1.safetensors").exists()
            && work_dir.join("epoch_2.safetensors").exists()
    );
}

#[test]
fn a_leftover_key_of_another_loop_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = harness::train(folder.path(), 1);
    let output = ends_in(command.arg("train_cfg.type=EpochBasedTrainLoop"), 78);
    assert!(text(&output.stderr).contains("max_iters"), "{}", text(&output.stderr));
}
