//! Where log lines go: rank 0's to the terminal, every rank's to its own file, in mmengine's
//! format.
//!
//! A progress bar and log lines share one terminal, so lines are printed through the bar's owner,
//! which lifts the bar first.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use indicatif::MultiProgress;
use serde::Deserialize;
use serde::de::{self, Deserializer, Unexpected, Visitor};
use time::macros::format_description;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::exit::{Exit, Failure};
use crate::rundir;

/// `log_level`: from which level on lines are logged. Python's names, as configs of mmengine have
/// them, its numbers, and `tracing`'s names, in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLevel(LevelFilter);

/// Names and what they mean here: there is nothing more severe than an error.
const LEVELS: [(&str, LevelFilter); 9] = [
    ("NOTSET", LevelFilter::TRACE),
    ("TRACE", LevelFilter::TRACE),
    ("DEBUG", LevelFilter::DEBUG),
    ("INFO", LevelFilter::INFO),
    ("WARNING", LevelFilter::WARN),
    ("WARN", LevelFilter::WARN),
    ("ERROR", LevelFilter::ERROR),
    ("CRITICAL", LevelFilter::ERROR),
    ("FATAL", LevelFilter::ERROR),
];
const NAMES: [&str; 9] =
    ["NOTSET", "TRACE", "DEBUG", "INFO", "WARNING", "WARN", "ERROR", "CRITICAL", "FATAL"];

impl LogLevel {
    fn named(name: &str) -> Option<Self> {
        LEVELS
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name.trim()))
            .map(|(_, level)| Self(*level))
    }

    /// The level behind one of Python's numbers.
    fn numbered(number: i64) -> Option<Self> {
        let name = match number {
            0 => "NOTSET",
            10 => "DEBUG",
            20 => "INFO",
            30 => "WARNING",
            40 => "ERROR",
            50 => "CRITICAL",
            _ => return None,
        };
        Self::named(name)
    }
}

impl Default for LogLevel {
    fn default() -> Self {
        Self(LevelFilter::INFO)
    }
}

impl<'de> Deserialize<'de> for LogLevel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Level;
        impl Visitor<'_> for Level {
            type Value = LogLevel;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "one of {}", NAMES.join(", "))
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<LogLevel, E> {
                LogLevel::named(name).ok_or_else(|| E::unknown_variant(name, &NAMES))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<LogLevel, E> {
                LogLevel::numbered(number)
                    .ok_or_else(|| E::invalid_type(Unexpected::Signed(number), &self))
            }

            fn visit_unit<E: de::Error>(self) -> Result<LogLevel, E> {
                Ok(LogLevel::default())
            }
        }
        deserializer.deserialize_any(Level)
    }
}

/// What `SEGSLURM_LOG` asks for: a level, or levels of parts of the program,
/// `info,segslurm::data=debug`. Whoever misspells a level would name a part that does not exist,
/// and see nothing.
fn filter(text: &str) -> Result<EnvFilter, Failure> {
    let refuse = |why: &str| {
        Failure::new(
            Exit::Usage,
            format!(
                "SEGSLURM_LOG is `{text}`, {why}; write a level ({}), or levels of parts, such as \
                 `info,segslurm::data=debug`",
                NAMES.join(", ")
            ),
        )
    };
    let mut directives = Vec::new();
    for part in text.split(',').map(str::trim) {
        let plain = !part.contains(['=', '[', '/']);
        match LogLevel::named(part) {
            Some(LogLevel(level)) => directives.push(level.to_string()),
            None if plain && !part.starts_with("segslurm") => {
                return Err(refuse(&format!("and `{part}` is no level")));
            }
            None => directives.push(part.to_owned()),
        }
    }
    EnvFilter::try_new(directives.join(","))
        .map_err(|error| refuse(&format!("which is no filter ({error})")))
}

/// The terminal of this process and the log file that may be opened later, once the work dir is
/// known.
#[derive(Debug, Clone)]
pub(crate) struct Console {
    progress: MultiProgress,
    file: Arc<Mutex<Option<File>>>,
    speaks: bool,
}

