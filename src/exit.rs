//! Exit codes: what a script around segslurm can rely on. They follow BSD's sysexits where one fits.

use std::process::ExitCode;

/// Why the process ended. [`Exit::code`] is the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// The command line is wrong: an unknown flag, a missing value; or the launcher that it names did not start this process, or
    /// says things that contradict each other.
    Usage,
    /// Input is wrong: an unreadable image, a label out of range, a checkpoint of another model.
    Data,
    /// A file or folder that the run needs does not exist.
    NoInput,
    /// Something that the run needs does not answer: a rank, a Slurm controller, a taken port, the GPUs that it was given.
    Unavailable,
    /// A worker failed, or a fault of segslurm's own.
    Software,
    /// An output cannot be created or written: a read-only work dir, a full disk.
    CannotWrite,
    /// Interrupted by a signal after a checkpoint was written: start again with `--resume`, or requeue.
    Interrupted,
    /// Slurm refuses the job: an unknown partition, a limit, more GPUs than a node has. Nothing was submitted.
    Refused,
    /// The config is wrong: it does not parse, has an unknown key, or its parts contradict each other.
    Config,
    /// A second interrupt: stopped at once, without a checkpoint (128 + SIGINT).
    Killed,
    /// The exit code of a Slurm job, passed on as it is.
    Job(u8),
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
            Self::Refused,
            Self::Config,
            Self::Killed,
        ];
        all.into_iter().find(|it| i32::from(it.code()) == code)
    }

    /// The number that the process ends in.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Usage => 2,
            Self::Data => 65,
            Self::NoInput => 66,
            Self::Unavailable => 69,
            Self::Software => 70,
            Self::CannotWrite => 73,
            Self::Interrupted => 75,
            Self::Refused => 77,
            Self::Config => 78,
            Self::Killed => 130,
            Self::Job(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
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
