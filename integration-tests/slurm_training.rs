//! Training over the nodes of the real cluster, with `--launcher slurm`.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cluster::{Cluster, cluster};
use crate::harness::{self, CONFIG, dataset, ends_in, exact, free_port, small, steps, text};
use crate::ranks::{COMPARABLE, loss, outcome, start, wait_for_steps};

/// `segslurm train CONFIG --launcher slurm` on the small config, as arguments.
fn train(work_dir: &Path, iterations: u32) -> Vec<String> {
    let words =
        [env!("CARGO_BIN_EXE_segslurm"), "train", CONFIG, "--launcher", "slurm", "--work-dir"];
    let mut arguments: Vec<String> = words.map(str::to_owned).into();
    arguments.push(work_dir.display().to_string());
    arguments.extend(small(dataset(), iterations));
    arguments
}

/// A step of `srun` with these options that trains.
fn srun(cluster: &Cluster, options: &[&str], work_dir: &Path, iterations: u32) -> Command {
    let mut command = cluster.command("srun");
    command.args(options).args(train(work_dir, iterations));
    command
}

#[test]
fn two_nodes_train_as_one_process_with_their_batches_together() {
    let Some(cluster) = cluster() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (alone, together) = (folder.path().join("alone"), folder.path().join("together"));
    ends_in(harness::train(&alone, 20).args(COMPARABLE).arg("train_dataloader.batch_size=4"), 0);
    let output = ends_in(srun(cluster, &["-N2", "-n2"], &together, 20).args(COMPARABLE), 0);
    let said = text(&output.stdout);
    assert!(said.contains("2 ranks over gloo on n1, n2"), "{said}");
    let (one, two) = (loss(&steps(&alone)), loss(&steps(&together)));
    assert_eq!((one.len(), two.len()), (20, 20));
    for (step, (one, two)) in one.iter().zip(&two).enumerate() {
        assert!(
            (one - two).abs() <= 1e-4 * one.abs(),
            "step {}: {one} with one rank, {two} on two nodes",
            step + 1
        );
    }
    assert!(together.join("iter_20.safetensors").exists());
}

