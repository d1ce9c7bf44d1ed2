//! Weights for a model that is not quite theirs, and the ways to name a checkpoint.

use std::path::{Path, PathBuf};
use std::process::Command;

use segslurm::testing::checkpoint::Checkpoint;

use crate::harness::{self, CONFIG, dataset, ends_in, segslurm, small, text};
use crate::mmengine::torch;

fn trained(folder: &Path) -> PathBuf {
    ends_in(&mut harness::train(&folder.join("source"), 2), 0);
    folder.join("source/iter_2.safetensors")
}

/// The same checkpoint with every tensor's name and shape as `change` makes them.
fn changed(from: &Path, to: &Path, change: impl Fn(String, tch::Tensor) -> (String, tch::Tensor)) {
    let mut checkpoint = Checkpoint::read(from).expect("reads");
    checkpoint.model = std::mem::take(&mut checkpoint.model)
        .into_iter()
        .map(|(name, tensor)| change(name, tensor))
        .collect();
    checkpoint.write(to).expect("writes");
}

fn test(checkpoint: &Path, work_dir: &Path) -> Command {
    let mut command = segslurm();
    command
        .args(["test", CONFIG])
        .arg(checkpoint)
        .arg("--work-dir")
        .arg(work_dir)
        .args(small(dataset(), 2));
    command
}

fn begin(work_dir: &Path, load_from: &str) -> Command {
    let mut command = harness::train(work_dir, 2);
    command.arg(format!("load_from={load_from}"));
    command
}

#[test]
fn a_checkpoint_of_other_classes_begins_a_training_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let other = folder.path().join("classes19.safetensors");
    changed(&trained(folder.path()), &other, |name, tensor| {
        let head = name.contains("conv_seg");
        (
            name,
            if head {
                tensor.repeat(
                    [4].iter().chain(&[1; 3][..tensor.dim() - 1]).copied().collect::<Vec<_>>(),
                )
            } else {
                tensor
            },
        )
    });
    let shapes = [
        "decode_head.conv_seg.weight has shape [24, ",
        "and [6, ",
        "auxiliary_head.conv_seg.bias has shape [24]",
    ];

    let work_dir = folder.path().join("begun");
    let told = text(&ends_in(&mut begin(&work_dir, &other.display().to_string()), 0).stdout);
    for words in shapes {
        assert!(told.contains(words), "{words} in {told}");
    }
    assert_eq!(told.lines().filter(|it| it.contains("conv_seg")).count(), 1, "one warning: {told}");

    let output = ends_in(
        begin(&folder.path().join("resumed"), &other.display().to_string()).arg("resume=true"),
        65,
    );
    let tested = ends_in(&mut test(&other, &folder.path().join("tested")), 65);
    for (told, remedy) in [
        (text(&output.stderr), "load_from, without --resume"),
        (text(&tested.stderr), "num_classes"),
    ] {
        assert!(shapes.iter().all(|it| told.contains(it)) && told.contains(remedy), "{told}");
    }
}

#[test]
fn a_checkpoint_of_another_model_begins_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (source, other) = (trained(folder.path()), folder.path().join("other.safetensors"));
    changed(&source, &other, |name, tensor| (format!("encoder.{name}"), tensor));
    let told = text(
        &ends_in(&mut begin(&folder.path().join("begun"), &other.display().to_string()), 65).stderr,
    );
    assert!(told.contains("no tensor of the checkpoint") && told.contains("encoder."), "{told}");
    // A part is enough, and what is missing is told by its prefix.
    let part = folder.path().join("part.safetensors");
    changed(&source, &part, |name, tensor| {
        if name.starts_with("backbone.") { (name, tensor) } else { (format!("x.{name}"), tensor) }
    });
    let told = text(
        &ends_in(&mut begin(&folder.path().join("part"), &part.display().to_string()), 0).stdout,
    );
    assert!(
        told.contains("missing in the checkpoint") && told.contains("tensors: decode_head"),
        "{told}"
    );
}

#[test]
fn a_checkpoint_may_be_named_by_its_folder_or_another_suffix_or_the_home() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = trained(folder.path());
    let source = checkpoint.parent().expect("a folder");
    let told = text(
        &ends_in(&mut test(&source.join("iter_2.pth"), &folder.path().join("suffix")), 0).stdout,
    );
    assert!(told.contains("taking") && told.contains("iter_2.safetensors beside it"), "{told}");
    let told = text(
        &ends_in(begin(&folder.path().join("home"), "~/source").env("HOME", folder.path()), 0)
            .stdout,
    );
    assert!(told.contains("is a folder: taking"), "{told}");
    let told = text(
        &ends_in(
            begin(&folder.path().join("stem"), &source.join("iter_2").display().to_string())
                .arg("resume=true"),
            0,
        )
        .stdout,
    );
    assert!(told.contains("resuming from") && told.contains("iter_2.safetensors"), "{told}");

    for code in [ends_in(&mut test(&source.join("iter_1.pth"), &folder.path().join("none")), 66), {
        ends_in(
            &mut begin(
                &folder.path().join("none"),
                &source.join("iter_1.pth").display().to_string(),
            ),
            66,
        )
    }] {
        let told = text(&code.stderr);
        for words in
            ["iter_1.pth", "nor iter_1.safetensors", "checkpoints there: iter_2.safetensors"]
        {
            assert!(told.contains(words), "{words} in {told}");
        }
    }
    let told = text(
        &ends_in(&mut test(Path::new("s3://bucket/a.pth"), &folder.path().join("none")), 66).stderr,
    );
    assert!(told.contains("`s3://` is not known"), "{told}");
}

#[test]
fn every_way_in_which_torch_users_keep_weights_is_read() {
    let Some(python) = torch() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (source, pth) = (trained(folder.path()), folder.path().join("source.pth"));
    ends_in(segslurm().arg("convert").arg(&source).arg(&pth), 0);
    let script = "import sys, torch
state = torch.load(sys.argv[1])['state_dict']
out = lambda name: f'{sys.argv[2]}/{name}.pth'
torch.save(state, out('bare'))
torch.save({'model': state}, out('model'))
torch.save({'state_dict': {'module.' + key: value for key, value in state.items()}}, out('parallel'))
torch.save({'state_dict': {key: torch.nn.Parameter(value.float()) if value.is_floating_point() else value for key, value in state.items()}}, out('parameters'))
torch.save({'state_dict': state}, out('legacy'), _use_new_zipfile_serialization=False)
torch.save({'state_dict': {key: value.t().contiguous().t() if value.dim() == 2 else value.to(memory_format=torch.channels_last) if value.dim() == 4 else value for key, value in state.items()}}, out('strides'))
";
    ends_in(Command::new(python).args(["-c", script]).args([&pth, folder.path()]), 0);
    let expected = Checkpoint::read(&source).expect("reads").model;
    for name in ["bare", "model", "parallel", "parameters", "legacy", "strides"] {
        let model =
            Checkpoint::read(&folder.path().join(format!("{name}.pth"))).expect("reads").model;
        assert_eq!(model.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{name}");
        assert!(model.iter().all(|(key, tensor)| tensor.equal(&expected[key])), "{name}");
    }
}