impl Console {
    /// Starts logging. `speaks` is whether this process writes to the terminal (rank 0 does);
    /// `level` is the config's `log_level`, which `asked` (`SEGSLURM_LOG`) overrides where it says
    /// anything.
    pub(crate) fn start(
        level: LogLevel,
        asked: Option<&str>,
        speaks: bool,
    ) -> Result<Self, Failure> {
        let console = Self { progress: MultiProgress::new(), file: Arc::default(), speaks };
        let filter = match asked.filter(|it| !it.trim().is_empty()) {
            Some(asked) => filter(asked)?,
            None => EnvFilter::new(level.0.to_string()),
        };
        let layer =
            tracing_subscriber::fmt::layer().event_format(Line).with_writer(console.clone());
        // A second start in one process (tests) keeps the first.
        let _ = tracing_subscriber::registry().with(filter).with(layer).try_init();
        Ok(console)
    }

    /// Log lines go into this file too, from now on.
    pub(crate) fn also_to(&self, path: &Path) -> Result<(), Failure> {
        let open = File::options().create(true).append(true).open(path);
        let file = open.map_err(|error| {
            Failure::new(
                Exit::CannotWrite,
                format!("cannot write the log file {}: {error}", path.display()),
            )
        })?;
        if let Ok(mut place) = self.file.lock() {
            *place = Some(file);
        }
        Ok(())
    }

    /// Writes the error that ends this process into the log file; the terminal gets it from whoever
    /// ends the process.
    pub(crate) fn keep(&self, failure: &Failure) {
        let line =
            line_start("ERROR").map(|start| format!("{start}{failure}\n")).unwrap_or_default();
        if let Ok(mut file) = self.file.lock()
            && let Some(file) = file.as_mut()
        {
            let _ = file.write_all(line.as_bytes());
        }
    }

    /// Where progress bars are drawn, and `None` where nobody would see them.
    pub(crate) fn bars(&self) -> Option<&MultiProgress> {
        (self.speaks && io::stderr().is_terminal()).then_some(&self.progress)
    }
}

/// One log line on its way out: collected, then written in one piece.
#[derive(Debug)]
pub(crate) struct Outgoing {
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
    let time =
        rundir::now().format(format_description!("[year]/[month]/[day] [hour]:[minute]:[second]"));
    Ok(format!("{} - segslurm - {level} - ", time.map_err(|_| fmt::Error)?))
}

/// `2026/01/31 23:59:59 - segslurm - INFO - message`, as mmengine's logger prints.
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_str;

    #[derive(Debug, Deserialize)]
    struct Section {
        #[serde(default)]
        log_level: LogLevel,
    }

    fn level(text: &str) -> LevelFilter {
        parse_str::<Section>(text).expect("a level").log_level.0
    }

    #[test]
    fn a_level_has_pythons_names_and_numbers_and_ours_in_any_case() {
        for (name, expected) in LEVELS {
            assert_eq!(level(&format!("log_level: {name}")), expected);
            assert_eq!(level(&format!("log_level: {}", name.to_lowercase())), expected);
        }
        assert_eq!(level("log_level: 30"), LevelFilter::WARN);
        assert_eq!(level("{}"), LevelFilter::INFO);
        let error = parse_str::<Section>("log_level: WARNNING").expect_err("no level").to_string();
        assert!(
            error.contains("log_level")
                && error.contains("`WARNING`")
                && error.contains("CRITICAL"),
            "{error}"
        );
        let error = parse_str::<Section>("log_level: 25").expect_err("no level").to_string();
        assert!(error.contains("log_level") && error.contains("25"), "{error}");
    }

    #[test]
    fn a_filter_is_a_level_or_levels_of_parts_and_nothing_else() {
        for text in
            ["WARNING", "debug", "info,segslurm::data=debug", "error,segslurm=trace", "segslurm"]
        {
            assert!(filter(text).is_ok(), "{text}");
        }
        for text in ["WARNNING", "info,debgu", "segslurm=loud", "segslurm[", ",,"] {
            let error = filter(text).expect_err(text);
            assert!(
                error.exit == Exit::Usage && error.message.starts_with("SEGSLURM_LOG is"),
                "{}",
                error.message
            );
        }
    }
}
