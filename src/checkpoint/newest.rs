//! Which checkpoint of a work dir a resume takes, and which ones go.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Checkpoint, CheckpointError};
use crate::rundir::write_atomically;

/// The suffix of our checkpoints.
const SUFFIX: &str = "safetensors";

/// The newest whole checkpoint of a work dir, and what was wrong with newer ones.
#[derive(Debug)]
pub struct Found {
    pub path: PathBuf,
    pub checkpoint: Checkpoint,
    /// Newer checkpoints that are torn.
    pub skipped: Vec<CheckpointError>,
}

/// Looks for the newest whole checkpoint in `work_dir`: the one with the highest count among `iter_*` and `epoch_*`, where
/// those with the newer date come first if both kinds are there. `Ok(None)` where there is none at all; an error where every
/// one is torn.
pub fn newest(work_dir: &Path) -> Result<Option<Found>, CheckpointError> {
    let mut skipped = Vec::new();
    for path in numbered(work_dir).map_err(|source| CheckpointError::open(work_dir, source))?.into_iter().rev() {
        match Checkpoint::read(&path) {
            Ok(checkpoint) => return Ok(Some(Found { path, checkpoint, skipped })),
            Err(error) => skipped.push(error),
        }
    }
    skipped.pop().map_or(Ok(None), Err)
}

/// The checkpoints of a work dir that hooks wrote, oldest first.
fn numbered(work_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(work_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let stem = path.file_stem().and_then(|it| it.to_str()).unwrap_or_default();
        let number = stem.strip_prefix("iter_").or_else(|| stem.strip_prefix("epoch_")).and_then(|text| text.parse::<u64>().ok());
        if let Some(number) = number
            && path.extension().is_some_and(|it| it == SUFFIX)
        {
            found.push((entry.metadata()?.modified()?, number, path));
        }
    }
    // Dates tell epochs from iterations; within one kind the count decides, since copying a work dir loses the dates.
    let mixed = found.iter().any(|it| is_epoch(&it.2)) && found.iter().any(|it| !is_epoch(&it.2));
    if mixed {
        found.sort();
    } else {
        found.sort_by_key(|(_, number, _)| *number);
    }
    Ok(found.into_iter().map(|(_, _, path)| path).collect())
}

fn is_epoch(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("epoch_"))
}

/// Removes all but the newest `keep` numbered checkpoints.
pub fn prune(work_dir: &Path, keep: usize) -> io::Result<()> {
    let paths = numbered(work_dir)?;
    let gone = paths.len().saturating_sub(keep);
    paths[..gone].iter().try_for_each(fs::remove_file)
}

/// Writes `last_checkpoint`, the file that names the newest checkpoint, as mmengine does.
pub fn record_newest(work_dir: &Path, path: &Path) -> io::Result<()> {
    write_atomically(&work_dir.join("last_checkpoint"), path.to_string_lossy().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        let mut checkpoint = Checkpoint::default();
        checkpoint.model.insert("w".to_owned(), tch::Tensor::from_slice(&[1.0_f32; 8]));
        checkpoint.write(&path).expect("writes");
        path
    }

    #[test]
    fn the_highest_count_is_the_newest_and_torn_ones_are_skipped() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert!(newest(folder.path()).expect("an empty folder").is_none());
        write(folder.path(), "iter_9.safetensors");
        let middle = write(folder.path(), "iter_10.safetensors");
        let last = write(folder.path(), "iter_100.safetensors");
        write(folder.path(), "best_mIoU_iter_200.safetensors");
        assert_eq!(newest(folder.path()).expect("reads").expect("one").path, last);

        fs::write(&last, "torn").expect("writes");
        let found = newest(folder.path()).expect("reads").expect("one");
        assert_eq!(found.path, middle);
        assert!(found.skipped[0].to_string().contains("iter_100"), "{:?}", found.skipped);
    }

    #[test]
    fn pruning_keeps_the_newest_and_the_best() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["iter_2", "iter_4", "iter_10", "best_mIoU_iter_2"] {
            write(folder.path(), &format!("{name}.safetensors"));
        }
        prune(folder.path(), 2).expect("prunes");
        let mut left: Vec<_> = fs::read_dir(folder.path()).expect("the folder").flatten().map(|it| it.file_name()).collect();
        left.sort();
        assert_eq!(left, ["best_mIoU_iter_2.safetensors", "iter_10.safetensors", "iter_4.safetensors"]);
    }
}
