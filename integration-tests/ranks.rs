//! Several ranks over real Gloo, started by `dist_train` and `dist_test`: the same training as one
//! rank's, and every way in which a rank can be missed.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::{
    self, CONFIG, dataset, ends_in, exact, free_port, segslurm, small, steps, text,
};

/// What makes one batch of four and two of two the same: batch norm over all ranks, no dropout.
pub(crate) const COMPARABLE: [&str; 5] = [
    "norm_cfg.type=SyncBN",
    "model.decode_head.dropout_ratio=0",
    "model.auxiliary_head.dropout_ratio=0",
    "optimizer.lr=0.01",
    "train_cfg.val_interval=20",
];

/// `segslurm dist_train` with `ranks` ranks on the small config.
pub(crate) fn dist_train(work_dir: &Path, ranks: usize, iterations: u32) -> Command {
    let mut command = segslurm();
    command.args(["dist_train", CONFIG]).arg(ranks.to_string()).arg("--work-dir").arg(work_dir);
    command.args(small(dataset(), iterations));
    command
}

/// One rank as a launcher would start it, with torch's variables.
fn rank(work_dir: &Path, rank: usize, world: usize, port: u16) -> Command {
    let mut command = segslurm();
    command
        .args(["train", CONFIG, "--launcher", "pytorch", "--work-dir"])
        .arg(work_dir)
        .args(small(dataset(), 4));
    for (name, value) in [
        ("RANK", rank),
        ("WORLD_SIZE", world),
        ("LOCAL_RANK", rank),
        ("MASTER_PORT", usize::from(port)),
    ] {
        command.env(name, value.to_string());
    }
    command.env("MASTER_ADDR", "127.0.0.1");
    command
}

pub(crate) fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

/// What a process printed on standard error, and its exit code; panics unless it ends in time.
#[track_caller]
pub(crate) fn outcome(child: Child, within: Duration) -> (Option<i32>, String) {
    let pid = Pid::from_raw(child.id() as i32);
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = sender.send(child.wait_with_output());
    });
    match receiver.recv_timeout(within) {
        Ok(output) => {
            let output = output.expect("the process ends");
            (output.status.code(), text(&output.stdout) + &text(&output.stderr))
        }
        Err(_) => {
            let _ = kill(pid, Signal::SIGKILL);
            panic!("process {pid} did not end within {within:?}");
        }
    }
}

pub(crate) fn loss(steps: &[(u64, serde_json::Map<String, Value>)]) -> Vec<f64> {
    steps.iter().map(|(_, step)| step["loss"].as_f64().expect("a loss")).collect()
}

/// The processes whose command line names `work_dir` and that are ranks: they have a `RANK` of
/// their own.
fn ranks_of(work_dir: &Path) -> Vec<(usize, Pid)> {
    let wanted = work_dir.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let read =
            |name: &str| fs::read(entry.path().join(name)).map(|it| text(&it)).unwrap_or_default();
        if !read("cmdline").contains(&wanted) {
            continue;
        }
        let environment = read("environ");
        let rank = environment.split('\0').find_map(|it| it.strip_prefix("RANK=")?.parse().ok());
        found.extend(rank.map(|rank| (rank, Pid::from_raw(pid))));
    }
    found.sort_by_key(|it| it.0);
    found
}