#[test]
fn two_jobs_on_a_node_find_ports_of_their_own_and_a_port_said_twice_ends_the_second_at_once() {
    let Some(cluster) = cluster() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let node = ["-w", "n1", "-n2"];
    let runs =
        ["a", "b"].map(|name| start(&mut srun(cluster, &node, &folder.path().join(name), 2)));
    for run in runs {
        let (code, said) = outcome(run, Duration::from_mins(2));
        assert_eq!(code, Some(0), "{said}");
    }

    let port = free_port().to_string();
    let first = folder.path().join("first");
    let name = format!("first-{port}");
    let mut running = srun(cluster, &[&node[..], &["-J", &name]].concat(), &first, 100_000);
    let running = start(running.env("MASTER_PORT", &port));
    wait_for_steps(&first, 1);
    let since = Instant::now();
    let second =
        start(srun(cluster, &node, &folder.path().join("second"), 2).env("MASTER_PORT", &port));
    let (code, said) = outcome(second, Duration::from_mins(1));
    assert_eq!(code, Some(69), "{said}");
    assert!(since.elapsed() < Duration::from_secs(30), "after {:?}", since.elapsed());
    assert_eq!(
        said.matches("error: Address already in use").count(),
        2,
        "both ranks say so: {said}"
    );
    for part in [
        &format!("port {port}"),
        "set by MASTER_PORT",
        "--cfg-options env_cfg.dist_cfg.port=",
        "env_cfg.dist_cfg.port in the config",
    ] {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
    ends_in(cluster.command("scancel").args(["-n", &name]), 0);
    outcome(running, Duration::from_mins(1));
}

#[test]
fn tasks_without_a_launcher_are_warned_that_each_trains_alone() {
    let Some(cluster) = cluster() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let apart =
        format!("cd {} && exec \"$@\" --work-dir $PWD/$SLURM_PROCID", folder.path().display());
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join(CONFIG);
    let mut command = cluster.command("srun");
    command
        .args(["-N1", "-n2", "bash", "-c", &apart, "bash", env!("CARGO_BIN_EXE_segslurm"), "train"])
        .arg(config);
    let output = ends_in(command.args(small(dataset(), 1)), 0);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(
        said.contains("task 1 of 2 in step") && said.contains("without --launcher slurm"),
        "{said}"
    );
}

/// The process of this rank.
fn process(work_dir: &Path, rank: usize) -> Option<Pid> {
    let wanted = work_dir.to_string_lossy().into_owned();
    let variable = format!("SLURM_PROCID={rank}");
    std::fs::read_dir("/proc").expect("/proc").flatten().find_map(|entry| {
        let read = |name: &str| {
            std::fs::read(entry.path().join(name)).map(|it| text(&it)).unwrap_or_default()
        };
        let ours = read("cmdline").starts_with(env!("CARGO_BIN_EXE_segslurm"))
            && read("cmdline").contains(&wanted);
        let is = ours && read("environ").split('\0').any(|it| it == variable);
        is.then(|| entry.file_name().to_string_lossy().parse().ok().map(Pid::from_raw))?
    })
}

#[test]
fn a_rank_that_is_killed_in_a_step_is_named_and_the_others_stop() {
    let Some(cluster) = cluster() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let running = start(&mut srun(cluster, &["-N2", "-n3"], folder.path(), 100_000));
    wait_for_steps(folder.path(), 1);
    kill(process(folder.path(), 2).expect("rank 2 runs"), Signal::SIGKILL).expect("it is there");
    let since = Instant::now();
    let (code, said) = outcome(running, Duration::from_mins(1));
    assert!(since.elapsed() < Duration::from_secs(10), "after {:?}: {said}", since.elapsed());
    assert_ne!(code, Some(0));
    assert!(said.contains("rank 2 (host n2) died"), "{said}");
    assert!((0..3).all(|rank| process(folder.path(), rank).is_none()), "nobody is left");
}

#[test]
fn a_requeued_job_goes_on_from_its_checkpoint() {
    let Some(cluster) = cluster() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (unbroken, broken) = (folder.path().join("unbroken"), folder.path().join("broken"));
    ends_in(&mut srun(cluster, &["-N2", "-n2"], &unbroken, 40), 0);

    let log = folder.path().join("log").display().to_string();
    let mut arguments = train(&broken, 40);
    arguments.push("--resume".to_owned());
    let line = shlex::try_join(arguments.iter().map(String::as_str)).expect("a command line");
    let env = shlex::try_quote(env!("CARGO_BIN_EXE_segslurm")).expect("a path");
    let script = format!("#!/bin/bash\nsrun -n1 -N1 {env} env --format json\nsrun {line}\n");
    let job =
        cluster.submit(&["-N2", "-n2", "--requeue", "--open-mode=append", "-o", &log], &script);
    wait_for_steps(&broken, 3);
    ends_in(cluster.command("scontrol").args(["requeue", &job.to_string()]), 0);
    cluster.wait_for(job, &["PENDING"], Duration::from_mins(1));
    let done = steps(&broken).len();
    assert!(done < 40, "it was stopped before its end");
    cluster.ended(job, Duration::from_mins(2));
    let said = std::fs::read_to_string(&log).expect("the job's log");
    assert_eq!(exact(&steps(&broken)), exact(&steps(&unbroken)), "{said}");
    assert_eq!(cluster.field(job, "Restarts"), "1");
    // `segslurm env` knew the first start from the second.
    assert!(said.contains("\"from\": \"SLURM_RESTART_COUNT=1\""), "{said}");
}

#[test]
fn without_scontrol_a_node_needs_a_name_that_resolves_or_an_address() {
    let Some(cluster) = cluster() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let bare = |options: &[&str], work_dir: &Path| {
        let mut command = cluster.command("srun");
        command.args(options).args(["env", "PATH=/nowhere"]).args(train(work_dir, 2));
        command
    };
    // One node needs no name.
    ends_in(&mut bare(&["-N1", "-n2"], &folder.path().join("one")), 0);
    ends_in(bare(&["-N2", "-n2"], &folder.path().join("two")).env("MASTER_ADDR", "127.0.0.1"), 0);
    let output = bare(&["-N2", "-n2", "--kill-on-bad-exit=1"], &folder.path().join("three"))
        .output()
        .expect("srun starts");
    assert!(!output.status.success());
    let said = text(&output.stderr);
    for part in ["the name n1 cannot be resolved", "scontrol is not on PATH", "MASTER_ADDR=ADDRESS"]
    {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
}
