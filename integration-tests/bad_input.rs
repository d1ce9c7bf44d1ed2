//! Bad input: one clear message, a documented exit code, nothing half-written.

use std::fs;
use std::path::Path;

use crate::harness::{self, CONFIG, dataset, ends_in, segslurm, small, text};

/// A private copy of the dataset, to be spoilt.
fn copied(to: &Path) {
    let status = std::process::Command::new("cp")
        .arg("-r")
        .arg(dataset())
        .arg(to)
        .status()
        .expect("cp starts");
    assert!(status.success());
}

fn first_file(folder: &Path) -> std::path::PathBuf {
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path()).collect();
    files.sort();
    files.remove(0)
}

/// Trains on `data` and expects exit `code` with every one of `words` on standard error, in one
/// message and no panic.
#[track_caller]
fn refuses(data: &Path, extra: &[&str], code: i32, words: &[&str]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let work_dir = folder.path().join("work");
    let mut command = segslurm();
    command.args(["train", CONFIG, "--work-dir"]).arg(&work_dir).args(small(data, 4)).args(extra);
    let output = ends_in(&mut command, code);
    let message = text(&output.stderr);
    for word in words {
        assert!(message.contains(word), "{word} is not in:\n{message}");
    }
    assert!(!message.contains("panicked"), "{message}");
    if work_dir.exists() {
        // Whoever finds only the log file later finds the error there.
        if let Some(log) = harness::log(&work_dir) {
            let error = message.split_once("error: ").expect("an error").1.trim_end().to_owned();
            assert!(log.contains(&error), "{error} is not in the log file:\n{log}");
        }
        let checkpoints = fs::read_dir(&work_dir).expect("the work dir").flatten();
        let left: Vec<_> = checkpoints
            .map(|it| it.path())
            .filter(|it| it.is_file() && it.extension().is_some_and(|it| it != "yaml"))
            .collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

#[test]
fn a_config_that_does_not_parse_is_named_with_its_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = folder.path().join("broken.yaml");
    fs::write(&config, "model:\n  type: EncoderDecoder\n  backbone: {type: ResNet\n")
        .expect("writes");
    let output = ends_in(segslurm().arg("train").arg(&config), 78);
    assert!(text(&output.stderr).contains("broken.yaml"), "{}", text(&output.stderr));
}

#[test]
fn an_unknown_key_names_its_path_and_the_nearest_name() {
    refuses(
        dataset(),
        &["model.decode_head.dropout_ration=0.1"],
        78,
        &["model.decode_head", "dropout_ration", "dropout_ratio"],
    );
}

#[test]
fn a_missing_dataset_is_named() {
    refuses(Path::new("no/such/dataset"), &[], 66, &["no/such/dataset"]);
}

#[test]
fn a_missing_label_map_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("demo");
    copied(&data);
    let victim = first_file(&data.join("annotations/training"));
    fs::remove_file(&victim).expect("removes");
    refuses(
        &data,
        &["train_cfg.max_iters=40", "default_hooks.checkpoint.interval=100"],
        66,
        &[&victim.file_name().expect("a name").to_string_lossy()],
    );
}

#[test]
fn a_missing_image_and_one_that_is_no_image_are_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("demo");
    copied(&data);
    fs::write(data.join("list.txt"), "never_drawn\n").expect("writes");
    refuses(&data, &["train_dataloader.dataset.ann_file=list.txt"], 66, &["never_drawn.jpg"]);
    for entry in fs::read_dir(data.join("images/training")).expect("images").flatten() {
        fs::write(entry.path(), "no picture at all").expect("writes");
    }
    refuses(&data, &[], 65, &["images/training", ".jpg"]);
}

#[test]
fn a_truncated_image_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("demo");
    copied(&data);
    for entry in fs::read_dir(data.join("images/training")).expect("images").flatten() {
        let length = entry.metadata().expect("its size").len();
        fs::File::options()
            .write(true)
            .open(entry.path())
            .expect("opens")
            .set_len(length / 3)
            .expect("cut");
    }
    refuses(&data, &[], 65, &["images/training", ".jpg"]);
}