#[track_caller]
fn nobody_is_left(work_dir: &Path) {
    let deadline = Instant::now() + Duration::from_secs(2);
    while !ranks_of(work_dir).is_empty() {
        assert!(Instant::now() < deadline, "left behind: {:?}", ranks_of(work_dir));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until `count` steps are logged.
pub(crate) fn wait_for_steps(work_dir: &Path, count: usize) {
    let deadline = Instant::now() + Duration::from_mins(2);
    while !work_dir.exists() || steps(work_dir).len() < count {
        assert!(Instant::now() < deadline, "no {count} steps after two minutes");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn metrics(work_dir: &Path) -> Value {
    let runs = fs::read_dir(work_dir)
        .expect("the work dir")
        .flatten()
        .map(|it| it.path())
        .filter(|it| it.is_dir());
    let found: Vec<_> = runs
        .filter_map(|it| Some(it.join(format!("{}.json", it.file_name()?.to_str()?))))
        .filter(|it| it.exists())
        .collect();
    assert_eq!(found.len(), 1, "one rank writes the metrics: {found:?}");
    serde_json::from_str(&fs::read_to_string(&found[0]).expect("the metrics")).expect("JSON")
}

#[test]
fn two_ranks_train_as_one_with_their_batches_together_and_test_the_same() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (alone, together) = (folder.path().join("alone"), folder.path().join("together"));
    ends_in(harness::train(&alone, 20).args(COMPARABLE).arg("train_dataloader.batch_size=4"), 0);
    ends_in(dist_train(&together, 2, 20).args(COMPARABLE), 0);
    let (one, two) = (loss(&steps(&alone)), loss(&steps(&together)));
    assert_eq!((one.len(), two.len()), (20, 20));
    for (step, (one, two)) in one.iter().zip(&two).enumerate() {
        assert!(
            (one - two).abs() <= 1e-4 * one.abs(),
            "step {}: {one} with one rank, {two} with two",
            step + 1
        );
    }

    // Every rank has a log; the rest is rank 0's.
    let run = fs::read_dir(&together)
        .expect("the work dir")
        .flatten()
        .map(|it| it.path())
        .find(|it| it.is_dir())
        .expect("a run");
    let stamp = run.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(
        run.join(format!("{stamp}.log")).exists()
            && run.join(format!("{stamp}_rank1.log")).exists()
    );
    let last = &steps(&together).pop().expect("steps").1;
    assert!(last["comm_time"].as_f64().is_some_and(|it| it > 0.0), "{last:?}");
    assert!(last["comm_mb"].as_f64().is_some_and(|it| it > 1.0), "{last:?}");
    assert!(
        !fs::read_dir(&together)
            .expect("the work dir")
            .flatten()
            .any(|it| it.file_name().to_string_lossy().starts_with("launch"))
    );

    // Two validation images: three ranks have to pad, which must not count.
    let checkpoint = together.join("iter_20.safetensors");
    let mut found = Vec::new();
    for ranks in [1, 2, 3] {
        let work_dir = folder.path().join(format!("test{ranks}"));
        let mut command = segslurm();
        command
            .args(["dist_test", CONFIG])
            .arg(&checkpoint)
            .arg(ranks.to_string())
            .arg("--work-dir")
            .arg(&work_dir);
        ends_in(command.args(small(dataset(), 20)), 0);
        found.push(metrics(&work_dir));
    }
    let mut command = segslurm();
    let work_dir = folder.path().join("test");
    command.args(["test", CONFIG]).arg(&checkpoint).arg("--work-dir").arg(&work_dir);
    ends_in(command.args(small(dataset(), 20)), 0);
    found.push(metrics(&work_dir));
    assert!(found[0]["mIoU"].is_number());
    assert!(found.iter().all(|it| *it == found[0]), "{found:?}");
}

#[test]
fn without_overlap_the_gradients_are_the_same() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut losses = Vec::new();
    for overlap in [true, false] {
        let work_dir = folder.path().join(overlap.to_string());
        let mut command = dist_train(&work_dir, 2, 4);
        command.args(COMPARABLE).arg("model_wrapper_cfg.type=MMDistributedDataParallel");
        ends_in(
            command
                .arg(format!("model_wrapper_cfg.overlap={overlap}"))
                .arg("model_wrapper_cfg.bucket_cap_mb=0.5"),
            0,
        );
        losses.push(loss(&steps(&work_dir)));
    }
    for (with, without) in losses[0].iter().zip(&losses[1]) {
        assert!((with - without).abs() <= 1e-5 * with.abs(), "{losses:?}");
    }
}

#[test]
fn between_updates_nothing_but_losses_and_flags_is_sent() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (alone, together) = (folder.path().join("alone"), folder.path().join("together"));
    let config = folder.path().join("clipped.yaml");
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join(CONFIG);
    let clip = "{_delete_: true, max_norm: 1.0}";
    fs::write(
        &config,
        format!(
            "_base_: {}\noptim_wrapper: {{clip_grad: {clip}, accumulative_counts: 2}}\n",
            base.display()
        ),
    )
    .expect("writes");
    let run = |command: &[&str], work_dir: &Path, batch: usize| {
        let mut program = segslurm();
        program
            .arg(command[0])
            .arg(&config)
            .args(&command[1..])
            .arg("--work-dir")
            .arg(work_dir)
            .args(small(dataset(), 6));
        program
            .args(COMPARABLE)
            .arg("log_processor.window_size=1")
            .arg(format!("train_dataloader.batch_size={batch}"));
        ends_in(&mut program, 0);
    };
    run(&["train"], &alone, 4);
    run(&["dist_train", "2"], &together, 2);
    let (one, two) = (loss(&steps(&alone)), loss(&steps(&together)));
    for (one, two) in one.iter().zip(&two) {
        assert!((one - two).abs() <= 1e-4 * one.abs(), "{one} with one rank, {two} with two");
    }
    let sent: Vec<f64> = steps(&together)
        .iter()
        .map(|(_, step)| step["comm_mb"].as_f64().expect("volume"))
        .collect();
    assert!(
        [0, 2, 4].iter().all(|&step| sent[step] < 1.0)
            && [1, 3, 5].iter().all(|&step| sent[step] > 10.0),
        "{sent:?}"
    );
}

#[test]
fn a_signal_to_the_launcher_saves_and_the_run_goes_on_with_the_same_ranks_or_with_others() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (broken, unbroken) = (folder.path().join("broken"), folder.path().join("unbroken"));
    ends_in(&mut dist_train(&unbroken, 2, 8), 0);
    let child = start(&mut dist_train(&broken, 2, 8));
    wait_for_steps(&broken, 2);
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).expect("the launcher is there");
    let (code, said) = outcome(child, Duration::from_mins(1));
    assert_eq!(code, Some(75), "{said}");
    assert!(said.contains("--resume"), "{said}");
    nobody_is_left(&broken);
    let elsewhere = folder.path().join("elsewhere");
    let status =
        Command::new("cp").arg("-r").arg(&broken).arg(&elsewhere).status().expect("cp starts");
    assert!(status.success());

    ends_in(dist_train(&broken, 2, 8).arg("--resume"), 0);
    assert_eq!(exact(&steps(&broken)), exact(&steps(&unbroken)));

    let output = ends_in(harness::train(&elsewhere, 8).arg("--resume"), 0);
    assert!(
        text(&output.stdout).contains("a run of 2 ranks and this one has 1"),
        "{}",
        text(&output.stdout)
    );
    assert_eq!(steps(&elsewhere).len(), 8);
}

