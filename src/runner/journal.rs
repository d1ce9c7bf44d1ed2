//! What a run tells: log lines and scalars as mmengine writes them, and a progress bar where a
//! person watches.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value};

use super::evaluate::Watch;
use super::progress::TrainPlan;
use crate::exit::{Exit, Failure};
use crate::experiment::{LogProcessor, LoggerHook};
use crate::logging::Console;
use crate::metrics::{Metrics, Sink, Window};

/// The numbers of one finished step.
#[derive(Debug, Clone)]
pub(super) struct StepFigures {
    /// The learning rate that the optimizer was configured with, scheduled.
    pub base_lr: f64,
    /// The learning rate of the first parameter group.
    pub lr: f64,
    /// `loss` first, then each part under mmseg's name.
    pub losses: Vec<(String, f64)>,
    /// The whole step.
    pub time: Duration,
    /// The part of it that waited for data.
    pub data_time: Duration,
    /// `None` for one rank.
    pub communication: Option<Communication>,
}

/// A step's exchange with other ranks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Communication {
    /// How long this rank stood still for it.
    pub waited: Duration,
    /// What this rank gave to collectives.
    pub bytes: u64,
}

/// Writes for one run. Ranks other than 0 have a silent one.
pub(super) struct Journal {
    plan: TrainPlan,
    logger: LoggerHook,
    sink: Option<Sink>,
    window: Window,
    bar: Option<ProgressBar>,
    console: Console,
    started: Instant,
    started_at: u64,
    /// Steps since the last log line, and those among them whose loss was 0.
    steps: u64,
    idle: u64,
}

impl Journal {
    /// `sink` is `None` on ranks that write no scalars; `iteration` is where this start of the run
    /// begins.
    pub(super) fn new(
        plan: TrainPlan,
        logger: LoggerHook,
        processor: &LogProcessor,
        sink: Option<Sink>,
        console: Console,
        iteration: u64,
    ) -> Self {
        let bar = console.bars().map(|bars| {
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = bars.add(
                ProgressBar::new(plan.max_iterations).with_style(style).with_position(iteration),
            );
            bar.enable_steady_tick(Duration::from_millis(500));
            bar
        });
        let window = Window::new(processor.window_size);
        Self {
            plan,
            logger,
            sink,
            window,
            bar,
            console,
            started: Instant::now(),
            started_at: iteration,
            steps: 0,
            idle: 0,
        }
    }

    /// The smoothing state, for a checkpoint.
    pub(super) fn window(&self) -> &Window {
        &self.window
    }

    /// Goes on with the smoothing state of a checkpoint.
    pub(super) fn restore(&mut self, window: Window) {
        self.window = window;
    }

    /// Takes in a finished step, and logs when its time has come. `iteration` counts finished
    /// steps.
    pub(super) fn step(&mut self, iteration: u64, step: &StepFigures) -> Result<(), Failure> {
        self.window.push("data_time", step.data_time.as_secs_f64());
        for (name, value) in &step.losses {
            self.window.push(name, *value);
        }
        if let Some(Communication { waited, bytes }) = step.communication {
            self.window.push("comm_time", waited.as_secs_f64());
            self.window.push("comm_mb", bytes as f64 / 1e6);
        }
        self.window.push("time", step.time.as_secs_f64());
        self.steps += 1;
        self.idle +=
            u64::from(step.losses.iter().any(|(name, value)| name == "loss" && *value == 0.0));
        if let Some(bar) = &self.bar {
            bar.set_position(iteration);
            bar.set_message(format!(
                "loss {:.4}  eta {}",
                self.mean("loss"),
                duration(self.eta(iteration))
            ));
        }
        if !self.log_due(iteration) {
            return Ok(());
        }
        self.log(iteration, step)?;
        let (steps, idle) = (std::mem::take(&mut self.steps), std::mem::take(&mut self.idle));
        if idle == steps {
            tracing::warn!(
                "the loss was exactly 0 in all {steps} steps up to iteration {iteration}: no pixel \
                 counted, so nothing is learned; are all labels ignore_index? (what the label maps \
                 hold was told at the start)"
            );
        }
        Ok(())
    }

