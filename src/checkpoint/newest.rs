//! Which checkpoint of a work dir a resume takes, and which ones go.
//!
//! What a file's header says decides, never the number in its name: whose the checkpoint is, and
//! how far it is. The headers of a work dir are read without their tensors; only the checkpoint
//! that is taken is read whole.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Checkpoint, CheckpointError, RunId, safetensors};
use crate::rundir::{relative, write_atomically};

/// The suffix of our checkpoints.
const SUFFIX: &str = "safetensors";
/// The file that names the newest checkpoint, as mmengine has it.
const LAST: &str = "last_checkpoint";

/// A checkpoint of a work dir, as its header describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub path: PathBuf,
    pub run: RunId,
    /// Finished iterations.
    pub iteration: u64,
    /// Whether it is one of those written every so often, not a best one.
    numbered: bool,
}

/// The newest whole checkpoint of a run.
#[derive(Debug)]
pub(crate) struct Found {
    pub path: PathBuf,
    pub checkpoint: Checkpoint,
    /// Checkpoints that are torn.
    pub skipped: Vec<CheckpointError>,
}

/// All checkpoints of a work dir from which a training can go on.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// Oldest first: by run, then by iteration.
    pub entries: Vec<Entry>,
    torn: Vec<CheckpointError>,
}

/// How numbered checkpoints are called besides `iter_N` and `epoch_N`: what stands before the
/// number, and behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Naming(pub Option<(String, String)>);

impl Naming {
    /// Whether a training names a numbered checkpoint so.
    fn is_numbered(&self, stem: &str) -> bool {
        let number = stem.strip_prefix("iter_").or_else(|| stem.strip_prefix("epoch_"));
        let own = self.0.as_ref().and_then(|(prefix, suffix)| {
            // One that was set aside has its run's own part behind its name.
            let stem =
                if stem.ends_with(suffix.as_str()) { stem } else { stem.rsplit_once('-')?.0 };
            stem.strip_prefix(prefix.as_str())?.strip_suffix(suffix.as_str())
        });
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
        let usual = number.map(|it| it.split_once('-').map_or(it, |(number, _)| number));
        usual.is_some_and(is_number) || own.is_some_and(is_number)
    }
}

impl Survey {
    /// Reads the headers of the checkpoints in `folder`, and of the one that `last_checkpoint` in
    /// `work_dir` names.
    pub(crate) fn of(
        folder: &Path,
        work_dir: &Path,
        naming: &Naming,
    ) -> Result<Self, CheckpointError> {
        let mut paths =
            named(folder, naming).map_err(|source| CheckpointError::open(folder, source))?;
        let known = |path: &Path| fs::canonicalize(path).ok();
        if let Some(last) = last_checkpoint(work_dir)
            && last.extension().is_some_and(|it| it == SUFFIX)
            && !paths.iter().any(|(it, _)| known(it) == known(&last))
        {
            paths.push((last, true));
        }
        let mut survey = Self::default();
        for (path, numbered) in paths {
            match entry(path, numbered) {
                Ok(entry) => survey.entries.push(entry),
                Err(error) => survey.torn.push(error),
            }
        }
        survey.entries.sort_by(|left, right| {
            let key = |it: &Entry| (it.run.clone(), it.iteration, it.numbered);
            key(left).cmp(&key(right)).then_with(|| left.path.cmp(&right.path))
        });
        Ok(survey)
    }

    /// The run that began last among those with a checkpoint.
    pub(crate) fn latest_run(&self) -> Option<&RunId> {
        self.entries.last().map(|it| &it.run)
    }

    /// The newest checkpoint of a run by its header.
    pub(crate) fn newest_entry(&self, run: &RunId) -> Option<&Entry> {
        self.entries.iter().rfind(|it| it.run == *run)
    }

    /// The newest whole checkpoint of a run. `Ok(None)` where there is none at all; an error where
    /// every one is torn.
    pub(crate) fn newest(self, run: &RunId) -> Result<Option<Found>, CheckpointError> {
        let mut skipped = self.torn;
        for entry in self.entries.into_iter().rev().filter(|it| it.run == *run) {
            match Checkpoint::read(&entry.path) {
                Ok(checkpoint) => return Ok(Some(Found { path: entry.path, checkpoint, skipped })),
                Err(error) => skipped.push(error),
            }
        }
        skipped.pop().map_or(Ok(None), Err)
    }
}