#[test]
fn a_killed_rank_is_named_and_the_others_stop_within_ten_seconds() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let work_dir = folder.path().join("work");
    let child = start(&mut dist_train(&work_dir, 3, 100_000));
    wait_for_steps(&work_dir, 2);
    let ranks = ranks_of(&work_dir);
    assert_eq!(ranks.iter().map(|it| it.0).collect::<Vec<_>>(), [0, 1, 2]);
    kill(ranks[1].1, Signal::SIGKILL).expect("rank 1 is there");
    let (code, said) = outcome(child, Duration::from_secs(10));
    assert_eq!(code, Some(70), "{said}");
    assert!(
        said.contains("rank 1 (host ") && said.contains(") died"),
        "rank 0 names the dead: {said}"
    );
    assert!(said.contains("error: rank 1 was killed (SIGKILL"), "the launcher names it: {said}");
    nobody_is_left(&work_dir);
}

#[test]
fn a_killed_rank_0_is_named_too() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let work_dir = folder.path().join("work");
    let child = start(&mut dist_train(&work_dir, 2, 100_000));
    wait_for_steps(&work_dir, 2);
    kill(ranks_of(&work_dir)[0].1, Signal::SIGKILL).expect("rank 0 is there");
    let (code, said) = outcome(child, Duration::from_secs(10));
    assert_eq!(code, Some(70), "{said}");
    assert!(said.contains("error: rank 0 was killed (SIGKILL"), "{said}");
    nobody_is_left(&work_dir);
    let launch = fs::read_dir(&work_dir).expect("the work dir").flatten().map(|it| it.path());
    let launch = launch
        .filter(|it| it.file_name().is_some_and(|it| it.to_string_lossy().starts_with("launch_")));
    let printed = fs::read_to_string(launch.last().expect("its folder").join("rank1.txt"))
        .expect("what rank 1 printed");
    assert!(printed.contains("rank 0 (host ") && printed.contains(") died"), "{printed}");
}

