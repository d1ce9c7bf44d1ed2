//! Configs as they lie in people's folders: written for these tests, with the habits that public
//! ones have. Each is printed as mmengine 0.10.7 resolves it (the `.json` beside it) and trains.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::{dataset, ends_in, segslurm, text};

/// The configs in a folder of their own, with places of this test; they find their bases beside the
/// program.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let habits = folder.path().join("habits");
    fs::create_dir(&habits).expect("a folder");
    for entry in
        fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("integration-tests/habits"))
            .expect("the configs")
    {
        let path = entry.expect("an entry").path();
        let content = fs::read_to_string(&path).expect("text");
        let content = content.replace("DATA", &dataset().display().to_string());
        let content = content.replace("WORK", &folder.path().join("work").display().to_string());
        fs::write(habits.join(path.file_name().expect("a name")), content).expect("a file");
    }
    folder
}

/// Where two trees part.
fn difference(path: &str, ours: &Value, theirs: &Value, found: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            let mut keys: Vec<&String> = ours.keys().chain(theirs.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                // Left out in the shipped configs: it follows from the devices.
                let expected =
                    format!("{path}.{key}") == ".env_cfg.dist_cfg" && !ours.contains_key(key);
                if key != "_variables_" && !expected {
                    let null = Value::String("nothing".to_owned());
                    let (ours, theirs) =
                        (ours.get(key).unwrap_or(&null), theirs.get(key).unwrap_or(&null));
                    difference(&format!("{path}.{key}"), ours, theirs, found);
                }
            }
        }
        (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => {
            for (index, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                difference(&format!("{path}.{index}"), ours, theirs, found);
            }
        }
        (ours, theirs) => {
            if ours != theirs && ours.as_f64().is_none_or(|it| Some(it) != theirs.as_f64()) {
                found.push(format!("{path} is {ours}, and mmengine's is {theirs}"));
            }
        }
    }
}

#[track_caller]
fn printed_as_mmengine_does_and_trains(name: &str) {
    let folder = folder();
    let config: PathBuf = folder.path().join("habits").join(name);
    let printed = ends_in(segslurm().arg("config").arg(&config).args(["--format", "json"]), 0);
    let ours: Value = serde_json::from_str(&text(&printed.stdout)).expect("JSON");
    let theirs =
        fs::read_to_string(config.with_extension("json")).expect("what mmengine makes of it");
    let theirs: Value = serde_json::from_str(&theirs).expect("JSON");
    let mut found = Vec::new();
    difference("", &ours, &theirs, &mut found);
    assert!(found.is_empty(), "{name}:\n{}", found.join("\n"));
    let work_dir = folder.path().join("work").join("trained");
    let told = text(
        &ends_in(segslurm().arg("train").arg(&config).arg("--work-dir").arg(&work_dir), 0).stdout,
    );
    assert!(
        told.contains("(train)") && told.contains("mIoU") || told.contains("(val)"),
        "{name}:\n{told}"
    );
    assert!(work_dir.join("last_checkpoint").exists(), "{name}");
}

macro_rules! habits {
    ($($(#[$doc:meta])* $test:ident: $file:literal;)*) => {$(
        $(#[$doc])*
        #[test]
        fn $test() {
            printed_as_mmengine_does_and_trains($file);
        }
    )*};
}

habits! {
    everything_in_one_file: "flat.py";
    a_child_of_the_shipped_bases: "child.py";
    epochs_averaged_weights_and_an_early_stop: "epochs.py";
    what_mmengine_wrote_into_a_work_dir: "dumped.py";
    every_field_of_the_hooks: "hooks.py";
    two_evaluators_with_prefixes: "evaluators.py";
    what_a_config_computes: "computed.py";
    predefined_and_environment_variables: "variables.py";
    registries_in_front_of_types: "scopes.py";
    datasets_and_heads_beside_each_other: "several.py";
    yaml_without_references: "amp.yaml";
}
