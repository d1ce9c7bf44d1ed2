//! A rank that a launcher of ours started ends when that launcher does, in whatever way: the kernel
//! sees to it.

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::getppid;

use super::DistError;
use super::handoff::LAUNCHER;

/// Ties this process to the launcher that `SEGSLURM_LAUNCHER` names by process id; without that
/// variable nothing happens.
pub(crate) fn tether(variable: &dyn Fn(&str) -> Option<String>) -> Result<(), DistError> {
    let Some(launcher) = variable(LAUNCHER) else { return Ok(()) };
    let gone =
        || DistError::Launcher(format!("the launcher of this rank (process {launcher}) is gone"));
    set_pdeathsig(Signal::SIGKILL)
        .map_err(|error| DistError::Launcher(format!("cannot follow the launcher: {error}")))?;
    // It may have ended before the line above.
    if getppid().to_string() == launcher { Ok(()) } else { Err(gone()) }
}
