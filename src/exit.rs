//! Exit codes: what a script around segslurm can rely on. They follow BSD's sysexits where one
//! fits.

use std::error::Error;
use std::fmt::Display;
use std::process::ExitCode;

use segslurm_native::words;

/// Why the process ended. [`Exit::code`] is the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// The command line is wrong: an unknown flag, a missing value; or the launcher that it names
    /// did not start this process, or says things that contradict each other.
    Usage,
    /// Input is wrong: an unreadable image, a label out of range, a checkpoint of another model.
    Data,
    /// A file or folder that the run needs does not exist.
    NoInput,
    /// Something that the run needs does not answer or is in use: a rank, a Slurm controller, a
    /// taken port, the GPUs that it was given, a work dir that another training holds.
    Unavailable,
    /// A worker failed, or a fault of segslurm's own.
    Software,
    /// Memory ran out, the host's or a GPU's. The same again would end the same: something has to
    /// be smaller.
    OutOfMemory,
    /// An output cannot be created or written: a read-only work dir, a full disk.
    CannotWrite,
    /// Interrupted by a signal after a checkpoint was written: start again with `--resume`, or
    /// requeue.
    Interrupted,
    /// Slurm refuses the job: an unknown partition, a limit, more GPUs than a node has. Nothing was
    /// submitted.
    Refused,
    /// The config is wrong: it does not parse, has an unknown key, or its parts contradict each
    /// other.
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

/// An error that knows which code a program ends in for it. An error type without one cannot leave
/// segslurm: it does not compile.
pub trait Exits: Error + 'static {
    fn exit(&self) -> Exit;
}

/// What a program ends in: an error's words, with its causes, and the exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
}

impl Failure {
    /// Where memory ran out it is that, whatever was being done.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        let message = message.into();
        let exit = match exit {
            Exit::Software | Exit::Data if words::lacks_memory(&message) => Exit::OutOfMemory,
            exit => exit,
        };
        Self { exit, message }
    }

    /// Something that cannot be, unless segslurm itself is wrong.
    pub fn fault(message: impl Display) -> Self {
        let message =
            format!("a fault of segslurm's own: {message}; please report it with the command line");
        Self { exit: Exit::Software, message }
    }

    /// The same, with what was being done in front.
    #[must_use]
    pub fn within(self, what: impl Display) -> Self {
        Self::new(self.exit, format!("{what}: {}", self.message))
    }
}

impl<E: Exits> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error.exit(), told(&error))
    }
}

/// Says of a result what was being done.
pub(crate) trait Within<T> {
    fn within(self, what: impl Display) -> Result<T, Failure>;
}

impl<T, E: Into<Failure>> Within<T> for Result<T, E> {
    fn within(self, what: impl Display) -> Result<T, Failure> {
        self.map_err(|error| error.into().within(what))
    }
}

/// An error and its causes on one line, each said once: many an error's own words hold its cause's
/// already.
fn told(error: &(dyn Error + 'static)) -> String {
    let mut told = String::new();
    for cause in std::iter::successors(Some(error), |&it| it.source()).map(ToString::to_string) {
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

    impl Exits for Unreadable {
        fn exit(&self) -> Exit {
            Exit::Data
        }
    }

    fn unreadable() -> Unreadable {
        Unreadable { source: io::Error::from_raw_os_error(2) }
    }

    #[test]
    fn a_cause_is_told_once() {
        let failure = Failure::from(unreadable());
        assert_eq!(
            failure.message,
            "cannot read a.txt: No such file or directory (os error 2); is it there?"
        );
        let outer = Err::<(), _>(unreadable()).within("the third image").expect_err("it is one");
        assert_eq!(outer.message, format!("the third image: {}", failure.message));
        assert_eq!(outer.exit, Exit::Data);
    }

    #[test]
    fn a_lack_of_memory_has_a_code_of_its_own_whatever_was_being_done() {
        let lack = "CUDA out of memory. Tried to allocate 2 GiB";
        assert_eq!(
            Failure::new(Exit::Data, format!("a batch cannot be copied to Cuda(0): {lack}")).exit,
            Exit::OutOfMemory
        );
        let failed = Failure::new(Exit::Software, "the update failed");
        assert_eq!(failed.within(lack).exit, Exit::OutOfMemory);
        // What another rank said of itself is not this one's reason.
        assert_eq!(
            Failure::new(Exit::Unavailable, format!("rank 1 failed: {lack}")).exit,
            Exit::Unavailable
        );
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