#[test]
fn no_rank_outlives_a_killed_launcher() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let work_dir = folder.path().join("work");
    let mut child = start(&mut dist_train(&work_dir, 2, 100_000));
    wait_for_steps(&work_dir, 1);
    assert_eq!(ranks_of(&work_dir).len(), 2);
    child.kill().expect("it is there");
    child.wait().expect("it ends");
    nobody_is_left(&work_dir);
}

#[test]
fn a_rank_that_hangs_is_found_and_every_ranks_collective_is_told() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let work_dir = folder.path().join("work");
    let child = start(dist_train(&work_dir, 2, 100_000).arg("env_cfg.dist_cfg.timeout=3"));
    wait_for_steps(&work_dir, 2);
    let stopped = ranks_of(&work_dir)[1].1;
    kill(stopped, Signal::SIGSTOP).expect("rank 1 is there");
    let (code, said) = outcome(child, Duration::from_secs(20));
    assert_eq!(code, Some(69), "{said}");
    assert!(
        said.contains("a collective did not end within 3 s (env_cfg.dist_cfg.timeout)"),
        "{said}"
    );
    assert!(said.contains("rank 0 (host ") && said.contains("): in all_"), "{said}");
    assert!(said.contains("rank 1 (host ") && said.contains("does not answer: stopped"), "{said}");
    nobody_is_left(&work_dir);
}

#[test]
fn a_rank_that_does_not_come_is_named_by_those_who_came() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for present in [0, 1] {
        let port = free_port();
        let mut command = rank(&folder.path().join("work"), present, 2, port);
        let output = ends_in(command.arg("env_cfg.dist_cfg.rendezvous_timeout=2"), 69);
        let (missing, said) = (1 - present, text(&output.stderr));
        assert!(said.contains(&format!("rank {missing}")), "{said}");
        assert!(said.contains(&format!("did not arrive within 2 s at 127.0.0.1:{port}")), "{said}");
    }
    // With three, the one that is missing is told to both others.
    let port = free_port();
    let came: Vec<Child> = [0, 2]
        .iter()
        .map(|&it| {
            start(
                rank(&folder.path().join("work"), it, 3, port)
                    .arg("env_cfg.dist_cfg.rendezvous_timeout=3"),
            )
        })
        .collect();
    for child in came {
        let (code, said) = outcome(child, Duration::from_secs(30));
        assert_eq!(code, Some(69), "{said}");
        assert!(
            said.contains("rank 1 (host ") && said.contains("did not arrive within 3 s"),
            "{said}"
        );
    }
}

#[test]
fn a_taken_port_is_told_with_who_set_it_and_how_to_set_another() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let taken = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = taken.local_addr().expect("its address").port();
    let output = ends_in(dist_train(folder.path(), 2, 2).env("PORT", port.to_string()), 69);
    let said = text(&output.stderr);
    assert!(
        said.contains("Address already in use")
            && said.contains(&format!("port {port} (set by PORT)")),
        "{said}"
    );
    for way in [
        "--cfg-options env_cfg.dist_cfg.port=",
        "env_cfg.dist_cfg.port in the config",
        "MASTER_PORT=",
    ] {
        assert!(said.contains(way), "{said}");
    }
    let output = ends_in(&mut rank(folder.path(), 0, 2, port), 69);
    assert!(text(&output.stderr).contains("(set by MASTER_PORT)"), "{}", text(&output.stderr));
    // The config's wins over the variable, and says so.
    let mut configured = dist_train(folder.path(), 2, 2);
    configured.arg(format!("env_cfg.dist_cfg.port={port}")).env("PORT", "29500");
    let output = ends_in(&mut configured, 69);
    let said = text(&output.stderr);
    for words in ["(set by env_cfg.dist_cfg.port)", ": PORT is not looked at"] {
        assert!(said.contains(words), "{words} in {said}");
    }
}