#[test]
fn a_label_map_of_another_size_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("demo");
    copied(&data);
    let odd = folder.path().join("odd");
    ends_in(
        segslurm()
            .arg("demo-data")
            .arg(&odd)
            .args(["--images", "12", "--size", "64x64", "--seed", "3"]),
        0,
    );
    fs::remove_dir_all(data.join("annotations")).expect("removes");
    fs::rename(odd.join("annotations"), data.join("annotations")).expect("moves");
    refuses(&data, &[], 65, &["96", "64", ".png"]);
}

#[test]
fn a_label_beyond_num_classes_is_named() {
    let three = [
        "metainfo.classes=[a,b,c]",
        "metainfo.palette=None",
        "model.decode_head.num_classes=3",
        "model.auxiliary_head.num_classes=3",
    ];
    refuses(dataset(), &three, 65, &["3 classes", ".png"]);
}

#[test]
fn a_work_dir_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("taken");
    fs::write(&file, "a file").expect("writes");
    let mut command = segslurm();
    command.args(["train", CONFIG, "--work-dir"]).arg(file.join("work")).args(small(dataset(), 4));
    let output = ends_in(&mut command, 73);
    assert!(text(&output.stderr).contains("taken/work"), "{}", text(&output.stderr));
}

#[test]
fn a_full_disk_while_a_checkpoint_is_written_leaves_no_part_of_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let work_dir = folder.path().join("work");
    // A limit on file sizes is the full disk that needs no root: writing beyond it fails in the
    // middle of the checkpoint.
    let train = harness::train(&work_dir, 4);
    let mut command = std::process::Command::new("bash");
    command
        .args(["-c", "ulimit -f 2048; trap '' XFSZ; exec \"$@\"", "bash"])
        .arg(train.get_program())
        .args(train.get_args());
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env("CUDA_VISIBLE_DEVICES", "-1");
    let output = ends_in(&mut command, 73);
    assert!(text(&output.stderr).contains("iter_2"), "{}", text(&output.stderr));
    let left: Vec<_> =
        fs::read_dir(&work_dir).expect("the work dir").flatten().map(|it| it.file_name()).collect();
    assert!(
        !left.iter().any(|name| name.to_string_lossy().contains("iter_2")
            || name.to_string_lossy().starts_with('.')),
        "{left:?}"
    );
}

#[test]
fn checkpoints_that_are_none_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let work_dir = folder.path().join("work");
    ends_in(&mut harness::train(&work_dir, 2), 0);
    let good = work_dir.join("iter_2.safetensors");

    let text_file = folder.path().join("notes.pth");
    fs::write(&text_file, "not a checkpoint").expect("writes");
    let torn = folder.path().join("torn.safetensors");
    fs::copy(&good, &torn).expect("copies");
    let length = fs::metadata(&torn).expect("its size").len();
    fs::File::options()
        .write(true)
        .open(&torn)
        .expect("opens")
        .set_len(length - 1000)
        .expect("cut");

    let test = |checkpoint: &Path, extra: &[&str]| {
        let mut command = segslurm();
        command
            .args(["test", CONFIG])
            .arg(checkpoint)
            .arg("--work-dir")
            .arg(folder.path().join("test"));
        command.args(small(dataset(), 2)).args(extra);
        command
    };
    for (checkpoint, code, words) in [
        (Path::new("no/such.pth"), 66, vec!["no/such.pth"]),
        (&text_file, 65, vec!["notes.pth"]),
        (&torn, 65, vec!["torn.safetensors"]),
    ] {
        let message = text(&ends_in(&mut test(checkpoint, &[]), code).stderr);
        assert!(
            words.iter().all(|word| message.contains(word)) && !message.contains("panicked"),
            "{message}"
        );
    }
    let message = text(&ends_in(&mut test(&good, &["model.decode_head.channels=64"]), 65).stderr);
    assert!(
        message.contains("decode_head.") && message.contains("64"),
        "another model's shapes are named: {message}"
    );
}

#[test]
fn half_precision_that_the_cpu_lacks_is_named() {
    let options = ["optim_wrapper.type=AmpOptimWrapper", "optim_wrapper.dtype=float16"];
    refuses(dataset(), &options, 78, &["optim_wrapper.dtype", "float16", "bfloat16"]);
}