    /// Whether the numbers of this iteration are logged.
    pub(super) fn log_due(&self, iteration: u64) -> bool {
        let interval = self.logger.interval.max(1);
        if self.plan.by_epoch {
            let within = (iteration - 1) % self.plan.epoch_length + 1;
            return within.is_multiple_of(interval)
                || (within == self.plan.epoch_length && !self.logger.ignore_last);
        }
        iteration.is_multiple_of(interval)
    }

    fn mean(&self, name: &str) -> f64 {
        self.window.mean(name).unwrap_or(f64::NAN)
    }

    /// Time to the end at this start's mean pace.
    fn eta(&self, iteration: u64) -> Duration {
        let done = (iteration - self.started_at).max(1);
        self.started.elapsed() * self.plan.max_iterations.saturating_sub(iteration) as u32
            / done as u32
    }

    fn log(&mut self, iteration: u64, step: &StepFigures) -> Result<(), Failure> {
        let memory = memory_in_use();
        let times: Vec<_> = ["time", "data_time", "comm_time", "comm_mb"]
            .into_iter()
            .filter(|name| self.window.mean(name).is_some())
            .collect();
        let losses: Vec<_> = self
            .window
            .names()
            .filter(|name| !times.contains(name))
            .map(ToOwned::to_owned)
            .collect();

        let mut parts = vec![
            format!("base_lr: {:.4e}", Python(step.base_lr)),
            format!("lr: {:.4e}", Python(step.lr)),
        ];
        parts.push(format!("eta: {}", duration(self.eta(iteration))));
        parts.extend(times.iter().map(|name| format!("{name}: {:.4}", self.mean(name))));
        parts.push(format!("memory: {memory}"));
        parts.extend(losses.iter().map(|name| format!("{name}: {:.4}", self.mean(name))));
        let place = if self.plan.by_epoch {
            let (epoch, within) = (
                (iteration - 1) / self.plan.epoch_length + 1,
                (iteration - 1) % self.plan.epoch_length + 1,
            );
            format!(
                "Epoch(train) [{epoch}][{within:>width$}/{}]",
                self.plan.epoch_length,
                width = digits(self.plan.epoch_length)
            )
        } else {
            format!(
                "Iter(train) [{iteration:>width$}/{}]",
                self.plan.max_iterations,
                width = digits(self.plan.max_iterations)
            )
        };
        tracing::info!("{place}  {}", parts.join("  "));

        let mut scalars = Map::new();
        scalars.insert("base_lr".into(), number(step.base_lr));
        scalars.insert("lr".into(), number(step.lr));
        for name in self.window.names() {
            scalars.insert(name.to_owned(), number(self.mean(name)));
        }
        if self.plan.by_epoch {
            scalars.insert("epoch".into(), ((iteration - 1) / self.plan.epoch_length + 1).into());
        }
        scalars.insert("iter".into(), iteration.into());
        scalars.insert("memory".into(), memory.into());
        scalars.insert("step".into(), iteration.into());
        self.write(&scalars, iteration)
    }

    fn write(&mut self, scalars: &Map<String, Value>, step: u64) -> Result<(), Failure> {
        let Some(sink) = &mut self.sink else { return Ok(()) };
        sink.write(scalars, step).map_err(|error| {
            Failure::new(Exit::CannotWrite, format!("cannot write the run's scalars: {error}"))
        })
    }

