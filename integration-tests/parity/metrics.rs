//! The metric table of mmseg's own `tools/test.py`, for its checkpoint and for what `segslurm
//! convert` makes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::{ends_in, segslurm, text};
use crate::peer::{self, Figures};

/// `segslurm test` on a config of the peer's; the metrics it wrote.
fn tested(config: &str, checkpoint: &Path, work_dir: &Path, more: &[&str]) -> Value {
    let mut command = segslurm();
    command
        .arg("test")
        .arg(peer::path(&format!("metrics/{config}.yaml")))
        .arg(checkpoint)
        .arg("--work-dir")
        .arg(work_dir);
    ends_in(command.args(more), 0);
    let runs = std::fs::read_dir(work_dir).expect("the work dir").flatten().map(|it| it.path());
    let files: Vec<PathBuf> = runs
        .filter_map(|it| Some(it.join(format!("{}.json", it.file_name()?.to_str()?))))
        .filter(|it| it.exists())
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    serde_json::from_str(&std::fs::read_to_string(&files[0]).expect("the metrics")).expect("JSON")
}

/// The largest difference in the summary and in the table, both in percent points.
fn compare(figures: &mut Figures, what: &str, ours: &Value, theirs: &Value) {
    summaries(figures, what, ours, theirs);
    tables(figures, what, ours, theirs);
}

fn summaries(figures: &mut Figures, what: &str, ours: &Value, theirs: &Value) {
    let summary = theirs["summary"].as_object().expect("a summary");
    assert!(summary.len() >= 5, "{summary:?}");
    let mut worst = 0.0_f64;
    for (name, value) in summary {
        worst = worst.max((peer::number(&ours[name]) - peer::number(value)).abs());
    }
    figures.at_most(&format!("{what}: {} values of the summary", summary.len()), worst, 0.01);
}

fn tables(figures: &mut Figures, what: &str, ours: &Value, theirs: &Value) {
    // ADE20K's list has a class "bed ", which the cells of the peer's printed table do not show.
    let table = ours["classes"].as_object().expect("a table");
    let table: BTreeMap<&str, &Value> =
        table.iter().map(|(class, row)| (class.trim(), row)).collect();
    let classes = theirs["classes"].as_object().expect("a table");
    assert!(table.keys().copied().eq(classes.keys().map(String::as_str).collect::<BTreeSet<_>>()));
    let mut worst = 0.0_f64;
    for (class, row) in classes {
        for (column, value) in row.as_object().expect("a row") {
            let ours = &table[class.as_str()][column];
            assert_eq!(
                ours.is_null(),
                value.is_null(),
                "{class}: {column}: {ours}, the peer has {value}"
            );
            if let (Some(ours), Some(theirs)) = (ours.as_f64(), value.as_f64()) {
                // The peer's table has two decimals.
                worst = worst.max(((ours * 100.0).round() / 100.0 - theirs).abs());
            }
        }
    }
    figures.at_most(&format!("{what}: {} classes of the table", classes.len()), worst, 0.01 + 1e-9);
}

#[test]
#[ignore = "compares with the peer's results: make parity"]
fn metric_tables_are_those_of_mmsegs_test() {
    let mut figures = Figures::new("metrics");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = peer::path("metrics/checkpoint.pth");
    for (config, more) in [("whole", &[][..]), ("slide", &[]), ("jpeg", &[]), ("tta", &["--tta"])] {
        let ours = tested(config, &checkpoint, &folder.path().join(config), more);
        let theirs = peer::json(&format!("metrics/{config}.json"));
        compare(&mut figures, config, &ours, &theirs);
    }
    figures.done();
}

#[test]
#[ignore = "compares with the peer's results: make parity"]
fn mmsegs_test_gives_a_converted_checkpoint_our_metric() {
    let mut figures = Figures::new("metrics");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place = |name: &str| folder.path().join(name);
    ends_in(
        segslurm()
            .arg("convert")
            .arg(peer::path("metrics/checkpoint.pth"))
            .arg(place("ours.safetensors")),
        0,
    );
    ends_in(segslurm().arg("convert").arg(place("ours.safetensors")).arg(place("ours.pth")), 0);
    let python = std::env::var_os("SEGSLURM_PEER_PYTHON")
        .expect("SEGSLURM_PEER_PYTHON runs mmseg: run `make parity`");
    let load = "import sys, torch; c = torch.load(sys.argv[1], weights_only=True); \
                print(len(c['state_dict']), len(c['meta']['dataset_meta']['classes']))";
    let told =
        text(&ends_in(Command::new(&python).args(["-c", load]).arg(place("ours.pth")), 0).stdout);
    println!("metrics: torch.load(weights_only=True): tensors and classes: {}", told.trim());

    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut test = Command::new(&python);
    test.arg(root.join("scripts/parity/metrics.py"))
        .arg("test")
        .arg(peer::path("metrics/whole.py"))
        .arg(place("ours.pth"));
    test.arg(place("theirs.json"))
        .env("CUDA_VISIBLE_DEVICES", "-1")
        .current_dir(peer::path("metrics"));
    ends_in(&mut test, 0);
    let theirs =
        serde_json::from_str(&std::fs::read_to_string(place("theirs.json")).expect("the peer's"))
            .expect("JSON");
    let ours = tested("whole", &place("ours.safetensors"), &place("work"), &[]);
    compare(&mut figures, "a converted checkpoint", &ours, &theirs);
    figures.done();
}