#[test]
fn ranks_that_disagree_are_told_about_what() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let port = free_port();
    let mut children = Vec::new();
    for it in [0, 1] {
        let mut command = rank(&folder.path().join("work"), it, 2, port);
        children.push(start(
            command.arg(format!("optimizer.weight_decay={}", if it == 0 { 0.5 } else { 0.25 })),
        ));
    }
    for child in children {
        let (code, said) = outcome(child, Duration::from_secs(30));
        assert_eq!(code, Some(78), "{said}");
        assert!(
            said.contains("the ranks disagree") && said.contains("config: rank 0 (host "),
            "{said}"
        );
        assert!(
            said.contains("weight_decay: 0.5") && said.contains("weight_decay: 0.25"),
            "{said}"
        );
    }
    let port = free_port();
    let children = [(0, 2), (1, 3)]
        .map(|(it, world)| start(&mut rank(&folder.path().join("work"), it, world, port)));
    for child in children {
        let (code, said) = outcome(child, Duration::from_secs(30));
        assert_eq!(code, Some(69), "{said}");
        assert!(said.contains("the ranks disagree about the world size: rank 0 says 2"), "{said}");
    }
}

#[test]
fn a_mistake_is_told_once_and_the_first_failing_ranks_words_are_shown() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output =
        ends_in(dist_train(folder.path(), 2, 2).arg("model.decode_head.dropout_ration=1"), 78);
    assert_eq!(
        text(&output.stderr).matches("dropout_ration").count(),
        1,
        "{}",
        text(&output.stderr)
    );
    let output = ends_in(dist_train(folder.path(), 2, 2).arg("--lancher"), 2);
    assert!(text(&output.stderr).contains("--lancher"), "{}", text(&output.stderr));

    // Only rank 1 meets this: every second entry is its own, and one of its images is broken. The
    // look before the first step does not: it opens 16 of the 40 entries.
    let data = folder.path().join("demo");
    let status =
        Command::new("cp").arg("-r").arg(dataset()).arg(&data).status().expect("cp starts");
    assert!(status.success());
    let mut images: Vec<_> = fs::read_dir(data.join("images/training"))
        .expect("images")
        .flatten()
        .map(|it| it.path())
        .collect();
    images.sort();
    fs::write(&images[1], "no picture").expect("writes");
    let stem =
        |index: usize| images[index].file_stem().expect("a name").to_string_lossy().into_owned();
    let names: Vec<_> =
        (0..40).map(|index| stem(if index == 1 { 1 } else { index % 2 * 2 })).collect();
    fs::write(data.join("list.txt"), names.join("\n")).expect("writes");
    let mut command = segslurm();
    let work_dir = folder.path().join("work");
    command.args(["dist_train", CONFIG, "2", "--work-dir"]).arg(&work_dir).args(small(&data, 100));
    let one_by_one = [
        "train_dataloader.sampler.shuffle=false",
        "train_dataloader.batch_size=1",
        "train_dataloader.dataset.ann_file=list.txt",
        "norm_cfg.type=SyncBN",
    ];
    let output = ends_in(command.args(one_by_one), 65);
    let said = text(&output.stderr);
    assert!(said.contains("rank 1 failed with exit code 65; it said, in "), "{said}");
    assert!(said.contains(&*images[1].file_name().expect("a name").to_string_lossy()), "{said}");
    assert!(said.contains("rank 1 (host "), "rank 0 heard of it: {said}");
    nobody_is_left(&work_dir);
}

#[test]
fn nccl_without_gpus_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = ends_in(dist_train(folder.path(), 2, 2).arg("env_cfg.dist_cfg.backend=nccl"), 69);
    assert!(
        text(&output.stderr).contains("env_cfg.dist_cfg.backend is nccl, but"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn two_runs_side_by_side_each_find_a_port() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let runs: Vec<Child> = ["a", "b"]
        .iter()
        .map(|name| start(&mut dist_train(&folder.path().join(name), 2, 2)))
        .collect();
    for run in runs {
        let (code, said) = outcome(run, Duration::from_mins(2));
        assert_eq!(code, Some(0), "{said}");
    }
}
