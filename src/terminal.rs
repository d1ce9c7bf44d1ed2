//! What commands print, to a reader who may have gone: `segslurm config … | head -1` is no failure,
//! and a note that nobody can read any more ends nothing. (`println!` would panic.)

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use crate::exit::{Exit, Failure};

/// Writes `text` to standard output as it is. A reader who has seen enough is no failure; a full
/// disk behind a redirection is.
pub(crate) fn print(text: impl Display) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::new(
            Exit::CannotWrite,
            format!("cannot write to standard output: {error}"),
        )),
        _ => Ok(()),
    }
}

/// Writes a line to standard error, where it can be written.
pub(crate) fn note(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}