fn entry(path: PathBuf, numbered: bool) -> Result<Entry, CheckpointError> {
    let meta = safetensors::read_meta(&path)?;
    if meta.is_weights_alone() {
        return Err(CheckpointError::damaged(
            &path,
            "it holds weights alone, from which a training cannot go on",
        ));
    }
    let iteration = meta.iteration().and_then(|it| u64::try_from(it).ok()).unwrap_or(0);
    Ok(Entry { path, run: meta.run_id, iteration, numbered })
}

/// The files in a folder that are named as a training names its checkpoints, and whether each is a
/// numbered one.
fn named(folder: &Path, naming: &Naming) -> io::Result<Vec<(PathBuf, bool)>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|it| it.to_str()).unwrap_or_default();
        let numbered = naming.is_numbered(stem);
        if path.extension().is_some_and(|it| it == SUFFIX)
            && (numbered || stem.starts_with("best_"))
        {
            found.push((path, numbered));
        }
    }
    Ok(found)
}

/// Whose the checkpoint at `path` is; `None` where there is none that can be read.
pub(crate) fn owner(path: &Path) -> Option<RunId> {
    safetensors::read_meta(path).ok().map(|it| it.run_id)
}

/// Keeps another run's checkpoint at `path`, which `run` is about to write over, under a name with
/// that run's own part. At no moment is either name without its file. Gives the new name.
pub(crate) fn set_aside(path: &Path, run: &RunId) -> io::Result<Option<PathBuf>> {
    let Some(other) = owner(path).filter(|it| it != run) else { return Ok(None) };
    let own = other.own_part();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let names = (0..).map(|count| {
        if count == 0 { format!("{stem}-{own}") } else { format!("{stem}-{own}_{count}") }
    });
    for name in names {
        let aside = path.with_file_name(format!("{name}.{SUFFIX}"));
        match fs::hard_link(path, &aside) {
            Ok(()) => return Ok(Some(aside)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // Not every file system has links.
            Err(_) if aside.exists() => {}
            Err(_) => return fs::rename(path, &aside).map(|()| Some(aside)),
        }
    }
    Ok(None)
}

/// Removes all but the newest `keep` numbered checkpoints of a run, whose last one is `newest`.
/// What other runs left stays.
pub(crate) fn prune(
    folder: &Path,
    run: &RunId,
    keep: usize,
    newest: &Path,
    naming: &Naming,
) -> io::Result<()> {
    let numbered =
        named(folder, naming)?.into_iter().filter(|(path, numbered)| *numbered && path != newest);
    let mut own: Vec<Entry> = numbered
        .filter_map(|(path, _)| entry(path, true).ok())
        .filter(|it| it.run == *run)
        .collect();
    own.sort_by_key(|it| it.iteration);
    let gone = (own.len() + 1).saturating_sub(keep.max(1));
    own[..gone].iter().try_for_each(|it| fs::remove_file(&it.path))
}

/// Writes `last_checkpoint`: the newest one's path from the work dir, so that the folder can be
/// moved as a whole.
pub(crate) fn record_newest(work_dir: &Path, path: &Path) -> io::Result<()> {
    write_atomically(&work_dir.join(LAST), relative(path, work_dir)?.to_string_lossy().as_bytes())
}

/// The file that `last_checkpoint` names, if it is there. mmengine writes absolute paths, and ours
/// were once relative to where the program was started: where the work dir was moved since, the
/// file is looked for in it.
pub(crate) fn last_checkpoint(work_dir: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(work_dir.join(LAST)).ok()?;
    let path = Path::new(text.trim());
    let beside = work_dir.join(path.file_name()?);
    [work_dir.join(path), beside].into_iter().find(|it| it.is_file())
}

#[cfg(test)]
mod tests {
    use super::super::Meta;
    use super::*;

    /// A checkpoint of a run at an iteration.
    fn write(folder: &Path, name: &str, run: &str, iteration: u64) -> PathBuf {
        let path = folder.join(format!("{name}.safetensors"));
        let mut meta =
            Meta { run_id: serde_json::from_value(run.into()).expect("an id"), ..Meta::default() };
        meta.run.insert("progress".to_owned(), serde_json::json!({ "iteration": iteration }));
        meta.run.insert("seed".to_owned(), 7.into());
        let mut checkpoint = Checkpoint { meta, ..Checkpoint::default() };
        checkpoint.model.insert("w".to_owned(), tch::Tensor::from_slice(&[1.0_f32; 8]));
        checkpoint.write(&path).expect("writes");
        path
    }

    fn id(text: &str) -> RunId {
        serde_json::from_value(text.into()).expect("an id")
    }

    /// The newest checkpoint of the latest run.
    fn newest(folder: &Path) -> Result<Option<Found>, CheckpointError> {
        let survey = Survey::of(folder, folder, &Naming::default())?;
        let run = survey.latest_run().cloned().unwrap_or_default();
        survey.newest(&run)
    }

    fn left(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("the folder").flatten();
        let mut left: Vec<_> = entries
            .map(|it| it.file_name().to_string_lossy().replace(".safetensors", ""))
            .collect();
        left.sort();
        left
    }

    #[test]
    fn what_another_run_left_under_a_name_is_set_aside_and_still_its_newest() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let folder = folder.path();
        let path = write(folder, "iter_8", "20260101_000000-aaaa", 8);
        assert_eq!(set_aside(&path, &id("20260101_000000-aaaa")).expect("nothing to do"), None);
        let aside = set_aside(&path, &id("20260102_000000-bbbb")).expect("a link").expect("a name");
        assert_eq!(aside, folder.join("iter_8-aaaa.safetensors"));
        assert!(path.exists(), "until it is written over");
        write(folder, "iter_8", "20260102_000000-bbbb", 8);
        let survey = Survey::of(folder, folder, &Naming::default()).expect("reads");
        assert_eq!(
            survey.newest_entry(&id("20260101_000000-aaaa")).map(|it| &it.path),
            Some(&aside)
        );
        prune(folder, &id("20260102_000000-bbbb"), 1, &path, &Naming::default()).expect("prunes");
        assert_eq!(left(folder), ["iter_8", "iter_8-aaaa"]);
    }

    #[test]
    fn a_template_of_names_is_known_besides_the_usual_ones() {
        let naming = Naming(Some(("step_".to_owned(), "_psp".to_owned())));
        for (stem, numbered) in [
            ("step_40_psp", true),
            ("step_0040_psp", true),
            ("step_40_psp-3fa9c1d2", true),
            ("iter_4", true),
            ("epoch_4-aaaa", true),
            ("step_40", false),
            ("step_best_psp", false),
            ("keep_me", false),
        ] {
            assert_eq!(naming.is_numbered(stem), numbered, "{stem}");
        }
        assert!(!Naming::default().is_numbered("step_40_psp"));
    }

    #[test]
    fn the_header_says_which_is_the_newest_and_torn_ones_are_skipped() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert!(newest(folder.path()).expect("an empty folder").is_none());
        write(folder.path(), "iter_900", "", 9);
        let middle = write(folder.path(), "iter_10", "", 10);
        let last = write(folder.path(), "epoch_3", "", 100);
        assert_eq!(newest(folder.path()).expect("reads").expect("one").path, last);

        fs::write(&last, "torn").expect("writes");
        let found = newest(folder.path()).expect("reads").expect("one");
        assert_eq!(found.path, middle);
        assert!(found.skipped[0].to_string().contains("epoch_3"), "{:?}", found.skipped);
    }

    #[test]
    fn a_flipped_bit_behind_a_good_header_is_found_before_the_checkpoint_is_taken() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let good = write(folder.path(), "iter_2", "a", 2);
        let bad = write(folder.path(), "iter_4", "a", 4);
        let mut bytes = fs::read(&bad).expect("reads");
        *bytes.last_mut().expect("a byte") ^= 1;
        fs::write(&bad, bytes).expect("writes");
        let found = newest(folder.path()).expect("reads").expect("one");
        assert_eq!(found.path, good);
        assert!(found.skipped[0].to_string().contains("iter_4"), "{:?}", found.skipped);
        fs::remove_file(good).expect("removes");
        assert!(
            newest(folder.path()).expect_err("every one is torn").to_string().contains("iter_4")
        );
    }

    #[test]
    fn the_latest_runs_newest_comes_before_an_older_runs_larger_number_and_a_best_one_counts() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        write(folder.path(), "iter_8", "20260101_000000-a", 8);
        write(folder.path(), "iter_100", "", 100);
        let six = write(folder.path(), "iter_6", "20260101_000001-0", 6);
        assert_eq!(newest(folder.path()).expect("reads").expect("one").path, six);
        let best = write(folder.path(), "best_mIoU_iter_7", "20260101_000001-0", 7);
        assert_eq!(newest(folder.path()).expect("reads").expect("one").path, best);
    }

    #[test]
    fn weights_alone_are_nothing_to_go_on_from() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = write(folder.path(), "iter_6", "a", 6);
        Checkpoint::read(&path).expect("reads").into_weights().write(&path).expect("writes");
        let older = write(folder.path(), "iter_4", "", 4);
        let found = newest(folder.path()).expect("reads").expect("one");
        assert_eq!(found.path, older);
        assert!(found.skipped[0].to_string().contains("weights alone"), "{:?}", found.skipped);
    }

    #[test]
    fn pruning_keeps_a_runs_newest_its_best_and_everything_of_others() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, run, iteration) in
            [("iter_100", "a", 100), ("iter_8", "", 8), ("best_mIoU_iter_2", "b", 2)]
        {
            write(folder.path(), name, run, iteration);
        }
        for iteration in [2, 4, 6, 10] {
            write(folder.path(), &format!("iter_{iteration}"), "b", iteration);
        }
        let newest = folder.path().join("iter_10.safetensors");
        prune(folder.path(), &id("b"), 2, &newest, &Naming::default()).expect("prunes");
        assert_eq!(
            left(folder.path()),
            ["best_mIoU_iter_2", "iter_10", "iter_100", "iter_6", "iter_8"]
        );
        // The one that was just written stays, whatever the others' headers say.
        prune(
            folder.path(),
            &id("b"),
            1,
            &folder.path().join("iter_6.safetensors"),
            &Naming::default(),
        )
        .expect("prunes");
        assert_eq!(left(folder.path()), ["best_mIoU_iter_2", "iter_100", "iter_6", "iter_8"]);
    }

    #[test]
    fn the_last_checkpoint_is_named_from_the_work_dir_and_found_after_a_move() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (work, out, moved) =
            (folder.path().join("work"), folder.path().join("out"), folder.path().join("moved"));
        fs::create_dir(&work).expect("makes");
        fs::create_dir(&out).expect("makes");
        let read = |folder: &Path| fs::read_to_string(folder.join(LAST)).expect("last_checkpoint");
        let elsewhere = write(&out, "iter_2", "a", 2);
        record_newest(&work, &elsewhere).expect("records");
        assert_eq!(read(&work), "../out/iter_2.safetensors");
        assert_eq!(
            last_checkpoint(&work).and_then(|it| fs::canonicalize(it).ok()),
            fs::canonicalize(&elsewhere).ok()
        );
        assert_eq!(
            newest(&work).expect("reads").expect("one").checkpoint.meta.iteration(),
            Some(2)
        );

        record_newest(&work, &write(&work, "iter_4", "a", 4)).expect("records");
        assert_eq!(read(&work), "iter_4.safetensors");
        // As mmengine writes it, and then the folder is moved.
        fs::write(work.join(LAST), work.join("iter_4.safetensors").to_string_lossy().as_bytes())
            .expect("writes");
        fs::rename(&work, &moved).expect("moves");
        assert_eq!(last_checkpoint(&moved), Some(moved.join("iter_4.safetensors")));
        fs::remove_file(moved.join("iter_4.safetensors")).expect("removes");
        assert_eq!(last_checkpoint(&moved), None);
    }
}
