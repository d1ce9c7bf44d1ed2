//! Channels-last against contiguous: the same training but for rounding, and the same checkpoints.

use std::path::Path;

use segslurm::testing::checkpoint::Checkpoint;

use crate::harness::{self, ends_in, steps};
use crate::ranks::{dist_train, loss};

const FORMATS: [&str; 2] =
    ["env_cfg.memory_format=contiguous", "env_cfg.memory_format=channels_last"];

#[track_caller]
fn close(what: &str, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    let apart =
        found.iter().zip(expected).map(|(a, b)| (a - b).abs() / b.abs()).fold(0.0, f64::max);
    assert!(apart < 1e-4, "{what}: {found:?} against {expected:?}");
}

fn losses(work_dir: &Path) -> Vec<f64> {
    loss(&steps(work_dir))
}

#[test]
fn a_training_loses_the_same_in_both_formats_and_goes_on_in_the_other() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [plain, last] = ["contiguous", "channels_last"].map(|it| folder.path().join(it));
    ends_in(harness::train(&plain, 4).arg(FORMATS[0]), 0);
    ends_in(harness::train(&last, 4).arg(FORMATS[1]), 0);
    close("four steps", &losses(&last), &losses(&plain));

    let read =
        |work_dir: &Path| Checkpoint::read(&work_dir.join("iter_4.safetensors")).expect("reads");
    let (plain_saved, last_saved) = (read(&plain), read(&last));
    for (what, ours, theirs) in [
        ("model", &last_saved.model, &plain_saved.model),
        ("optimizer", &last_saved.optimizer, &plain_saved.optimizer),
    ] {
        assert!(ours.keys().eq(theirs.keys()), "{what}");
        // Values in the wrong order are as far from the right ones as those are large. Rounding,
        // which batch norms over two values enlarge, comes to a sixth of that at worst, in the
        // stem's momentum.
        for (name, tensor) in ours.iter().filter(|(_, tensor)| tensor.dim() == 4) {
            let norm = |it: &tch::Tensor| it.norm().double_value(&[]);
            let apart = norm(&(tensor - &theirs[name])) / norm(&theirs[name]);
            assert!(apart < 0.4, "{what} {name}: {apart}");
        }
    }

    // From one checkpoint on: the second step knows whether the momentum came back in its right
    // order.
    let load_from = format!("load_from={}", last.join("iter_4.safetensors").display());
    let [plain, last] = FORMATS.map(|format| {
        let work_dir = folder.path().join(format);
        ends_in(harness::train(&work_dir, 6).args([format, &load_from, "resume=true"]), 0);
        losses(&work_dir)
    });
    assert_eq!(plain.len(), 2, "{plain:?}");
    close("after a resume in either format", &plain, &last);
}

#[test]
fn two_ranks_lose_the_same_in_both_formats() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [plain, last] = FORMATS.map(|format| {
        let work_dir = folder.path().join(format);
        ends_in(dist_train(&work_dir, 2, 4).arg(format), 0);
        losses(&work_dir)
    });
    close("four steps of two ranks", &last, &plain);
}

#[test]
fn half_precision_loses_nearly_the_same_in_both_formats() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [plain, last] = FORMATS.map(|format| {
        let work_dir = folder.path().join(format);
        ends_in(harness::train(&work_dir, 3).args([format, "--amp"]), 0);
        losses(&work_dir)
    });
    let apart = last.iter().zip(&plain).map(|(a, b)| (a - b).abs() / b).fold(0.0, f64::max);
    assert!(apart < 2e-2, "{last:?} against {plain:?}");
}
