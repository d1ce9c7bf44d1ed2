//! `make fuzz`: every parser under long mutated input. Nothing that a file, a variable, a program
//! or another process says may end in a panic, a hang, an overflowing stack or memory without
//! bound, and no error may be more than one plain line.
//!
//! Inputs are mutations of real ones ([`corpus`], [`mutate`]). An input that is answered in a new
//! way joins those that are mutated further, so the search goes where it has not been. The work is
//! done in a child process with limits ([`worker`]): whatever kills it is a finding, the input is
//! kept, and the next child goes on.
//!
//! In `cargo test` a short round with a fixed seed runs. Longer ones: `cargo test --test fuzz --
//! --minutes 10`.

#![allow(clippy::disallowed_methods, reason = "it looks at the program from outside")]

mod corpus;
mod mutate;
mod targets;
mod worker;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;

use targets::{TARGETS, Target};
use worker::Tally;

/// How many findings of one target are looked at before its turn ends.
const ENOUGH: usize = 20;

#[derive(Parser)]
#[command(about = "Every parser under mutated input")]
struct Args {
    /// How long, in all; the targets share it. Without it the short round runs.
    #[arg(long)]
    minutes: Option<f64>,
    /// Only targets whose names contain this.
    #[arg(long)]
    target: Option<String>,
    /// Another seed, another search.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs one target on one file, without limits, and shows what it says.
    #[arg(long, num_args = 2, value_names = ["TARGET", "FILE"])]
    replay: Option<Vec<String>>,
    /// Where inputs are kept that ended badly.
    #[arg(long, default_value = concat!(env!("CARGO_TARGET_TMPDIR"), "/fuzz"))]
    findings: PathBuf,
    /// A round in this process, by name of its target: what this program starts itself with.
    #[arg(long, hide = true)]
    worker: Option<String>,
    #[arg(long, hide = true, default_value_t = 0.0)]
    seconds: f64,
    #[arg(long, hide = true)]
    scratch: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Ok(args) = Args::try_parse() else {
        // `cargo test NAME` and its flags are meant for other tests, unless they ask for help with
        // this one.
        let asked: Vec<String> = std::env::args().collect();
        return if asked
            .iter()
            .any(|it| it.starts_with("--minutes") || it == "--help" || it == "--replay")
        {
            Args::parse();
            ExitCode::FAILURE
        } else {
            println!("fuzz: left out, since these arguments choose other tests");
            ExitCode::SUCCESS
        };
    };
    if let Some(replay) = &args.replay {
        return worker::replay(named(&replay[0]), Path::new(&replay[1]));
    }
    if let Some(name) = &args.worker {
        worker::run(
            named(name),
            args.seed,
            args.seconds,
            args.scratch.as_deref().expect("--scratch stands beside --worker"),
        );
        return ExitCode::SUCCESS;
    }
    let chosen: Vec<&Target> = TARGETS
        .iter()
        .filter(|it| args.target.as_ref().is_none_or(|part| it.name.contains(part.as_str())))
        .collect();
    assert!(!chosen.is_empty(), "no target's name contains {:?}", args.target);
    let each = args.minutes.map(|minutes| minutes * 60.0 / chosen.len() as f64);
    let mut table = Vec::new();
    for target in chosen {
        table.push((target.name, round(target, &args, each)));
    }
    report(&table)
}

fn named(name: &str) -> &'static Target {
    TARGETS
        .iter()
        .find(|it| it.name == name)
        .unwrap_or_else(|| panic!("there is no target {name:?}"))
}

/// What became of one target.
#[derive(Default)]
struct Round {
    inputs: u64,
    seconds: f64,
    kept: u64,
    findings: usize,
}

/// Child after child, until the time is over or the short round is done.
fn round(target: &Target, args: &Args, seconds: Option<f64>) -> Round {
    let memory = Path::new("/dev/shm");
    let scratch = tempfile::tempdir_in(if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    });
    let scratch = scratch.expect("a temporary folder");
    let start = Instant::now();
    let mut round = Round::default();
    let mut seen: Vec<String> = Vec::new();
    for attempt in 0.. {
        let left = seconds.map_or(0.0, |all| all - start.elapsed().as_secs_f64());
        if seconds.is_some() && left < 0.2 || seen.len() >= ENOUGH {
            break;
        }
        let seed = args.seed + attempt * 1_000_003;
        let (tally, end) = child(target, seed, left, scratch.path());
        round.inputs += tally.inputs;
        round.kept += tally.kept;
        let Some(end) = end else { break };
        let kind = worker::shape(&end);
        if !seen.contains(&kind) {
            seen.push(kind);
            round.findings += 1;
            keep(target, args, seed, &scratch.path().join(worker::INPUT), &end);
        }
        if seconds.is_none() {
            break;
        }
    }
    round.seconds = start.elapsed().as_secs_f64();
    round
}

/// One child: how far it came, and how it ended if that was not well.
fn child(target: &Target, seed: u64, seconds: f64, scratch: &Path) -> (Tally, Option<String>) {
    let program = std::env::current_exe().expect("this very program");
    let mut child = Command::new(program)
        .args([
            "--worker",
            target.name,
            "--seed",
            &seed.to_string(),
            "--seconds",
            &seconds.to_string(),
            "--scratch",
        ])
        .arg(scratch)
        .env("OMP_NUM_THREADS", "1")
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts itself");
    let errors = BufReader::new(child.stderr.take().expect("its errors"));
    let errors =
        std::thread::spawn(move || errors.lines().map_while(Result::ok).collect::<Vec<_>>());
    let mut tally = Tally::default();
    let mut end = None;
    for line in
        BufReader::new(child.stdout.take().expect("its output")).lines().map_while(Result::ok)
    {
        match line.split_once(' ') {
            Some(("at", rest)) => tally = Tally::read(rest),
            Some(("found", rest)) => end = Some(rest.to_owned()),
            _ => {}
        }
    }
    let status = child.wait().expect("ends");
    let errors = errors.join().expect("its errors are read");
    if !status.success() && end.is_none() {
        let said = errors.iter().rfind(|it| !it.trim().is_empty()).cloned().unwrap_or_default();
        let overflow = errors
            .iter()
            .find(|it| it.contains("overflowed its stack") || it.contains("memory allocation"));
        end = Some(format!("{status}: {}", overflow.cloned().unwrap_or(said)));
    }
    (tally, end)
}

/// Puts the input where it stays, and says how to run it again.
fn keep(target: &Target, args: &Args, seed: u64, input: &Path, end: &str) {
    fs::create_dir_all(&args.findings).expect("a folder for findings");
    let place = args.findings.join(format!("{}-{seed}.input", target.name));
    fs::copy(input, &place).expect("the input is copied");
    println!(
        "{}: {end}\n  cargo test --test fuzz -- --replay {} {}",
        target.name,
        target.name,
        place.display()
    );
}

fn report(table: &[(&str, Round)]) -> ExitCode {
    println!("{:<18} {:>10} {:>9} {:>6} {:>8}", "target", "inputs", "a second", "kept", "findings");
    for (name, round) in table {
        let speed =
            round.inputs as f64 / Duration::from_secs_f64(round.seconds.max(1e-3)).as_secs_f64();
        println!(
            "{name:<18} {:>10} {speed:>9.0} {:>6} {:>8}",
            round.inputs, round.kept, round.findings
        );
    }
    let (inputs, findings) =
        table.iter().fold((0, 0), |sum, (_, it)| (sum.0 + it.inputs, sum.1 + it.findings));
    println!("{inputs} inputs, {findings} findings");
    if findings == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
