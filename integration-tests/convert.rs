//! Checkpoints in torch's format and back, through the command line; torch itself reads and writes
//! them where there is one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use segslurm::testing::checkpoint::Checkpoint;

use crate::harness::{self, CONFIG, dataset, ends_in, segslurm, small, text};

/// A checkpoint of a training, made once.
fn trained(folder: &Path) -> PathBuf {
    ends_in(&mut harness::train(&folder.join("work"), 2), 0);
    folder.join("work/iter_2.safetensors")
}

fn convert(from: &Path, to: &Path) -> Command {
    let mut command = segslurm();
    command.arg("convert").arg(from).arg(to);
    command
}

fn same_weights(left: &Path, right: &Path) {
    let (left, right) =
        (Checkpoint::read(left).expect("reads"), Checkpoint::read(right).expect("reads"));
    assert_eq!(left.meta.dataset_meta, right.meta.dataset_meta);
    assert_eq!(left.model.keys().collect::<Vec<_>>(), right.model.keys().collect::<Vec<_>>());
    for (name, tensor) in &left.model {
        assert!(
            tensor.kind() == right.model[name].kind() && tensor.equal(&right.model[name]),
            "{name}"
        );
    }
}

/// A python with torch; says so where there is none.
fn torch() -> Option<&'static str> {
    let candidates = ["python3", "/usr/bin/python3"];
    let found = candidates.into_iter().find(|python| {
        Command::new(python)
            .args(["-c", "import torch"])
            .output()
            .is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        eprintln!(
            "SKIPPED: no python3 here has torch (apt-get install python3-torch), so torch did not \
             read our .pth"
        );
    }
    found
}

#[test]
fn weights_go_to_torchs_format_and_back_and_test_alike() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let original = trained(folder.path());
    let (pth, back) = (folder.path().join("out.pth"), folder.path().join("back.safetensors"));
    let told = text(&ends_in(&mut convert(&original, &pth), 0).stdout);
    assert!(told.contains("out.pth") && told.contains("6 classes"), "{told}");
    ends_in(&mut convert(&pth, &back), 0);
    same_weights(&original, &pth);
    same_weights(&original, &back);

    let metrics = |checkpoint: &Path| {
        let work_dir = folder
            .path()
            .join(format!("test-{}", checkpoint.extension().expect("one").to_string_lossy()));
        let mut command = segslurm();
        command
            .args(["test", CONFIG])
            .arg(checkpoint)
            .arg("--work-dir")
            .arg(&work_dir)
            .args(small(dataset(), 2));
        let printed = text(&ends_in(&mut command, 0).stdout);
        printed
            .split("mIoU: ")
            .nth(1)
            .expect("a mean IoU")
            .split_whitespace()
            .next()
            .map(ToOwned::to_owned)
    };
    assert_eq!(metrics(&original), metrics(&pth));

    // Without a training's state it is nothing to go on from, and says so.
    let mut resumed = harness::train(&folder.path().join("resumed"), 4);
    let output =
        ends_in(resumed.arg(format!("load_from={}", back.display())).arg("resume=true"), 65);
    assert!(text(&output.stderr).contains("back.safetensors"), "{}", text(&output.stderr));
}

#[test]
fn torch_reads_what_we_write_and_we_read_what_torch_writes() {
    let Some(python) = torch() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let original = trained(folder.path());
    let (pth, again) = (folder.path().join("out.pth"), folder.path().join("again.pth"));
    ends_in(&mut convert(&original, &pth), 0);
    let script = "import sys, torch
checkpoint = torch.load(sys.argv[1], weights_only=True)
state = checkpoint['state_dict']
assert checkpoint['meta']['iter'] == 2 and checkpoint['meta']['epoch'] == 0, checkpoint['meta'].keys()
assert len(checkpoint['meta']['dataset_meta']['classes']) == 6
assert all(tensor.is_contiguous() for tensor in state.values())
print(sum(tensor.double().abs().sum().item() for tensor in state.values()))
class Odd: pass
torch.save({'meta': checkpoint['meta'], 'state_dict': {'module.' + k: v for k, v in state.items()}, 'message_hub': Odd()}, sys.argv[2])
";
    let output = ends_in(Command::new(python).args(["-c", script]).arg(&pth).arg(&again), 0);
    let sum: f64 = text(&output.stdout).trim().parse().expect("a number");
    let model = Checkpoint::read(&original).expect("reads").model;
    let ours: f64 = model
        .values()
        .map(|it| it.to_kind(tch::Kind::Double).abs().sum(tch::Kind::Double).double_value(&[]))
        .sum();
    assert!((sum - ours).abs() < 1e-9 * ours, "torch sees {sum}, we wrote {ours}");
    let back = folder.path().join("back.safetensors");
    ends_in(&mut convert(&again, &back), 0);
    same_weights(&original, &back);
}

#[test]
fn what_cannot_be_converted_is_named_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let original = trained(folder.path());
    let torn = folder.path().join("torn.safetensors");
    fs::copy(&original, &torn).expect("copies");
    let length = fs::metadata(&torn).expect("its size").len();
    fs::File::options()
        .write(true)
        .open(&torn)
        .expect("opens")
        .set_len(length - 1000)
        .expect("cut");
    let out = folder.path().join("out.pth");
    for (from, to, code, words) in [
        (Path::new("no/such.pth"), &*out, 66, "no/such.pth"),
        (&torn, &out, 65, "torn.safetensors"),
        (&original, &folder.path().join("out.onnx"), 2, ".safetensors"),
        (&original, &folder.path().join("no/folder/out.pth"), 73, "no/folder"),
        (&original, &original, 2, "name another file"),
    ] {
        let message = text(&ends_in(&mut convert(from, to), code).stderr);
        assert!(message.contains(words) && !message.contains("panicked"), "{message}");
        assert!(from == to || !to.exists(), "{} was left", to.display());
    }
}

#[test]
fn a_full_disk_leaves_no_part_of_a_conversion() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let original = trained(folder.path());
    let out = folder.path().join("out.pth");
    // A limit on file sizes is the full disk that needs no root.
    let line = convert(&original, &out);
    let mut command = Command::new("bash");
    command
        .args(["-c", "ulimit -f 2048; trap '' XFSZ; exec \"$@\"", "bash"])
        .arg(line.get_program())
        .args(line.get_args());
    let output = ends_in(command.current_dir(env!("CARGO_MANIFEST_DIR")), 73);
    assert!(text(&output.stderr).contains("out.pth"), "{}", text(&output.stderr));
    let left: Vec<_> = fs::read_dir(folder.path())
        .expect("the folder")
        .flatten()
        .map(|it| it.file_name())
        .collect();
    assert_eq!(left, ["work"], "{left:?}");
}
