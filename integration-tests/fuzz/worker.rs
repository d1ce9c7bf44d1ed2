//! One child process: one target, input after input, with limits on time, memory and stack.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, setrlimit};
use nix::time::{ClockId, clock_gettime};

use crate::mutate::Mutator;
use crate::targets::{Case, Target};

/// The file that holds the input in hand.
pub(crate) const INPUT: &str = "input";
/// What one input may allocate, beside what the process holds already.
const MEMORY: u64 = 2 << 30;
/// The stack of the loader's threads, the smallest that parsers run on.
const STACK: usize = 2 << 20;
/// Processor time that one input may take.
const SLOW: Duration = Duration::from_secs(4);
/// Processor time after which it counts as a hang.
const HANG: Duration = Duration::from_secs(20);
/// Inputs that are mutated further.
const KEPT: usize = 3000;
/// Larger ones than this, and than two of the corpus, are not: long inputs take long.
const KEPT_BYTES: usize = 4 << 10;

/// How far a child came.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    pub inputs: u64,
    pub kept: u64,
}

impl Tally {
    pub(crate) fn read(text: &str) -> Self {
        let mut numbers = text.split(' ').map(|it| it.parse().unwrap_or(0));
        Self { inputs: numbers.next().unwrap_or(0), kept: numbers.next().unwrap_or(0) }
    }
}

/// A message without what varies from input to input: numbers and quoted text.
pub(crate) fn shape(message: &str) -> String {
    let mut shape = String::new();
    let mut quote = None;
    for character in message.chars() {
        match (quote, character) {
            (Some(end), it) if it == end => quote = None,
            (Some(_), _) => {}
            (None, '"' | '`' | '\'') => quote = Some(character),
            (None, it) if it.is_ascii_digit() => {}
            (None, it) => shape.push(it),
        }
    }
    shape.chars().take(160).collect()
}

thread_local! {
    /// What a panic said, and where.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn processor_time(clock: ClockId) -> Duration {
    clock_gettime(clock).map(Duration::from).unwrap_or_default()
}

/// Runs one input; an error is a finding.
fn verdict(target: &Target, case: &Case<'_>) -> Result<String, String> {
    PANIC.with_borrow_mut(|it| *it = None);
    catch_unwind(AssertUnwindSafe(|| (target.run)(case))).unwrap_or_else(|_| {
        Err(format!("panic: {}", PANIC.with_borrow_mut(Option::take).unwrap_or_default()))
    })
}

fn remember_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let said = info.payload_as_str().unwrap_or("something that is no text").replace('\n', " ");
        PANIC.with_borrow_mut(|it| *it = Some(format!("{said} at {place}")));
    }));
}

/// Searches until `seconds` are over; without any, as many inputs as the target's short round has.
pub(crate) fn run(target: &'static Target, seed: u64, seconds: f64, scratch: &Path) {
    remember_panics();
    fs::create_dir_all(scratch.join("files")).expect("a folder");
    let scratch = scratch.to_owned();
    let count = Arc::new(AtomicU64::new(0));
    let kept = Arc::new(AtomicU64::new(0));
    let (counting, keeping) = (Arc::clone(&count), Arc::clone(&kept));
    let searching = std::thread::Builder::new().stack_size(STACK).spawn(move || {
        search(target, seed, seconds, &scratch, &counting, &keeping);
    });
    let searching = searching.expect("a thread");
    let (mut last, mut since) = (0, processor_time(ClockId::CLOCK_PROCESS_CPUTIME_ID));
    while !searching.is_finished() {
        std::thread::sleep(Duration::from_millis(20));
        let now = count.load(Ordering::Relaxed);
        let time = processor_time(ClockId::CLOCK_PROCESS_CPUTIME_ID);
        if now != last {
            (last, since) = (now, time);
            println!("at {now} {}", kept.load(Ordering::Relaxed));
        } else if time.saturating_sub(since) > HANG {
            println!("found no end within {} s", HANG.as_secs());
            std::process::exit(3);
        }
    }
    println!("at {} {}", count.load(Ordering::Relaxed), kept.load(Ordering::Relaxed));
    if searching.join().is_err() {
        std::process::exit(3);
    }
}

/// Limits what this process may allocate from now on.
fn limit_memory() {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let held = status.lines().find_map(|line| {
        line.strip_prefix("VmData:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    });
    let limit = held.unwrap_or(0) * 1024 + MEMORY;
    setrlimit(Resource::RLIMIT_DATA, limit, limit).expect("a limit");
}

fn search(
    target: &Target,
    seed: u64,
    seconds: f64,
    scratch: &Path,
    count: &AtomicU64,
    kept: &AtomicU64,
) {
    let folder = scratch.join("files");
    let seeds = (target.seeds)(&folder);
    assert!(!seeds.is_empty(), "{} has no corpus", target.name);
    let path = scratch.join(INPUT);
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(&path)
        .expect("a file");
    let mut length = 0;
    let largest = seeds.iter().map(|it| 2 * it.len()).max().unwrap_or(0).max(KEPT_BYTES);
    let mut answers: HashSet<String> = HashSet::new();
    let mut mutator = Mutator::new(seed, target.form, seeds);
    let start = Instant::now();
    let mut input = Vec::new();
    for number in 0.. {
        let over = if seconds > 0.0 {
            number % 16 == 0 && start.elapsed().as_secs_f64() > seconds
        } else {
            number >= target.short
        };
        if over {
            return;
        }
        // The corpus itself comes first: what is real has to pass.
        let fresh = mutator.next(&mut input);
        if fresh && let Some(mend) = target.mend {
            mend(&mut input);
        }
        put(&file, &input, &mut length);
        let case = Case { bytes: &input, path: &path, folder: &folder };
        let before = processor_time(ClockId::CLOCK_THREAD_CPUTIME_ID);
        let verdict = verdict(target, &case);
        let time = processor_time(ClockId::CLOCK_THREAD_CPUTIME_ID).saturating_sub(before);
        count.store(number + 1, Ordering::Relaxed);
        let end = match verdict {
            Err(end) => Some(end.replace('\n', "\\n")),
            Ok(_) if time > SLOW => {
                Some(format!("it takes {:.1} s of processor time", time.as_secs_f64()))
            }
            Ok(answer) => {
                if input.len() <= largest && answers.len() < KEPT && answers.insert(shape(&answer))
                {
                    mutator.keep(&input);
                    kept.fetch_add(1, Ordering::Relaxed);
                }
                None
            }
        };
        if let Some(end) = end {
            let mut out = std::io::stdout();
            let _ =
                writeln!(out, "at {} {}\nfound {end}", number + 1, kept.load(Ordering::Relaxed));
            let _ = out.flush();
            std::process::exit(3);
        }
        // What is needed once, such as libtorch's first tensor, is there now.
        if number == 0 {
            limit_memory();
        }
    }
}

fn put(file: &File, input: &[u8], length: &mut usize) {
    file.write_all_at(input, 0).expect("writes");
    if input.len() != *length {
        *length = input.len();
        file.set_len(*length as u64).expect("cuts");
    }
}

/// One input again, in this process, as it is.
pub(crate) fn replay(target: &Target, file: &Path) -> ExitCode {
    let folder = tempfile::tempdir().expect("a temporary folder");
    (target.seeds)(folder.path());
    let bytes = fs::read(file).expect("the input");
    let case = Case { bytes: &bytes, path: file, folder: folder.path() };
    match (target.run)(&case) {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(finding) => {
            println!("found {finding}");
            ExitCode::FAILURE
        }
    }
}
