//! Training and testing as jobs of the real cluster: in the foreground, in the queue, stopped,
//! cancelled, refused.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cluster::{Cluster, cluster};
use crate::harness::{CONFIG, dataset, ends_in, small, steps, text};
use crate::ranks::{outcome, start, wait_for_steps};

/// `segslurm` on a login node of the cluster, with two GPUs asked for.
fn segslurm(cluster: &Cluster) -> Command {
    let mut command = cluster.command(env!("CARGO_BIN_EXE_segslurm"));
    command.env_remove("CUDA_VISIBLE_DEVICES").env("GPUS", "2");
    command
}

fn train(cluster: &Cluster, options: &[&str], work_dir: &Path, iterations: u32) -> Command {
    let mut command = segslurm(cluster);
    command
        .args(["train", "dev", "it's a job", CONFIG])
        .args(options)
        .arg("--work-dir")
        .arg(work_dir);
    command.args(small(dataset(), iterations));
    command
}

fn jobs(cluster: &Cluster) -> String {
    text(&ends_in(cluster.command("squeue").args(["-h", "-o", "%j|%T"]), 0).stdout)
}

/// The number in `submitted job 12: …`.
fn submitted(said: &str) -> u64 {
    let number = said
        .split("submitted job ")
        .nth(1)
        .and_then(|it| it.split(|it: char| !it.is_ascii_digit()).next());
    number.and_then(|it| it.parse().ok()).unwrap_or_else(|| panic!("no job in {said}"))
}

fn log(work_dir: &Path, job: u64) -> String {
    log_of(&work_dir.join(format!("slurm/{job}.log")))
}

fn log_of(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn a_job_in_the_foreground_trains_to_a_checkpoint_and_its_test_prints_metrics() {
    let Some(cluster) = cluster() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let work = folder.path().join("it's a $work dir");
    let output = ends_in(&mut train(cluster, &[], &work, 2), 0);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(
        said.contains("2 ranks on one node, one GPU each on partition dev")
            && said.contains("Iter(train) [2/2]"),
        "{said}"
    );
    let checkpoint = work.join("iter_2.safetensors");
    assert!(checkpoint.exists() && steps(&work).len() == 2);
    let mut command = segslurm(cluster);
    command
        .args(["test", "-", "t", CONFIG])
        .arg(&checkpoint)
        .arg("--work-dir")
        .arg(folder.path().join("tested"));
    let said = text(&ends_in(command.args(small(dataset(), 2)), 0).stdout);
    assert!(said.contains("mIoU"), "{said}");
}

#[test]
fn a_job_without_gpus_trains_too() {
    let Some(cluster) = cluster() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    ends_in(
        train(cluster, &["--ntasks", "2", "--cpus-per-task", "1"], folder.path(), 2)
            .env("GPUS", "0"),
        0,
    );
    assert_eq!(steps(folder.path()).len(), 2);
}

#[test]
fn a_job_in_the_queue_trains_without_scontrol_on_the_path_and_its_log_is_where_it_was_said() {
    let Some(cluster) = cluster() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let bin = folder.path().join("bin");
    std::fs::create_dir(&bin).expect("makes a folder");
    for name in ["srun", "sbatch", "sinfo", "bash", "env"] {
        let found = ["/usr/bin", "/bin", "/usr/local/bin"]
            .iter()
            .map(|it| Path::new(it).join(name))
            .find(|it| it.exists());
        std::os::unix::fs::symlink(found.expect("a program"), bin.join(name)).expect("links");
    }
    let work = folder.path().join("work 100%");
    let said = text(&ends_in(train(cluster, &["--batch"], &work, 2).env("PATH", &bin), 0).stderr);
    let job = submitted(&said);
    assert_eq!(cluster.ended(job, Duration::from_mins(2)), "COMPLETED", "{}", log(&work, job));
    assert!(
        log(&work, job).contains("Iter(train) [2/2]") && said.contains(&format!("slurm/{job}.log")),
        "{said}"
    );
    assert!(work.join("iter_2.safetensors").exists());
}

#[test]
fn ctrl_c_saves_and_stops_and_twice_cancels() {
    let Some(cluster) = cluster() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let once = folder.path().join("once");
    let child = start(&mut train(cluster, &[], &once, 100_000));
    wait_for_steps(&once, 2);
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("it is there");
    let (code, said) = outcome(child, Duration::from_mins(1));
    assert_eq!(code, Some(75), "{said}");
    assert!(
        said.contains("everything is saved") && once.join("last_checkpoint").exists(),
        "{said}"
    );
    let last = steps(&once).last().expect("steps").0;
    // It goes on where it stopped.
    let output = ends_in(&mut train(cluster, &["--resume"], &once, last as u32 + 2), 0);
    assert!(
        text(&output.stdout).contains(&format!("resumed at iteration {last}")),
        "{}",
        text(&output.stdout)
    );

    let twice = folder.path().join("twice");
    let child = start(&mut train(cluster, &["--comment", "twice"], &twice, 100_000));
    wait_for_steps(&twice, 2);
    let pid = Pid::from_raw(child.id() as i32);
    kill(pid, Signal::SIGINT).expect("it is there");
    std::thread::sleep(Duration::from_millis(30));
    kill(pid, Signal::SIGINT).expect("it is there");
    let (code, said) = outcome(child, Duration::from_mins(1));
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("the job was cancelled"), "{said}");
}

