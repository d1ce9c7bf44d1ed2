//! The program as its users have it: everything that segslurm does, with the components of its own.

#![allow(clippy::disallowed_methods, reason = "it looks at the program from outside")]

use std::path::Path;
use std::process::{Command, Output};

fn own_model(folder: &Path, arguments: &[&str], code: i32) -> Output {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.yaml");
    let arguments =
        arguments.iter().map(|it| if *it == "CONFIG" { config.as_os_str() } else { it.as_ref() });
    let mut command = Command::new(env!("CARGO_BIN_EXE_own-model"));
    command
        .args(arguments)
        .current_dir(folder)
        .env("SEGSLURM_DEVICE", "cpu")
        .env("OMP_NUM_THREADS", "1");
    let output = command.output().expect("it starts");
    assert_eq!(output.status.code(), Some(code), "{command:?}: {}", text(&output.stderr));
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_head_and_a_transform_of_ones_own_are_checked_trained_on_two_ranks_and_tested() {
    let folder = tempfile::tempdir().expect("a folder");
    own_model(folder.path(), &["demo-data", "data/demo", "--images", "10", "--size", "96x64"], 0);
    let checked =
        own_model(folder.path(), &["config", "CONFIG", "--check", "--shape", "64", "64"], 0);
    let line =
        text(&checked.stdout).lines().find(|it| it.starts_with("decode_head")).map(str::to_owned);
    // Two 3x3 convolutions from 512 to 64 with their norms, and the classifier.
    assert!(
        line.as_ref().is_some_and(|it| it.contains("6x8x8") && it.contains("590.5 k")),
        "{line:?}"
    );

    let small = [
        "--cfg-options",
        "crop_size=[64,64]",
        "train_cfg.max_iters=4",
        "train_cfg.val_interval=4",
        "randomness.seed=1",
    ];
    let train = [&["dist_train", "CONFIG", "2", "--work-dir", "work"][..], &small].concat();
    own_model(folder.path(), &train, 0);
    let checkpoint =
        std::fs::read(folder.path().join("work/iter_4.safetensors")).expect("a checkpoint");
    assert!(String::from_utf8_lossy(&checkpoint).contains("\"decode_head.gate.conv.weight\""));
    own_model(folder.path(), &["convert", "work/iter_4.safetensors", "weights.pth"], 0);
    let tested =
        own_model(folder.path(), &["test", "CONFIG", "weights.pth", "--work-dir", "tested"], 0);
    assert!(
        text(&tested.stderr).contains("mIoU") || text(&tested.stdout).contains("mIoU"),
        "{}",
        text(&tested.stderr)
    );
}

#[test]
fn mistakes_in_ones_own_components_are_told_as_those_in_segslurms() {
    let folder = tempfile::tempdir().expect("a folder");
    for (change, expected) in [
        (
            "model.decode_head.kernel_size=4",
            "model.decode_head.kernel_size: expected an odd number",
        ),
        (
            "model.decode_head.kernel_sice=3",
            "model.decode_head.kernel_sice: unknown key; did you mean `kernel_size`?",
        ),
        (
            "model.decode_head.in_channels=256",
            "model.decode_head.in_channels: expects 256 channels",
        ),
        ("model.decode_head.type=GatdHead", "did you mean `GatedHead`?"),
        ("train_pipeline.3.share=2", "share has to be from 0 to 1"),
        ("train_pipeline.3.type=Speckel", "did you mean `Speckle`?"),
    ] {
        let output = own_model(folder.path(), &["config", "CONFIG", "--cfg-options", change], 78);
        assert!(text(&output.stderr).contains(expected), "{change}: {}", text(&output.stderr));
    }
}
