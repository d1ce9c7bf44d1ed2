//! Where log lines go: rank 0's to the terminal, every rank's to its own file, in mmengine's format.
//!
//! A progress bar and log lines share one terminal, so lines are printed through the bar's owner, which lifts the bar first.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use indicatif::MultiProgress;
use time::macros::format_description;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::exit::{Exit, Failure};
use crate::rundir;

/// The terminal of this process and the log file that may be opened later, once the work dir is known.
#[derive(Debug, Clone)]
pub struct Console {
    progress: MultiProgress,
    file: Arc<Mutex<Option<File>>>,
    speaks: bool,
}

impl Console {
    /// Starts logging. `speaks` is whether this process writes to the terminal (rank 0 does); `level` is the config's
    /// `log_level`, which `SEGSLURM_LOG` (a `tracing` filter such as `debug`) overrides.
    pub fn start(level: &str, filter: Option<&str>, speaks: bool) -> Self {
        let console = Self { progress: MultiProgress::new(), file: Arc::default(), speaks };
        let asked = filter.unwrap_or(level);
        let (filter, problem) = match EnvFilter::try_new(asked) {
            Ok(valid) => (valid, None),
            Err(error) => (EnvFilter::new("info"), Some(error)),
        };
        let layer = tracing_subscriber::fmt::layer().event_format(Line).with_writer(console.clone());
        // A second start in one process (tests) keeps the first.
        let _ = tracing_subscriber::registry().with(filter).with(layer).try_init();
        if let Some(problem) = problem {
            tracing::warn!("the log filter {asked:?} (SEGSLURM_LOG, else log_level) is not one ({problem}); logging at info");
        }
        console
    }

    /// Log lines go into this file too, from now on.
    pub fn also_to(&self, path: &Path) -> Result<(), Failure> {
        let open = File::options().create(true).append(true).open(path);
        let file = open
            .map_err(|error| Failure::new(Exit::CannotWrite, format!("cannot write the log file {}: {error}", path.display())))?;
        if let Ok(mut place) = self.file.lock() {
            *place = Some(file);
        }
        Ok(())
    }

    /// Writes the error that ends this process into the log file; the terminal gets it from whoever ends the process.
    pub fn keep(&self, error: &anyhow::Error) {
        let line = line_start("ERROR").map(|start| format!("{start}{error:#}\n")).unwrap_or_default();
        if let Ok(mut file) = self.file.lock()
            && let Some(file) = file.as_mut()
        {
            let _ = file.write_all(line.as_bytes());
        }
    }

    /// Where progress bars are drawn, and `None` where nobody would see them.
    pub fn bars(&self) -> Option<&MultiProgress> {
        (self.speaks && io::stderr().is_terminal()).then_some(&self.progress)
    }
}

/// One log line on its way out: collected, then written in one piece.
#[derive(Debug)]
pub struct Outgoing {
    console: Console,
    line: Vec<u8>,
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if let Ok(mut file) = self.console.file.lock()
            && let Some(file) = file.as_mut()
        {
            let _ = file.write_all(&self.line);
        }
        if self.console.speaks {
            self.console.progress.suspend(|| {
                let _ = io::stdout().write_all(&self.line);
            });
        }
    }
}

impl<'a> MakeWriter<'a> for Console {
    type Writer = Outgoing;

    fn make_writer(&'a self) -> Outgoing {
        Outgoing { console: self.clone(), line: Vec::new() }
    }
}

/// What stands before every message.
fn line_start(level: &str) -> Result<String, fmt::Error> {
    let time = rundir::now().format(format_description!("[year]/[month]/[day] [hour]:[minute]:[second]"));
    Ok(format!("{} - segslurm - {level} - ", time.map_err(|_| fmt::Error)?))
}

/// `2026/01/31 23:59:59 - segslurm - INFO - message`, as mmengine's logger prints.
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let level = match *event.metadata().level() {
            Level::ERROR => "ERROR",
            Level::WARN => "WARNING",
            Level::INFO => "INFO",
            Level::DEBUG | Level::TRACE => "DEBUG",
        };
        out.write_str(&line_start(level)?)?;
        context.format_fields(out.by_ref(), event)?;
        writeln!(out)
    }
}
