//! Stopping without loss: by a signal, by kill -9, with torn checkpoints; the losses go on bit for
//! bit.

use std::path::{Path, PathBuf};
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
    for (name, stop) in
        [("term", Signal::SIGTERM), ("int", Signal::SIGINT), ("usr1", Signal::SIGUSR1)]
    {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let work_dir = folder.path().join(name);
        let child = start(&mut harness::train(&work_dir, ITERATIONS));
        wait_for_steps(&work_dir, 3);
        signal(&child, stop);
        let output = child.wait_with_output().expect("the process ends");
        assert_eq!(
            output.status.code(),
            Some(75),
            "{}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        assert!(
            text(&output.stdout).contains("--resume"),
            "the last line says how to go on:\n{}",
            text(&output.stdout)
        );

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
    std::fs::File::options()
        .write(true)
        .open(torn)
        .expect("opens")
        .set_len(length / 2)
        .expect("cut");

    let output = ends_in(harness::train(folder.path(), ITERATIONS).arg("--resume"), 0);
    let torn = torn.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(
        text(&output.stdout).contains(&torn),
        "the torn checkpoint is named:\n{}",
        text(&output.stdout)
    );
    assert_eq!(&exact(&steps(folder.path())), unbroken());
}

/// A place in which runs are killed: in a fresh work dir or one that an older run has used, with
/// `load_from` or without.
struct Scene {
    folder: tempfile::TempDir,
    used: bool,
    /// A config that begins with these weights. On the command line `load_from` beside `--resume`
    /// would be an order.
    config: Option<PathBuf>,
    /// The losses of the same run, never stopped.
    unbroken: Steps,
    /// How long that one took.
    whole: Duration,
    runs: usize,
}

impl Scene {
    fn new(used: bool, weights: Option<&Path>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = weights.map(|it| harness::with_load_from(folder.path(), it));
        let mut scene =
            Self { folder, used, config, unbroken: Steps::new(), whole: Duration::ZERO, runs: 0 };
        let alone = scene.folder.path().join("alone");
        let began = Instant::now();
        ends_in(&mut scene.train(&alone, false), 0);
        scene.whole = began.elapsed();
        scene.unbroken = exact(&steps(&alone));
        if used {
            ends_in(
                harness::train(&scene.folder.path().join("used"), 8).arg("randomness.seed=8"),
                0,
            );
        }
        scene
    }

    fn train(&self, work_dir: &Path, resume: bool) -> Command {
        let mut command = match &self.config {
            Some(config) => harness::train_on(config, work_dir, ITERATIONS),
            None => harness::train(work_dir, ITERATIONS),
        };
        command.args([
            "default_hooks.checkpoint.max_keep_ckpts=1",
            "default_hooks.checkpoint.save_best=mIoU",
        ]);
        command.args(resume.then_some("--resume"));
        command
    }

    /// Kills one run until it is done; each kill takes one from `left`. Returns how many there
    /// were.
    fn play(&mut self, random: &mut impl Rng, left: usize) -> usize {
        self.runs += 1;
        let work_dir = self.folder.path().join(format!("work{}", self.runs));
        if self.used {
            let used = self.folder.path().join("used");
            assert!(
                Command::new("cp")
                    .arg("-r")
                    .arg(used)
                    .arg(&work_dir)
                    .status()
                    .expect("cp starts")
                    .success()
            );
        }
        let current = work_dir.join("current_run");
        let older = std::fs::read(&current).ok();
        let (mut kills, mut saved) = (0, 0);
        loop {
            // Whoever sees that nothing has begun starts the same command again.
            let begun = std::fs::read(&current).ok() != older;
            let mut child = start(&mut self.train(&work_dir, begun));
            if kills < left {
                std::thread::sleep(self.whole.mul_f64(random.random_range(0.02..0.98)));
                child.kill().expect("it was not waited for");
            }
            let output = child.wait_with_output().expect("it ends");
            let said = text(&output.stdout);
            let place = format!(
                "used: {}, load_from: {}, run {}, kill {kills}",
                self.used,
                self.config.is_some(),
                self.runs
            );
            let everything = || format!("{place}\n{said}{}", text(&output.stderr));
            for line in said.lines() {
                if let Some(iteration) = line.split("resumed at iteration ").nth(1) {
                    let iteration: u64 = iteration
                        .split(',')
                        .next()
                        .and_then(|it| it.parse().ok())
                        .expect("a number");
                    assert!(iteration >= saved, "{saved} was said to be saved: {}", everything());
                    // It may have been killed between saving and saying so.
                    saved = iteration;
                }
                let told = line.split("saved ").nth(1).filter(|it| it.ends_with(".safetensors"));
                if let Some(iteration) = told.and_then(|it| {
                    it.rsplit("iter_").next()?.split(['.', '-']).next()?.parse().ok()
                }) {
                    saved = saved.max(iteration);
                }
            }
            assert!(
                begun || saved == 0 || std::fs::read(&current).ok() != older,
                "{}",
                everything()
            );
            if let Ok(last) = std::fs::read_to_string(work_dir.join("last_checkpoint")) {
                assert!(
                    work_dir.join(&last).is_file(),
                    "last_checkpoint names {last}, which is not there: {}",
                    everything()
                );
            }
            match output.status.code() {
                Some(0) => {
                    assert_eq!(saved, u64::from(ITERATIONS), "{}", everything());
                    assert_eq!(exact(&steps(&work_dir)), self.unbroken, "{}", everything());
                    std::fs::remove_dir_all(&work_dir).expect("removes");
                    return kills;
                }
                None => kills += 1,
                Some(code) => panic!("it ended by itself with {code}: {}", everything()),
            }
        }
    }
}

/// `SEGSLURM_CRASHES` says how often; `make crash-test` sets it to 100.
#[test]
fn a_run_killed_at_any_moment_loses_nothing_that_was_said_to_be_saved_and_has_the_losses_of_one_never_stopped()
 {
    let crashes: usize = std::env::var("SEGSLURM_CRASHES")
        .map_or(8, |it| it.parse().expect("SEGSLURM_CRASHES is a number"));
    let seed = rand::rngs::StdRng::from_os_rng().next_u64();
    println!("seed {seed}");
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().expect("a temporary folder");
    ends_in(harness::train(folder.path(), 2).arg("randomness.seed=11"), 0);
    let weights = folder.path().join("weights.pth");
    ends_in(
        harness::segslurm()
            .arg("convert")
            .arg(folder.path().join("iter_2.safetensors"))
            .arg(&weights),
        0,
    );
    let places = [(false, None), (true, None), (false, Some(&*weights)), (true, Some(&*weights))];
    let mut total = 0;
    for (index, (used, weights)) in places.into_iter().enumerate() {
        let mut scene = Scene::new(used, weights);
        let wanted = crashes * (index + 1) / places.len();
        while total < wanted {
            total += scene.play(&mut random, wanted - total);
        }
        println!(
            "{total} kills, {} runs in this place; used: {used}, load_from: {}",
            scene.runs,
            weights.is_some()
        );
    }
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
    assert!(
        matches!(output.status.code(), Some(130 | 75)),
        "{:?} {}",
        output.status,
        text(&output.stderr)
    );
}
