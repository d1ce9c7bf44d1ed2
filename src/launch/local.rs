//! The ranks of this machine: started, watched, and ended together.
//!
//! Rank 0 of the machine prints here; the others print into files. The first rank that fails
//! decides: what it said is shown, the others get a moment to end by themselves (they hear of it
//! from each other) and are killed after that. Signals are passed on. Each rank lives in a process
//! group of its own, so that a Ctrl-C reaches it once, through here; and it is tethered to this
//! process ([`crate::dist::tether`]): not even `kill -9` of the launcher leaves a rank behind.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::dist::{self, Handoff, handoff};
use crate::exit::{Exit, Failure};
use crate::port::Port;
use crate::rundir::claim;
use crate::runner::ignores_hangups;
use crate::terminal;

/// How often the ranks are looked at.
const POLL: Duration = Duration::from_millis(10);
/// How long ranks may take to end after the first failure. Their own watch over each other needs up
/// to 4 seconds.
const GRACE: Duration = Duration::from_secs(6);
/// Lines of a failed rank's output that are shown.
const LOG_TAIL: usize = 30;

/// Several processes of one program, on this machine and perhaps on others that are started alike.
#[derive(Debug, Clone)]
pub(crate) struct Local {
    /// What every rank is told: a command of segslurm's and its options, without `--launcher`.
    pub arguments: Vec<OsString>,
    /// Ranks on each machine.
    pub ranks: usize,
    pub machines: Machines,
    /// Where the ranks meet; `None` for a free port, which only one machine can have.
    pub port: Option<Port>,
    /// The folder for what ranks print that do not print here.
    pub output: PathBuf,
}

/// The machines of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machines {
    pub count: usize,
    /// This machine's place among them.
    pub own: usize,
    /// Name or address of the first.
    pub address: String,
}

impl Default for Machines {
    fn default() -> Self {
        Self { count: 1, own: 0, address: "127.0.0.1".to_owned() }
    }
}

/// A rank that was started here.
struct Rank {
    number: usize,
    child: Child,
    /// What it prints into; the first rank of a machine prints to the terminal.
    output: Option<PathBuf>,
    ended: Option<ExitStatus>,
    /// It was killed from here, after another one's failure.
    killed_here: bool,
}

impl Local {
    /// Runs all ranks of this machine to their end.
    pub(crate) fn execute(&self) -> Result<Exit, Failure> {
        // Caught before any rank is there: a signal that comes in between is passed on as well.
        let cannot = |error: io::Error| {
            Failure::new(Exit::Software, format!("cannot catch signals: {error}"))
        };
        let mut signals =
            Signals::new([SIGINT, SIGTERM, SIGQUIT, SIGUSR1, SIGUSR2]).map_err(cannot)?;
        // A terminal that goes away is a reason to save and stop, unless this was started to
        // outlive it.
        if !ignores_hangups() {
            signals.add_signal(SIGHUP).map_err(cannot)?;
        }
        let mut ranks = Ranks(Vec::with_capacity(self.ranks));
        let output = if self.ranks > 1 { self.own_output()? } else { self.output.clone() };
        self.start(&mut ranks, &output)?;
        let mut failed: Option<Instant> = None;
        loop {
            for signal in signals.pending() {
                if let Ok(signal) = Signal::try_from(signal) {
                    ranks.signal(signal);
                }
            }
            ranks.reap();
            if failed.is_none() && ranks.failure().is_some() {
                failed = Some(Instant::now());
            }
            if ranks.0.iter().all(|it| it.ended.is_some()) {
                break;
            }
            if failed.is_some_and(|since| since.elapsed() > GRACE) {
                ranks.kill();
            }
            std::thread::sleep(POLL);
        }
        let outcome = match ranks.failure() {
            Some(rank) => Err(rank.failure()),
            None if ranks.0.iter().any(|it| it.exit() == Some(Exit::Interrupted)) => {
                Ok(Exit::Interrupted)
            }
            None => Ok(Exit::Done),
        };
        ranks.tidy(&output);
        outcome
    }

