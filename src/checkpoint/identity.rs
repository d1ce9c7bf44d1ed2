//! Whose a checkpoint is. A number in a file's name tells nothing about that: two runs in one work
//! dir count alike.
//!
//! Every run has an id, drawn when it begins and written into each of its checkpoints; a resume
//! keeps it. Beside the checkpoints lies `current_run`, which says what the work dir is busy with:
//! a run exists before its first checkpoint does, and whoever goes on then must not end up in an
//! older one.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rand::{RngCore, SeedableRng};
use serde::{Deserialize, Serialize};
use time::macros::format_description;
use time::{Duration, OffsetDateTime, PrimitiveDateTime};

use crate::rundir::write_atomically;

/// The name of a run, `20261126_041500-3fa9c1d2`: when it began (UTC), and something that no other
/// run has. Later runs of a work dir have later names. A checkpoint from before runs had ids is of
/// the empty one, which is older than any.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(String);

impl RunId {
    /// The id of a run that begins now. It is later than `after`, whatever the clocks of two
    /// machines say.
    pub fn draw(after: Option<&Self>) -> Self {
        let format = format_description!("[year][month][day]_[hour][minute][second]");
        let now = OffsetDateTime::now_utc();
        let mut begin = PrimitiveDateTime::new(now.date(), now.time());
        let earlier = after.and_then(|it| PrimitiveDateTime::parse(it.0.get(..15)?, &format).ok());
        if let Some(later) = earlier.and_then(|it| it.checked_add(Duration::SECOND)) {
            begin = begin.max(later);
        }
        let own = rand::rngs::StdRng::from_os_rng().next_u32();
        Self(format!("{}-{own:08x}", begin.format(&format).unwrap_or_default()))
    }

    /// Whether this is the id of checkpoints from before runs had one.
    pub fn is_unknown(&self) -> bool {
        self.0.is_empty()
    }

    /// The part that no other run has; `old` for those from before runs had ids.
    pub fn own_part(&self) -> &str {
        if self.is_unknown() { "old" } else { self.0.rsplit('-').next().unwrap_or_default() }
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_unknown() { "without an id" } else { &self.0 })
    }
}

/// What a work dir is busy with: the run that began or went on last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CurrentRun {
    pub id: RunId,
    /// The checkpoint that the run began with, if any.
    pub from: Option<PathBuf>,
    /// Whether it took over that checkpoint's whole state, not the weights alone.
    pub with_state: bool,
    /// The jobs of a queue that have worked on it.
    #[serde(default)]
    pub jobs: Vec<String>,
}

impl CurrentRun {
    fn path(work_dir: &Path) -> PathBuf {
        work_dir.join("current_run")
    }

    /// What the work dir says; `None` where nothing began in it yet. What cannot be read is an
    /// error of kind `InvalidData`.
    pub(crate) fn load(work_dir: &Path) -> io::Result<Option<Self>> {
        match fs::read(Self::path(work_dir)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes the place of what the work dir said, until a failure before the first step takes it
    /// back.
    pub(crate) fn begin(&self, work_dir: &Path) -> io::Result<Beginning> {
        let path = Self::path(work_dir);
        let before = fs::read(&path).ok();
        write_atomically(&path, format!("{:#}\n", serde_json::to_value(self)?).as_bytes())?;
        Ok(Beginning { path, before, undone: true })
    }
}

/// A run that has not made a step. Where it ends like this, the work dir says again what it said
/// before: a start that fails over a wrong path is no run.
#[derive(Debug)]
pub(crate) struct Beginning {
    path: PathBuf,
    before: Option<Vec<u8>>,
    undone: bool,
}

impl Beginning {
    /// A step is made: the run stays the work dir's.
    pub(crate) fn done(&mut self) {
        self.undone = false;
    }
}

impl Drop for Beginning {
    fn drop(&mut self) {
        if self.undone {
            // At worst the work dir names a run without a checkpoint, which begins again.
            let _ = match &self.before {
                Some(bytes) => write_atomically(&self.path, bytes),
                None => fs::remove_file(&self.path),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_runs_have_later_names_even_within_a_second_and_after_a_clock_that_is_ahead() {
        let mut last = RunId("29991231_235958-ffffffff".to_owned());
        for _ in 0..100 {
            let next = RunId::draw(Some(&last));
            assert!(next > last, "{next} after {last}");
            last = next;
        }
        assert!(RunId::draw(None) > RunId::default());
    }

    #[test]
    fn a_start_that_fails_before_its_first_step_is_no_run() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let run = |id: &str| CurrentRun {
            id: RunId(id.to_owned()),
            from: None,
            with_state: false,
            jobs: Vec::new(),
        };
        drop(run("a").begin(folder.path()).expect("writes"));
        assert_eq!(CurrentRun::load(folder.path()).expect("reads"), None);
        run("a").begin(folder.path()).expect("writes").done();
        drop(run("b").begin(folder.path()).expect("writes"));
        assert_eq!(CurrentRun::load(folder.path()).expect("reads"), Some(run("a")));
    }
}
