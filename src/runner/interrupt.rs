//! Signals become a flag, and all ranks agree on it at a step boundary: nobody leaves alone.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};

use crate::dist::{Answer, DistError, Group};
use crate::exit::Exit;

/// Whether somebody asked this process to save and stop.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt {
    /// The signal that came, 0 for none.
    signal: Arc<AtomicUsize>,
}

impl Interrupt {
    /// Catches SIGINT, SIGTERM, SIGUSR1 and, of a terminal that goes away, SIGHUP from now on. The
    /// first of them asks; a second SIGINT stops the process at once. Under `nohup` a terminal may
    /// go.
    pub(crate) fn listen() -> io::Result<Self> {
        let interrupt = Self::never();
        let asked = Arc::new(AtomicBool::new(false));
        // The order matters: the shutdown looks at the flag before this SIGINT sets it.
        signal_hook::flag::register_conditional_shutdown(
            SIGINT,
            i32::from(Exit::Killed.code()),
            Arc::clone(&asked),
        )?;
        signal_hook::flag::register(SIGINT, asked)?;
        for signal in [SIGINT, SIGTERM, SIGUSR1] {
            signal_hook::flag::register_usize(
                signal,
                Arc::clone(&interrupt.signal),
                signal as usize,
            )?;
        }
        if !ignores_hangups() {
            signal_hook::flag::register_usize(
                SIGHUP,
                Arc::clone(&interrupt.signal),
                SIGHUP as usize,
            )?;
        }
        Ok(interrupt)
    }

    /// One that is never asked.
    pub(crate) fn never() -> Self {
        Self { signal: Arc::default() }
    }

    /// Whether this process was asked to stop.
    pub(crate) fn asked(&self) -> bool {
        self.signal.load(Ordering::Relaxed) != 0
    }

    /// Asks whether any rank was asked: the same answer on all of them. Nobody waits until it is
    /// wanted.
    pub(crate) fn agree(&self, group: &Group) -> Result<Answer, DistError> {
        group.any_async(self.asked())
    }

    /// The name of the signal that came to this process.
    pub(crate) fn name(&self) -> &'static str {
        match self.signal.load(Ordering::Relaxed) as i32 {
            SIGINT => "SIGINT",
            SIGTERM => "SIGTERM",
            SIGUSR1 => "SIGUSR1",
            SIGHUP => "SIGHUP",
            _ => "another rank's signal",
        }
    }
}

/// Whether this process was started to outlive its terminal, as by `nohup`.
pub(crate) fn ignores_hangups() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|it| it.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|it| u64::from_str_radix(it.trim(), 16).ok()).unwrap_or(0);
    mask >> (SIGHUP - 1) & 1 == 1
}