    /// Logs a validation's result.
    pub(super) fn validation(
        &mut self,
        iteration: u64,
        metrics: &Metrics,
        images: usize,
        timing: &Timing,
    ) -> Result<(), Failure> {
        let step = if self.plan.by_epoch && self.logger.log_metric_by_epoch {
            self.plan.epoch(iteration)
        } else {
            iteration
        };
        let place = if self.plan.by_epoch {
            format!("Epoch(val) [{}][{images}/{images}]", self.plan.epoch(iteration))
        } else {
            format!("Iter(val) [{images}/{images}]")
        };
        report("val", &place, metrics, timing);
        let mut scalars: Map<_, _> =
            metrics.summary.iter().map(|(name, value)| (name.clone(), number(*value))).collect();
        scalars.insert("data_time".into(), number(timing.data_time));
        scalars.insert("time".into(), number(timing.time));
        scalars.insert("step".into(), step.into());
        self.write(&scalars, step)
    }

    /// What watches a validation over `images` images: a bar below the training's, and log lines.
    pub(super) fn watch(&self, iteration: u64, images: usize) -> Watch {
        let epoch = self.plan.epoch(iteration);
        let place = if self.plan.by_epoch {
            format!("Epoch(val) [{epoch}]")
        } else {
            "Iter(val) ".to_owned()
        };
        Watch {
            bar: evaluation_bar(&self.console, images),
            log: Some((self.logger.interval, place)),
            iteration: Some(iteration),
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A progress bar for a pass over `images` images, where a person watches.
pub(super) fn evaluation_bar(console: &Console, images: usize) -> Option<ProgressBar> {
    let style =
        ProgressStyle::with_template("{bar:30} {pos}/{len} images  {per_sec}  eta {eta}").ok()?;
    console.bars().map(|bars| bars.add(ProgressBar::new(images as u64).with_style(style)))
}

/// Mean seconds an image.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Timing {
    pub time: f64,
    pub data_time: f64,
}

/// Logs a table and a summary line, as users of mmseg know them.
pub(super) fn report(mode: &str, place: &str, metrics: &Metrics, timing: &Timing) {
    tracing::info!("per class results ({mode}):\n{}", metrics.table());
    if let Some(absent) = metrics.absent() {
        tracing::warn!("{mode}: {absent}");
    }
    tracing::info!(
        "{place}    {}  data_time: {:.4}  time: {:.4}",
        metrics.line(),
        timing.data_time,
        timing.time
    );
}

fn number(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or(Value::Null, Value::Number)
}

fn digits(number: u64) -> usize {
    number.to_string().len()
}

/// `1 day, 2:03:04`, as Python prints a time span.
pub(super) fn duration(span: Duration) -> String {
    let seconds = span.as_secs();
    let clock =
        format!("{}:{:02}:{:02}", seconds % 86_400 / 3600, seconds % 3600 / 60, seconds % 60);
    match seconds / 86_400 {
        0 => clock,
        1 => format!("1 day, {clock}"),
        days => format!("{days} days, {clock}"),
    }
}

/// A float whose `{:.4e}` has two digits and a sign in the exponent, as Python's (`1.0000e-02`).
struct Python(f64);

impl std::fmt::LowerExp for Python {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{:.*e}", formatter.precision().unwrap_or(6), self.0);
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) =
            exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
        write!(formatter, "{mantissa}e{sign}{digits:0>2}")
    }
}

/// Peak resident memory of this process, in MB; mmengine logs the device's, which a CPU run does
/// not have.
fn memory_in_use() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let fields: HashMap<_, _> = status.lines().filter_map(|line| line.split_once(':')).collect();
    let kilobytes = fields
        .get("VmHWM")
        .and_then(|value| value.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or(0) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_spans_look_like_pythons() {
        assert_eq!(format!("{:.4e}", Python(0.01)), "1.0000e-02");
        assert_eq!(format!("{:.4e}", Python(123.456)), "1.2346e+02");
        assert_eq!(duration(Duration::from_secs(3 * 3600 + 62)), "3:01:02");
        assert_eq!(duration(Duration::from_secs(86_400 + 5)), "1 day, 0:00:05");
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(memory_in_use() > 0);
    }
}
