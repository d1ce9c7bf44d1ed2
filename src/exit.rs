//! Exit codes: what a script around segslurm can rely on. They follow BSD's sysexits where one fits.

use std::process::ExitCode;

/// Why the process ended. The number is the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// The command line is wrong: an unknown flag, a missing value.
    Usage = 2,
    /// Input is wrong: an unreadable image, a label out of range, a checkpoint of another model.
    Data = 65,
    /// A file or folder that the run needs does not exist.
    NoInput = 66,
    /// Something that the run needs does not answer: a rank, a Slurm controller, a taken port.
    Unavailable = 69,
    /// A worker failed, or a fault of segslurm's own.
    Software = 70,
    /// An output cannot be created or written: a read-only work dir, a full disk.
    CannotWrite = 73,
    /// Interrupted by a signal after a checkpoint was written: start again with `--resume`, or requeue.
    Interrupted = 75,
    /// The config is wrong: it does not parse, has an unknown key, or its parts contradict each other.
    Config = 78,
    /// A second interrupt: stopped at once, without a checkpoint (128 + SIGINT).
    Killed = 130,
}

impl Exit {
    /// The reason behind a process's exit code, if it is one of ours.
    pub fn from_code(code: i32) -> Option<Self> {
        let all = [
            Self::Done,
            Self::Usage,
            Self::Data,
            Self::NoInput,
            Self::Unavailable,
            Self::Software,
            Self::CannotWrite,
            Self::Interrupted,
            Self::Config,
            Self::Killed,
        ];
        all.into_iter().find(|it| *it as i32 == code)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error message together with the exit code that it ends in.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
}
