//! A job in the foreground: srun with its output as it comes, Ctrl-C passed on in steps, and the
//! job's exit code.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::exit::{Exit, Failure};
use crate::slurm::client;
use crate::terminal;

/// How often srun is looked at.
const POLL: Duration = Duration::from_millis(10);

/// What srun is to run.
#[derive(Debug, Clone)]
pub(crate) struct Foreground {
    /// `srun` and its arguments.
    pub line: Vec<String>,
    /// Variables that the ranks get.
    pub exports: Vec<(String, String)>,
    /// Whether the ranks save when they are asked to stop.
    pub saves: bool,
}

impl Foreground {
    /// Runs the job to its end. The first Ctrl-C (or SIGTERM, SIGHUP, SIGUSR1) asks the ranks to
    /// save and stop, or takes a job that waits out of the queue; the second cancels the job.
    pub(crate) fn execute(&self) -> Result<Exit, Failure> {
        let fault = |error: std::io::Error| {
            Failure::new(Exit::Software, format!("cannot run srun: {error}"))
        };
        // Caught before srun is there: a signal that comes in between is passed on as well.
        let mut signals =
            Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1]).map_err(fault)?;
        let (program, arguments) = self
            .line
            .split_first()
            .map_or(("srun", &[][..]), |(first, rest)| (first.as_str(), rest));
        let mut command = client::command(program);
        command.args(arguments).envs(self.exports.iter().map(|(name, value)| (name, value)));
        // A group of its own: the terminal's Ctrl-C reaches srun through here alone.
        command.stdin(Stdio::null()).process_group(0);
        let mut srun = command.spawn().map_err(fault)?;
        let mut asked = 0;
        let status = loop {
            for signal in signals.pending() {
                asked = if signal == SIGQUIT { asked.max(1) + 1 } else { asked + 1 };
                // srun passes SIGUSR1 on to every rank, and ends the job on SIGTERM.
                let (pass, what) = match (asked, self.saves) {
                    (1, true) => (
                        Signal::SIGUSR1,
                        "the job was asked to save and stop; once more cancels it",
                    ),
                    (1, false) | (2, _) => (Signal::SIGTERM, "cancelling the job"),
                    _ => (Signal::SIGKILL, "leaving srun; `scancel --me` ends a job that is left"),
                };
                terminal::note(format!("segslurm: {what}"));
                // Not reaped yet, hence still its own process id.
                let _ = kill(Pid::from_raw(srun.id().cast_signed()), pass);
            }
            if let Some(status) = srun.try_wait().map_err(fault)? {
                break status;
            }
            std::thread::sleep(POLL);
        };
        let cancelled = asked > 1 || (asked == 1 && !self.saves);
        match status.code() {
            Some(0) => Ok(Exit::Done),
            _ if cancelled => Err(Failure::new(Exit::Killed, "the job was cancelled")),
            Some(code) if code == i32::from(Exit::Interrupted.code()) => {
                let named = self.line.iter().any(|it| it.starts_with("load_from="));
                let but = if named { " and without load_from" } else { "" };
                terminal::note(format!(
                    "segslurm: stopped, everything is saved; the same command with --resume{but} \
                     goes on"
                ));
                Ok(Exit::Interrupted)
            }
            Some(code) => {
                let exit = u8::try_from(code).map_or(Exit::Software, Exit::Job);
                let stopped = if asked > 0 {
                    "stopped before it could save"
                } else {
                    "failed: what it said is above"
                };
                Err(Failure::new(
                    exit,
                    format!("the job ended with exit code {code}; it {stopped}"),
                ))
            }
            None => {
                let signal = status.signal().unwrap_or(0);
                let exit = u8::try_from(128 + signal).map_or(Exit::Software, Exit::Job);
                Err(Failure::new(exit, format!("srun was ended by signal {signal}")))
            }
        }
    }
}
