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
    /// Something that the run needs does not answer or is in use: a rank, a Slurm controller, a taken port, the GPUs that it was given, a
    /// work dir that another training holds.
    Unavailable,
    /// A worker failed, or a fault of segslurm's own.
    Software,
    /// Memory ran out, the host's or a GPU's. The same again would end the same: something has to be smaller.
    OutOfMemory,
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
            Self::OutOfMemory,
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
            Self::OutOfMemory => 71,
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

/// An error and its causes on one line, each said once: many an error's own words hold its cause's already.
pub fn told(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !told.contains(&cause) {
            told = if told.is_empty() { cause } else { format!("{told}: {cause}") };
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read a.txt: {source}; is it there?")]
    struct Unreadable {
        source: io::Error,
    }

    #[test]
    fn a_cause_is_told_once() {
        let error = anyhow::Error::from(Unreadable { source: io::Error::from_raw_os_error(2) });
        assert_eq!(told(&error), "cannot read a.txt: No such file or directory (os error 2); is it there?");
        let outer = error.context("the third image");
        assert_eq!(told(&outer), "the third image: cannot read a.txt: No such file or directory (os error 2); is it there?");
    }

    #[test]
    fn every_code_stands_for_one_reason() {
        for code in 0..=255 {
            if let Some(exit) = Exit::from_code(code) {
                assert_eq!(i32::from(exit.code()), code);
            }
        }
        assert_eq!(Exit::from_code(71), Some(Exit::OutOfMemory));
    }
}
