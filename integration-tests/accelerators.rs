//! Who was given GPUs gets them or an error that says why not, on every rank and before any queue;
//! the CPU is for those who say so.
//!
//! The GPUs named here exist nowhere: number 77, and device files of the test cluster that are no
//! GPUs.

use std::process::Command;
use std::time::Duration;

use crate::cluster::cluster;
use crate::harness::{self, CONFIG, dataset, ends_in, small, text};
use crate::ranks::{dist_train, outcome, start};

/// As a user's shell has it: nobody has said that the CPU is meant.
fn unsaid(command: &mut Command) -> &mut Command {
    command.env_remove("SEGSLURM_DEVICE").env_remove("CUDA_VISIBLE_DEVICES")
}

#[test]
fn listed_gpus_that_cannot_be_used_are_an_error_that_says_why() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut train = harness::train(folder.path(), 2);
    let said = text(&ends_in(unsaid(&mut train).env("CUDA_VISIBLE_DEVICES", "77"), 69).stderr);
    assert!(
        said.contains("CUDA_VISIBLE_DEVICES=77 gives this process GPUs, but it can use none: "),
        "{said}"
    );
    assert!(said.contains("SEGSLURM_DEVICE=cpu") && said.contains("CUDA"), "{said}");
    assert!(!folder.path().join("iter_2.safetensors").exists());
    let said = text(
        &ends_in(
            unsaid(&mut train).env("SEGSLURM_DEVICE", "cuda").env("CUDA_VISIBLE_DEVICES", ""),
            69,
        )
        .stderr,
    );
    assert!(said.contains("SEGSLURM_DEVICE=cuda gives"), "{said}");
}

#[test]
fn every_rank_ends_in_the_same_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = dist_train(folder.path(), 2, 2);
    let (code, said) = outcome(
        start(unsaid(&mut command).env("CUDA_VISIBLE_DEVICES", "77,78")),
        Duration::from_mins(1),
    );
    assert_eq!(code, Some(69), "{said}");
    assert!(
        said.contains("rank 0 (host ")
            && said.contains("(and 1 more of 2 ranks): CUDA_VISIBLE_DEVICES=77,78 gives"),
        "{said}"
    );
    let second = folder
        .path()
        .read_dir()
        .expect("a work dir")
        .flatten()
        .find(|it| it.file_name().to_string_lossy().starts_with("launch_"));
    let second =
        std::fs::read_to_string(second.expect("what ranks printed").path().join("rank1.txt"))
            .expect("rank 1's words");
    assert!(second.contains("CUDA_VISIBLE_DEVICES=77,78 gives"), "{second}");
}

#[test]
fn the_cpu_is_taken_when_it_is_said_and_a_slip_of_the_pen_is_not() {
    for (name, value) in [("SEGSLURM_DEVICE", "cpu"), ("GPUS", "0"), ("CUDA_VISIBLE_DEVICES", "-1")]
    {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut train = harness::train(folder.path(), 2);
        let given = unsaid(&mut train).env("CUDA_VISIBLE_DEVICES", "77").env(name, value);
        let said = text(&ends_in(given, 0).stdout);
        assert!(said.contains(&format!("no GPU is used: {name}={value}")), "{said}");
        assert!(said.contains("rank 0 on the CPU"), "{said}");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let said =
        text(&ends_in(harness::train(folder.path(), 2).env("SEGSLURM_DEVICE", "cdua"), 2).stderr);
    assert!(said.contains("SEGSLURM_DEVICE is \"cdua\": expected cpu, cuda or auto"), "{said}");
}

#[test]
fn the_version_tells_libtorch_and_the_devices() {
    let short = text(&ends_in(harness::segslurm().arg("-V"), 0).stdout);
    assert_eq!(short, format!("segslurm {}\n", env!("CARGO_PKG_VERSION")));
    let long = text(&ends_in(harness::segslurm().arg("--version"), 0).stdout);
    let lines: Vec<&str> = long.lines().collect();
    assert_eq!(lines[0], short.trim_end());
    assert!(
        lines[1].starts_with("libtorch 2.")
            && (lines[1].ends_with("(CPU build)") || lines[1].contains("NCCL")),
        "{long}"
    );
    let folder = lines[2].strip_prefix("from ").expect("libtorch's folder");
    assert!(std::path::Path::new(folder).join("libtorch_cpu.so").exists(), "{long}");
    assert_eq!(lines[3], "no GPU is used: SEGSLURM_DEVICE=cpu");
    let mut given = harness::segslurm();
    let long =
        text(&ends_in(unsaid(given.arg("--version")).env("CUDA_VISIBLE_DEVICES", "77"), 0).stdout);
    assert!(
        long.contains("CUDA_VISIBLE_DEVICES=77 gives this process GPUs, but it can use none"),
        "{long}"
    );
}

#[test]
fn a_step_that_holds_gpus_and_can_use_none_fails_on_all_ranks() {
    let Some(cluster) = cluster() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = cluster.command("srun");
    command.args([
        "-N2",
        "-n2",
        "--gres=gpu:1",
        env!("CARGO_BIN_EXE_segslurm"),
        "train",
        CONFIG,
        "--launcher",
        "slurm",
        "--work-dir",
    ]);
    command.arg(folder.path()).args(small(dataset(), 2));
    let (code, said) = outcome(start(unsaid(&mut command)), Duration::from_mins(1));
    assert_eq!(code, Some(69), "{said}");
    assert_eq!(
        said.matches("gives this process GPUs, but it can use none").count(),
        2,
        "both ranks say so: {said}"
    );
    assert!(said.contains("(and 1 more of 2 ranks): SLURM_"), "{said}");
}

#[test]
fn a_job_whose_ranks_could_use_no_gpu_is_not_submitted() {
    let Some(cluster) = cluster() else { return };
    if segslurm_native::cuda::is_built() {
        // Then it depends on the nodes, and they tell.
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    for options in [&["--batch"][..], &[], &["--dry-run"]] {
        let mut command = cluster.command(env!("CARGO_BIN_EXE_segslurm"));
        command
            .args(["train", "dev", "unusable", CONFIG])
            .args(options)
            .arg("--work-dir")
            .arg(folder.path());
        command.args(small(dataset(), 2)).env("GPUS", "2");
        let said = text(&ends_in(unsaid(&mut command), 69).stderr);
        assert!(
            said.contains("the job asks for 2 GPUs, but its ranks could use none: ")
                && said.contains("make build CUDA=1"),
            "{said}"
        );
    }
    let queue = text(&ends_in(cluster.command("squeue").args(["-h", "-o", "%j"]), 0).stdout);
    assert!(!queue.contains("unusable"), "{queue}");
}