    /// The folder for the ranks' output; another name where two launchers of one second want the
    /// same.
    fn own_output(&self) -> Result<PathBuf, Failure> {
        let (parent, name) = (
            self.output.parent().unwrap_or(Path::new(".")),
            self.output.file_name().unwrap_or_default(),
        );
        let claimed = claim(parent, &name.to_string_lossy())
            .map_err(|error| unwritable(&self.output, &error))?;
        Ok(parent.join(claimed))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "here ranks are started, with this process's variables"
    )]
    fn start(&self, ranks: &mut Ranks, output: &Path) -> Result<(), Failure> {
        let cannot = |error: io::Error| {
            Failure::new(Exit::Software, format!("cannot start a rank: {error}"))
        };
        let program = std::env::current_exe().map_err(cannot)?;
        let (listener, port, from) = self.meeting()?;
        let threads =
            std::thread::available_parallelism().map_or(1, |it| (it.get() / self.ranks).max(1));
        for local in 0..self.ranks {
            let number = self.machines.own * self.ranks + local;
            let mut command = Command::new(&program);
            command.args(&self.arguments).args(["--launcher", handoff::READER.name()]);
            let inherits = listener.as_ref().filter(|_| number == 0);
            let handoff = Handoff {
                rank: number,
                world: self.machines.count * self.ranks,
                local_rank: local,
                local_world: self.ranks,
                address: &self.machines.address,
                port,
                port_from: &from,
                launcher: std::process::id(),
                listening: inherits.map(|it| it.as_raw_fd()),
            };
            for (name, value) in handoff.variables() {
                match value {
                    Some(value) => command.env(name, value),
                    None => command.env_remove(name),
                };
            }
            if std::env::var_os("OMP_NUM_THREADS").is_none() {
                command.env("OMP_NUM_THREADS", threads.to_string());
            }
            command.stdin(Stdio::null()).process_group(0);
            let output = (local > 0).then(|| output.join(format!("rank{number}.txt")));
            if let Some(path) = &output {
                let file = File::create(path).map_err(|error| unwritable(path, &error))?;
                command.stdout(file.try_clone().map_err(cannot)?).stderr(file);
            }
            if let Some(listener) = inherits {
                inherit(listener, true).map_err(cannot)?;
            }
            let child = command.spawn().map_err(cannot)?;
            if let Some(listener) = inherits {
                inherit(listener, false).map_err(cannot)?;
            }
            ranks.0.push(Rank { number, child, output, ended: None, killed_here: false });
        }
        Ok(())
    }

    /// The port, who chose it, and on the first machine the socket that listens on it: rank 0
    /// inherits it, so that nobody can take the port between the choice and its use.
    fn meeting(&self) -> Result<(Option<TcpListener>, u16, String), Failure> {
        let from = self
            .port
            .as_ref()
            .map_or_else(|| "segslurm, a free one".to_owned(), |it| it.origin.to_string());
        let wanted = self.port.as_ref().map_or(0, |it| it.number);
        if self.machines.own > 0 {
            return Ok((None, wanted, from));
        }
        if let Some(remark) = self.port.as_ref().and_then(Port::remark) {
            terminal::note(format!("segslurm: {remark}"));
        }
        let listener = dist::listen(wanted, &from)?;
        let port = listener
            .local_addr()
            .map_err(|error| Failure::new(Exit::Unavailable, format!("no port: {error}")))?
            .port();
        Ok((Some(listener), port, from))
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::CannotWrite, format!("cannot write {}: {error}", path.display()))
}

/// Whether processes started from here get the socket.
fn inherit(listener: &TcpListener, inherited: bool) -> io::Result<()> {
    let flags = if inherited { FdFlag::empty() } else { FdFlag::FD_CLOEXEC };
    fcntl(listener, FcntlArg::F_SETFD(flags)).map(drop).map_err(io::Error::from)
}

/// All ranks of this machine; those that are still there when it is dropped are killed.
struct Ranks(Vec<Rank>);

impl Ranks {
    fn signal(&self, signal: Signal) {
        for rank in self.0.iter().filter(|it| it.ended.is_none()) {
            // Not reaped yet, hence still its own process id.
            let _ = kill(Pid::from_raw(rank.child.id().cast_signed()), signal);
        }
    }

    fn reap(&mut self) {
        for rank in self.0.iter_mut().filter(|it| it.ended.is_none()) {
            rank.ended = rank.child.try_wait().ok().flatten();
        }
    }

    /// Kills those that are left.
    fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.0.iter_mut().filter(|it| it.ended.is_none()).for_each(|it| it.killed_here = true);
    }

    /// Removes the files in `output` that nobody printed into.
    fn tidy(&self, output: &Path) {
        for path in self.0.iter().filter_map(|it| it.output.as_ref()) {
            if fs::metadata(path).is_ok_and(|it| it.len() == 0) {
                let _ = fs::remove_file(path);
            }
        }
        // Fails where something is left in it, as it should.
        let _ = fs::remove_dir(output);
    }

    /// The rank whose failure is the others' cause: one that was killed, else one that failed for a
    /// reason of its own, else one that missed the others.
    fn failure(&self) -> Option<&Rank> {
        let weight = |it: &&Rank| match (it.ended.and_then(|it| it.signal()), it.exit()) {
            (Some(_), _) => 0,
            (None, Some(Exit::Unavailable)) => 2,
            (None, _) => 1,
        };
        let failed = |it: &&Rank| {
            it.ended.is_some() && !matches!(it.exit(), Some(Exit::Done | Exit::Interrupted))
        };
        self.0.iter().filter(|it| !it.killed_here).filter(failed).min_by_key(weight)
    }
}

impl Drop for Ranks {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        for rank in &mut self.0 {
            let _ = rank.child.wait();
        }
    }
}

impl Rank {
    fn exit(&self) -> Option<Exit> {
        self.ended.and_then(|it| it.code()).and_then(Exit::from_code)
    }

    /// What happened to it, for the person who started it.
    fn failure(&self) -> Failure {
        let number = self.number;
        let status = self.ended.unwrap_or_default();
        let how = match (status.signal().map(Signal::try_from), status.code()) {
            (Some(Ok(Signal::SIGKILL)), _) => {
                "was killed (SIGKILL: by hand, or by the kernel when memory ran out)".to_owned()
            }
            (Some(Ok(signal)), _) => format!("was ended by {signal}"),
            (_, code) => format!("failed with exit code {}", code.unwrap_or(-1)),
        };
        let said = match &self.output {
            None => "; what it said is above".to_owned(),
            Some(path) => {
                let text = fs::read(path)
                    .map(|it| String::from_utf8_lossy(&it).into_owned())
                    .unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let tail = lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n  ");
                if tail.is_empty() {
                    " and said nothing".to_owned()
                } else {
                    format!("; it said, in {}:\n  {tail}", path.display())
                }
            }
        };
        Failure::new(self.exit().unwrap_or(Exit::Software), format!("rank {number} {how}{said}"))
    }
}
