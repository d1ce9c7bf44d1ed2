//! What every test needs: the program, a temporary place, a small dataset, and a config that trains
//! in a second or two.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::{Map, Value};
use tempfile::TempDir;

/// The demo config at a size that takes a second.
pub(crate) const CONFIG: &str = "configs/demo/pspnet_r18-d8_demo-128x128.yaml";

/// The program, in the project's root, on the CPU, without a launcher's variables around it.
pub(crate) fn segslurm() -> Command {
    program(env!("CARGO_BIN_EXE_segslurm"))
}

/// Any program, likewise.
pub(crate) fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if [
            "SLURM",
            "SBATCH_",
            "SRUN_",
            "SALLOC_",
            "OMPI_",
            "PMI",
            "GPUS",
            "NNODES",
            "NODE_RANK",
            "MASTER_",
            "PORT",
            "RANK",
            "WORLD_SIZE",
            "LOCAL_",
        ]
        .iter()
        .any(|prefix| text.starts_with(prefix))
        {
            command.env_remove(&name);
        }
    }
    // Slurm sets the first one anew, for GPUs that are no more than device files here.
    command
        .env("CUDA_VISIBLE_DEVICES", "-1")
        .env("SEGSLURM_DEVICE", "cpu")
        .env("OMP_NUM_THREADS", "1");
    command
}

/// Runs the command and returns what it printed; panics with both streams unless it ends in `code`.
#[track_caller]
pub(crate) fn ends_in(command: &mut Command, code: i32) -> Output {
    let output = command.output().expect("the program starts");
    assert_eq!(
        output.status.code(),
        Some(code),
        "{command:?}\n--- stdout\n{}--- stderr\n{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    output
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
pub(crate) fn says(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{word} is not in:\n{said}");
    }
}

/// Says that the running test is skipped and why, past the capture of a passing test's output.
/// Where everything is to be there (`CI`, and SEGSLURM_REQUIRE_TOOLS, which `.ci/run` sets), it is
/// a failure.
#[track_caller]
pub(crate) fn skip(why: &str) {
    let required = ["CI", "SEGSLURM_REQUIRE_TOOLS"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|it| !it.is_empty()));
    assert!(!required, "skipping is not allowed here: {why}");
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

/// A small dataset in ADE20K's layout, made once for all tests.
pub(crate) fn dataset() -> &'static Path {
    static DATASET: OnceLock<TempDir> = OnceLock::new();
    let folder = DATASET.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = folder.path().join("demo");
        ends_in(
            segslurm()
                .arg("demo-data")
                .arg(&data)
                .args(["--images", "12", "--size", "96x64", "--seed", "3"]),
            0,
        );
        folder
    });
    Box::leak(folder.path().join("demo").into_boxed_path())
}

/// `--cfg-options` that make the demo config small: 32×32 crops, a batch of 2, a checkpoint every 2
/// iterations, every iteration logged, `iterations` in all.
pub(crate) fn small(data_root: &Path, iterations: u32) -> Vec<String> {
    let root = data_root.display();
    let mut options = vec!["--cfg-options".to_owned()];
    options.extend(
        ["train", "val", "test"]
            .iter()
            .map(|mode| format!("{mode}_dataloader.dataset.data_root={root}")),
    );
    options.extend(
        [
            "crop_size=[32,32]",
            "train_dataloader.batch_size=2",
            "train_dataloader.num_workers=1",
            "default_hooks.logger.interval=1",
            "default_hooks.checkpoint.interval=2",
            "default_hooks.checkpoint.max_keep_ckpts=-1",
            "train_cfg.val_interval=4",
            "randomness.seed=7",
        ]
        .map(ToOwned::to_owned),
    );
    options.push(format!("train_cfg.max_iters={iterations}"));
    options
}

/// `segslurm train` on the small config, into `work_dir`.
pub(crate) fn train(work_dir: &Path, iterations: u32) -> Command {
    train_on(Path::new(CONFIG), work_dir, iterations)
}

/// The same with a config that builds on it.
pub(crate) fn train_on(config: &Path, work_dir: &Path, iterations: u32) -> Command {
    let mut command = segslurm();
    command
        .arg("train")
        .arg(config)
        .arg("--work-dir")
        .arg(work_dir)
        .args(small(dataset(), iterations));
    command
}

/// A config with `load_from` in it.
pub(crate) fn with_load_from(folder: &Path, checkpoint: &Path) -> PathBuf {
    let config = folder.join("begins_elsewhere.yaml");
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join(CONFIG);
    let text = format!("_base_: {}\nload_from: {}\n", base.display(), checkpoint.display());
    std::fs::write(&config, text).expect("writes");
    config
}

/// Every logged training step of a work dir, over all its starts, by iteration; a later start
/// replaces an earlier one's line.
pub(crate) fn steps(work_dir: &Path) -> Vec<(u64, Map<String, Value>)> {
    let mut steps = std::collections::BTreeMap::new();
    for file in scalar_files(work_dir) {
        let lines = std::fs::read_to_string(&file).expect("a scalars file");
        // A killed run may have torn its last line.
        for line in
            lines.lines().filter_map(|line| serde_json::from_str::<Map<String, Value>>(line).ok())
        {
            if let Some(iteration) = line.get("iter").and_then(Value::as_u64) {
                steps.insert(iteration, line);
            }
        }
    }
    steps.into_iter().collect()
}

/// After which iterations (or epochs) a work dir's only start has validated.
pub(crate) fn validations(work_dir: &Path) -> Vec<u64> {
    let lines = scalar_files(work_dir)
        .iter()
        .map(|it| std::fs::read_to_string(it).expect("a scalars file"))
        .collect::<String>();
    let lines =
        lines.lines().map(|line| serde_json::from_str::<Map<String, Value>>(line).expect("a line"));
    lines
        .filter(|it| it.contains_key("mIoU"))
        .map(|it| it["step"].as_u64().expect("a step"))
        .collect()
}

/// How many steps a run has logged that may not have made its work dir yet.
pub(crate) fn steps_so_far(work_dir: &Path) -> usize {
    if work_dir.exists() { steps(work_dir).len() } else { 0 }
}

fn scalar_files(work_dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(work_dir).expect("a work dir").flatten();
    let mut files: Vec<_> = entries
        .map(|entry| entry.path().join("vis_data/scalars.json"))
        .filter(|it| it.exists())
        .collect();
    files.sort();
    files
}

/// The text of rank 0's log file of the only start in a work dir; `None` where none was opened.
pub(crate) fn log(work_dir: &Path) -> Option<String> {
    let runs = std::fs::read_dir(work_dir).expect("a work dir").flatten().map(|entry| entry.path());
    let mut logs = runs.filter_map(|run| {
        std::fs::read_to_string(run.join(run.file_name()?).with_extension("log")).ok()
    });
    logs.next()
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|it| it.local_addr())
        .expect("a free port")
        .port()
}

/// Logged steps by iteration, with their values by name.
pub(crate) type Steps = Vec<(u64, Vec<(String, Value)>)>;

/// The parts of a logged step that must not depend on the machine's speed.
pub(crate) fn exact(steps: &[(u64, Map<String, Value>)]) -> Steps {
    let timing = ["time", "data_time", "comm_time", "comm_mb", "memory"];
    let keep = |step: &Map<String, Value>| {
        let mut values: Vec<_> =
            step.clone().into_iter().filter(|(name, _)| !timing.contains(&name.as_str())).collect();
        values.sort_by(|left, right| left.0.cmp(&right.0));
        values
    };
    steps.iter().map(|(iteration, step)| (*iteration, keep(step))).collect()
}
