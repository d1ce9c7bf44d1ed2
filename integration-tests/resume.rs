//! Stopping without loss: by a signal, by kill -9, with torn checkpoints; the losses go on bit for bit.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::{Rng, RngCore, SeedableRng};

use crate::harness::{self, Steps, ends_in, exact, steps, text};

const ITERATIONS: u32 = 10;

/// The losses of a run that was never stopped.
fn unbroken() -> &'static Steps {
    static STEPS: OnceLock<Steps> = OnceLock::new();
    STEPS.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        ends_in(&mut harness::train(folder.path(), ITERATIONS), 0);
        let steps = exact(&steps(folder.path()));
        assert_eq!(steps.len(), ITERATIONS as usize);
        steps
    })
}

fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).expect("the process is there");
}

/// Waits until `count` steps are logged.
fn wait_for_steps(work_dir: &Path, count: usize) {
    let deadline = Instant::now() + Duration::from_mins(2);
    while !work_dir.exists() || steps(work_dir).len() < count {
        assert!(Instant::now() < deadline, "no {count} steps after two minutes");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_signal_saves_and_the_resumed_losses_equal_the_unbroken_runs() {
    for (name, stop) in [("term", Signal::SIGTERM), ("int", Signal::SIGINT), ("usr1", Signal::SIGUSR1)] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let work_dir = folder.path().join(name);
        let child = start(&mut harness::train(&work_dir, ITERATIONS));
        wait_for_steps(&work_dir, 3);
        signal(&child, stop);
        let output = child.wait_with_output().expect("the process ends");
        assert_eq!(output.status.code(), Some(75), "{}{}", text(&output.stdout), text(&output.stderr));
        assert!(text(&output.stdout).contains("--resume"), "the last line says how to go on:\n{}", text(&output.stdout));

        ends_in(harness::train(&work_dir, ITERATIONS).arg("--resume"), 0);
        assert_eq!(&exact(&steps(&work_dir)), unbroken(), "after {stop}");
    }
}

#[test]
fn a_killed_run_goes_on_from_its_newest_whole_checkpoint() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut child = start(&mut harness::train(folder.path(), ITERATIONS));
    wait_for_steps(folder.path(), 5);
    child.kill().expect("it is still there");
    child.wait().expect("it ends");

    // The newest checkpoint is torn as well: the one before it must serve.
    let mut checkpoints: Vec<_> = std::fs::read_dir(folder.path())
        .expect("the work dir")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|it| it == "safetensors"))
        .collect();
    checkpoints.sort();
    assert!(checkpoints.len() >= 2, "{checkpoints:?}");
    let torn = checkpoints.last().expect("a checkpoint");
    let length = std::fs::metadata(torn).expect("its size").len();
    std::fs::File::options().write(true).open(torn).expect("opens").set_len(length / 2).expect("cut");

    let output = ends_in(harness::train(folder.path(), ITERATIONS).arg("--resume"), 0);
    let torn = torn.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(text(&output.stdout).contains(&torn), "the torn checkpoint is named:\n{}", text(&output.stdout));
    assert_eq!(&exact(&steps(folder.path())), unbroken());
}

#[test]
fn a_run_killed_again_and_again_at_any_moment_has_the_losses_of_one_never_stopped() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let seed = rand::rngs::StdRng::from_os_rng().next_u64();
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    // How long an undisturbed start takes decides where moments can be; the first kill may hit it before anything is written.
    let began = Instant::now();
    unbroken();
    let whole = began.elapsed().max(Duration::from_millis(800));
    for attempt in 0..8 {
        let mut command = harness::train(folder.path(), ITERATIONS);
        let mut child = start(command.arg("--resume"));
        std::thread::sleep(whole.mul_f64(random.random_range(0.05..0.9)));
        child.kill().expect("it was not waited for");
        let status = child.wait().expect("it ends");
        assert!(matches!(status.code(), None | Some(0)), "attempt {attempt} (seed {seed}) ended by itself: {status}");
    }
    ends_in(harness::train(folder.path(), ITERATIONS).arg("--resume"), 0);
    assert_eq!(&exact(&steps(folder.path())), unbroken(), "seed {seed}");
}

#[test]
fn the_number_of_loader_threads_changes_nothing() {
    for workers in [0, 3] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = harness::train(folder.path(), ITERATIONS);
        ends_in(command.arg(format!("train_dataloader.num_workers={workers}")), 0);
        assert_eq!(&exact(&steps(folder.path())), unbroken(), "{workers} workers");
    }
}

#[test]
fn a_second_interrupt_stops_at_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = harness::train(folder.path(), 100_000);
    let child = start(&mut command);
    wait_for_steps(folder.path(), 1);
    signal(&child, Signal::SIGINT);
    signal(&child, Signal::SIGINT);
    let output = child.wait_with_output().expect("the process ends");
    // Two signals may also arrive as one, or the step may end between them: then it saved and left.
    assert!(matches!(output.status.code(), Some(130 | 75)), "{:?} {}", output.status, text(&output.stderr));
}
