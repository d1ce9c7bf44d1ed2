//! The clock, the peak, and the one line of JSON that a case prints.

use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};
use serde_json::{Map, Value, json};

/// Seconds on a core that this process has used, all its threads together.
pub(crate) fn cpu_seconds() -> anyhow::Result<f64> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.num_nanoseconds() as f64 / 1e9)
}

/// How long each of `n` runs takes, after two that are not counted.
pub(crate) fn timed(
    n: usize,
    mut action: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Vec<f64>> {
    (0..2).try_for_each(|_| action())?;
    let one = |_| {
        let start = Instant::now();
        action()?;
        Ok(start.elapsed().as_secs_f64())
    };
    (0..n).map(one).collect()
}

/// Prints `values` with what is known of every process: its peak memory and its seconds on a core.
pub(crate) fn print(values: Value) -> anyhow::Result<()> {
    let mut line = Map::new();
    if let Value::Object(values) = values {
        line.extend(values);
    }
    line.insert("peak_bytes".into(), json!(getrusage(UsageWho::RUSAGE_SELF)?.max_rss() * 1024));
    line.insert("cpu_seconds".into(), json!(cpu_seconds()?));
    println!("{}", Value::Object(line));
    Ok(())
}