#[test]
fn a_waiting_job_leaves_the_queue_at_ctrl_c() {
    let Some(cluster) = cluster() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = segslurm(cluster);
    command.args(["train", "dev", "waits-for-ever", CONFIG, "--slurm", "begin=now+1hour"]);
    command.arg("--work-dir").arg(folder.path()).args(small(dataset(), 2));
    let child = start(&mut command);
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !jobs(cluster).contains("waits-for-ever|PENDING") {
        assert!(std::time::Instant::now() < deadline, "{}", jobs(cluster));
        std::thread::sleep(Duration::from_millis(50));
    }
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("it is there");
    let (code, said) = outcome(child, Duration::from_mins(1));
    assert_ne!(code, Some(0), "{said}");
    assert!(!jobs(cluster).contains("waits-for-ever|PENDING"), "{}", jobs(cluster));
}

#[test]
fn a_job_that_is_told_to_stop_for_good_saves_and_stays_away() {
    let Some(cluster) = cluster() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let job = submitted(&text(
        &ends_in(&mut train(cluster, &["--batch"], folder.path(), 100_000), 0).stderr,
    ));
    wait_for_steps(folder.path(), 2);
    ends_in(cluster.command("scancel").args(["--batch", "--signal=INT", &job.to_string()]), 0);
    assert_eq!(cluster.ended(job, Duration::from_mins(1)), "FAILED", "{}", log(folder.path(), job));
    assert_eq!(cluster.field(job, "ExitCode"), "75:0");
    assert!(folder.path().join("last_checkpoint").exists());
}

#[test]
fn a_job_whose_time_ends_is_requeued_and_goes_on() {
    let Some(cluster) = cluster() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let job = submitted(&text(
        &ends_in(&mut train(cluster, &["--batch"], folder.path(), 100_000), 0).stderr,
    ));
    wait_for_steps(folder.path(), 2);
    // What Slurm sends before the time limit, sooner.
    ends_in(cluster.command("scancel").args(["--signal=USR1", &job.to_string()]), 0);
    cluster.wait_for(job, &["PENDING"], Duration::from_mins(1));
    let saved = steps(folder.path()).len();
    cluster.wait_for(job, &["RUNNING"], Duration::from_mins(2));
    wait_for_steps(folder.path(), saved + 2);
    let text = log(folder.path(), job);
    ends_in(cluster.command("scancel").arg(job.to_string()), 0);
    assert!(text.contains("resumed at iteration") && text.contains("Iter(train)"), "{text}");
}

#[test]
fn elements_of_an_array_train_in_folders_of_their_own() {
    let Some(cluster) = cluster() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = train(cluster, &["--batch", "--array", "0-1"], folder.path(), 2);
    let job = submitted(&text(&ends_in(&mut command, 0).stderr));
    let deadline = std::time::Instant::now() + Duration::from_mins(2);
    while !["0", "1"].iter().all(|it| folder.path().join(it).join("iter_2.safetensors").exists()) {
        assert!(
            std::time::Instant::now() < deadline,
            "{}",
            log_of(&folder.path().join(format!("slurm/{job}_0.log")))
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_failing_job_tells_its_exit_code_and_its_reason() {
    let Some(cluster) = cluster() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let notes = folder.path().join("notes.pth");
    std::fs::write(&notes, "no checkpoint").expect("writes");
    let mut command = train(cluster, &[], folder.path(), 2);
    let output = ends_in(command.arg(format!("load_from={}", notes.display())), 65);
    let said = text(&output.stderr);
    assert!(
        said.contains("notes.pth") && said.contains("the job ended with exit code 65"),
        "{said}"
    );
    // What is not there is told before anything waits in a queue.
    let mut command = train(cluster, &[], folder.path(), 2);
    let said = text(&ends_in(command.arg("load_from=/does/not/exist.pth"), 66).stderr);
    assert!(said.contains("/does/not/exist.pth") && !said.contains("the job"), "{said}");
}

#[test]
fn what_slurm_would_refuse_is_refused_before_the_queue() {
    let Some(cluster) = cluster() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let run = |partition: &str, options: &[&str], code: i32| {
        let mut command = segslurm(cluster);
        command
            .args(["train", partition, "refused", CONFIG, "--work-dir"])
            .arg(folder.path())
            .args(options);
        let output = ends_in(command.args(small(dataset(), 2)), code);
        text(&output.stdout) + &text(&output.stderr)
    };
    let said = run("dve", &[], 77);
    assert!(
        said.contains(
            "there is no partition \"dve\"; the partitions here are dev, short (did you mean dev?)"
        ),
        "{said}"
    );
    let said = run("short", &["--time", "1:00:00", "--batch"], 77);
    assert!(said.contains("more than partition short allows, 00:10:00"), "{said}");
    let said = run("dev", &["--cpus-per-task", "1000", "--dry-run"], 77);
    assert!(
        said.contains(
            "Requested node configuration is not available; no node has 2 GPUs with 2000 CPUs"
        ),
        "{said}"
    );
    let said = run("dev", &["--gpus", "12", "--dry-run"], 0);
    for part in [
        "gpus             12                       --gpus",
        "would start at",
        "6+6",
        "srun --job-name=refused",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    let mut command = segslurm(cluster);
    command.args(["train", "dev", "refused", CONFIG, "--dry-run", "--work-dir"]).arg(folder.path());
    let said = text(&ends_in(command.args(small(Path::new("/no/data"), 2)), 66).stderr);
    assert!(said.contains("/no/data"), "{said}");
    assert!(!jobs(cluster).contains("refused"), "{}", jobs(cluster));
}
