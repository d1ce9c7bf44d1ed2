//! mmengine's checkpoints, as far as a training goes on from them: which one of a work dir is the
//! latest, and what it holds besides weights.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::archive::{Archive, is_tensor};
use super::error::first_bytes;
use super::pickle::{Pickle, Place, Value};
use super::{Checkpoint, CheckpointError, Found, StateDict, pth};

/// What a checkpoint of mmengine's says of the training that wrote it, in mmengine's own terms.
#[derive(Debug)]
pub(crate) struct Training {
    /// Finished iterations.
    pub iteration: u64,
    /// Finished epochs, as mmengine counted them.
    pub epoch: u64,
    pub seed: Option<u64>,
    /// The state dict's names without the buffers: torch's `parameters()` in their order, by which
    /// the optimizer counts.
    pub parameters: Vec<String>,
    /// `None` where the checkpoint was written without it.
    pub optimizer: Option<Optimizer>,
    pub scaler: Option<Scaler>,
    pub schedulers: Vec<Scheduler>,
    /// The best value of the metric that `save_best` named, and the file name of its checkpoint.
    pub best: Option<(f64, String)>,
    /// The trained weights, where those of the state dict are an EMAHook's averages.
    pub trained: StateDict,
    /// Iterations since the averages began.
    pub averaged: Option<u64>,
}

/// The state dict of an optimizer of torch's.
#[derive(Debug, Default)]
pub(crate) struct Optimizer {
    pub groups: Vec<Group>,
    /// The state of a parameter by its number, such as `exp_avg`; numbers in it are tensors without
    /// dimensions.
    pub state: BTreeMap<usize, StateDict>,
}

/// A parameter group.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Group {
    pub params: Vec<usize>,
    /// Numbers and switches by their names, such as `lr`, `betas.0`, `nesterov`.
    pub settings: BTreeMap<String, f64>,
}

/// The loss scale of mixed precision.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scaler {
    pub scale: f64,
    pub growth_tracker: i64,
}

/// How far a scheduler of the learning rate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scheduler {
    /// Steps since the training began.
    pub steps: i64,
    pub by_epoch: bool,
}

/// The latest checkpoint of a work dir that mmengine wrote: the one that `last_checkpoint` names,
/// or else, where the folder has none of ours, the highest of `iter_*.pth` or `epoch_*.pth`. Torn
/// ones are skipped. `None` where the latest is ours or none is there.
pub(crate) fn newest(work_dir: &Path) -> Result<Option<Found>, CheckpointError> {
    let mut skipped = Vec::new();
    for path in candidates(work_dir).map_err(|source| CheckpointError::open(work_dir, source))? {
        match Checkpoint::read(&path) {
            Ok(checkpoint) => return Ok(Some(Found { path, checkpoint, skipped })),
            Err(error) => skipped.push(error),
        }
    }
    skipped.pop().map_or(Ok(None), Err)
}

/// Checkpoints of mmengine's, the latest first; none where the latest is ours.
fn candidates(work_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(work_dir) {
        Ok(entries) => entries.collect::<io::Result<Vec<_>>>()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let (mut theirs, mut ours) = (Vec::new(), false);
    for entry in entries {
        let path = entry.path();
        let stem = path.file_stem().and_then(|it| it.to_str()).unwrap_or_default();
        let number = stem
            .strip_prefix("iter_")
            .or_else(|| stem.strip_prefix("epoch_"))
            .and_then(|it| it.parse::<u64>().ok());
        let Some(number) = number else { continue };
        ours |= path.extension().is_some_and(|it| it == "safetensors");
        if path.extension().is_some_and(|it| it == "pth") {
            theirs.push((number, entry.metadata()?.modified()?, path));
        }
    }
    // Epochs and iterations count differently: where a folder has both, their dates tell which is
    // later.
    let is_epoch = |path: &PathBuf| {
        path.file_name().is_some_and(|it| it.to_string_lossy().starts_with("epoch_"))
    };
    let mixed = theirs.iter().any(|it| is_epoch(&it.2)) && theirs.iter().any(|it| !is_epoch(&it.2));
    theirs.sort_by_key(|(number, date, _)| (mixed.then_some(*date), *number));
    let mut paths: Vec<_> = theirs.into_iter().rev().map(|(_, _, path)| path).collect();

    let last = fs::read_to_string(work_dir.join("last_checkpoint")).unwrap_or_default();
    let last = Path::new(last.trim());
    match last.file_name().filter(|_| last.extension().is_some_and(|it| it == "pth")) {
        Some(name) => {
            // A work dir that was moved or copied has the file; what the path says may be another
            // machine's.
            let inside = work_dir.join(name);
            let named = if inside.is_file() {
                Some(inside)
            } else {
                last.is_file().then(|| last.to_owned())
            };
            if let Some(named) = named {
                paths.retain(|it| *it != named);
                paths.insert(0, named);
            }
        }
        None if ours => paths.clear(),
        None => {}
    }
    Ok(paths)
}

/// What a checkpoint says of its training; `None` where it is not one that mmengine, or mmcv before
/// it, wrote in a training.
pub(crate) fn read(path: &Path) -> Result<Option<Training>, CheckpointError> {
    if !first_bytes(path)?.starts_with(b"PK") {
        return Ok(None);
    }
    read_archive(path).map_err(|problem| CheckpointError::damaged(path, problem))
}

fn read_archive(path: &Path) -> Result<Option<Training>, String> {
    let mut archive = Archive::open(path)?;
    let bytes = archive.pickle()?;
    let pickle = Pickle::read(&bytes)?;
    let root = pickle.root();
    let (hub, optimizer) = (pickle.get(root, "message_hub"), pickle.get(root, "optimizer"));
    let info = hub.and_then(|it| pickle.get(it, "runtime_info"));
    let meta = pickle.get(root, "meta");
    if hub.is_none() && optimizer.is_none() {
        return Ok(None);
    }
    let known = |key: &str| {
        [meta, info].into_iter().flatten().find_map(|it| pickle.int(pickle.get(it, key)?))
    };
    let Some(iteration) = known("iter") else { return Ok(None) };
    let iteration = u64::try_from(iteration)
        .map_err(|_| format!("its meta says that {iteration} iterations are finished"))?;
    let seed = known("seed").and_then(|it| u64::try_from(it).ok());
    let epoch = known("epoch").and_then(|it| u64::try_from(it).ok()).unwrap_or(0);
    let scaler = optimizer.and_then(|it| pickle.get(it, "loss_scaler")).and_then(|it| {
        let number = |key: &str| pickle.number(pickle.get(it, key)?);
        Some(Scaler {
            scale: number("scale")?,
            growth_tracker: number("_growth_tracker").unwrap_or(0.0) as i64,
        })
    });
    let best = info.and_then(|it| {
        let score = pickle.number(pickle.get(it, "best_score")?)?;
        let file = pickle.text(pickle.get(it, "best_ckpt")?)?;
        Some((score, file.rsplit('/').next().unwrap_or(file).to_owned()))
    });
    let schedulers = pickle.get(root, "param_schedulers").map_or(&[][..], |it| pickle.items(it));
    let schedulers = schedulers.iter().filter_map(|&it| {
        let steps = pickle
            .get(it, "_global_step")
            .or_else(|| pickle.get(it, "last_step"))
            .and_then(|it| pickle.int(it))?;
        let by_epoch =
            pickle.get(it, "by_epoch").is_some_and(|it| matches!(pickle.at(it), Value::Bool(true)));
        Some(Scheduler { steps, by_epoch })
    });
    let averages = pickle.get(root, "ema_state_dict");
    let mut trained = StateDict::new();
    let mut averaged = None;
    for &(name, value) in averages.map_or(&[][..], |it| pickle.entries(it)) {
        let Some(name) = pickle.text(name) else { continue };
        let tensor = archive
            .tensor(&pickle, value)
            .map_err(|problem| format!("{name} of ema_state_dict: {problem}"))?;
        match name.strip_prefix("module.") {
            Some(name) => drop(trained.insert(name.to_owned(), tensor)),
            None if name == "steps" => averaged = u64::try_from(tensor.int64_value(&[])).ok(),
            None => {}
        }
    }
    Ok(Some(Training {
        iteration,
        epoch,
        seed,
        parameters: parameters(&pickle),
        schedulers: schedulers.collect(),
        scaler,
        best: best.filter(|(score, _)| score.is_finite()),
        trained,
        averaged,
        optimizer: optimizer.map(|it| read_optimizer(&mut archive, &pickle, it)).transpose()?,
    }))
}

/// Every name of the state dict that is no buffer's.
fn parameters(pickle: &Pickle<'_>) -> Vec<String> {
    let names =
        pickle.entries(pth::weights(pickle)).iter().filter(|(_, value)| is_tensor(pickle, *value));
    let names = names
        .filter_map(|(name, _)| pickle.text(*name))
        .map(|it| it.strip_prefix("module.").unwrap_or(it));
    let buffer = |name: &str| {
        ["running_mean", "running_var", "num_batches_tracked"]
            .contains(&name.rsplit('.').next().unwrap_or(name))
    };
    names.filter(|it| !buffer(it)).map(ToOwned::to_owned).collect()
}

fn read_optimizer(
    archive: &mut Archive,
    pickle: &Pickle<'_>,
    place: Place,
) -> Result<Optimizer, String> {
    let part = |key: &str| {
        pickle.get(place, key).ok_or_else(|| format!("its optimizer has no {key}, as torch's have"))
    };
    let groups = pickle
        .items(part("param_groups")?)
        .iter()
        .map(|it| group(pickle, *it))
        .collect::<Result<_, _>>()?;
    let mut state = BTreeMap::new();
    for &(number, values) in pickle.entries(part("state")?) {
        let number = count(pickle, number)
            .ok_or("its optimizer has the state of a parameter without a number")?;
        let mut of_one = StateDict::new();
        for &(slot, value) in pickle.entries(values) {
            let slot = pickle.text(slot).ok_or("its optimizer has a state without a name")?;
            let tensor = match pickle.at(value) {
                // A momentum that was never used.
                Value::None => continue,
                Value::Int(_) | Value::Float(_) => {
                    tch::Tensor::from(pickle.number(value).unwrap_or_default())
                }
                _ => archive
                    .tensor(pickle, value)
                    .map_err(|problem| format!("{slot} of parameter {number}: {problem}"))?,
            };
            of_one.insert(slot.to_owned(), tensor);
        }
        state.insert(number, of_one);
    }
    Ok(Optimizer { groups, state })
}

fn count(pickle: &Pickle<'_>, place: Place) -> Option<usize> {
    usize::try_from(pickle.int(place)?).ok()
}

fn group(pickle: &Pickle<'_>, place: Place) -> Result<Group, String> {
    let params = pickle.get(place, "params").map_or(&[][..], |it| pickle.items(it));
    let params: Option<Vec<usize>> = params.iter().map(|it| count(pickle, *it)).collect();
    let mut settings = BTreeMap::new();
    for &(name, value) in pickle.entries(place) {
        let Some(name) = pickle.text(name).filter(|it| *it != "params") else { continue };
        if let Some(number) = pickle.number(value) {
            settings.insert(name.to_owned(), number);
        }
        for (at, number) in
            pickle.items(value).iter().filter_map(|it| pickle.number(*it)).enumerate().take(4)
        {
            settings.insert(format!("{name}.{at}"), number);
        }
    }
    Ok(Group {
        params: params.ok_or("its optimizer has a group of parameters without numbers")?,
        settings,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        let mut checkpoint = Checkpoint::default();
        checkpoint.model.insert("w".to_owned(), tch::Tensor::from_slice(&[1.0_f32; 8]));
        if name.ends_with(".pth") { checkpoint.write_pth(&path) } else { checkpoint.write(&path) }
            .expect("writes");
        path
    }

    #[test]
    fn the_latest_is_what_last_checkpoint_names_wherever_it_was_written() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let found = || newest(folder.path()).expect("reads").map(|it| it.path);
        assert_eq!(found(), None);
        let (old, high) = (write(folder.path(), "iter_4.pth"), write(folder.path(), "iter_10.pth"));
        assert_eq!(found(), Some(high.clone()));
        // A later run of fewer iterations, in a folder that was somewhere else then.
        fs::write(folder.path().join("last_checkpoint"), "/gone/work/iter_4.pth").expect("writes");
        assert_eq!(found(), Some(old.clone()));
        fs::write(&old, "torn").expect("writes");
        let found = newest(folder.path()).expect("reads").expect("the one before");
        assert_eq!(found.path, high);
        assert!(found.skipped[0].to_string().contains("iter_4.pth"), "{:?}", found.skipped);
    }

    #[test]
    fn a_run_of_ours_in_its_work_dir_is_the_later_one() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        write(folder.path(), "iter_10.pth");
        write(folder.path(), "iter_4.safetensors");
        for last in [None, Some("iter_4.safetensors")] {
            if let Some(last) = last {
                fs::write(folder.path().join("last_checkpoint"), last).expect("writes");
            }
            assert!(newest(folder.path()).expect("reads").is_none(), "{last:?}");
        }
        // mmengine went on after that.
        fs::write(
            folder.path().join("last_checkpoint"),
            folder.path().join("iter_10.pth").to_string_lossy().as_bytes(),
        )
        .expect("writes");
        assert!(newest(folder.path()).expect("reads").is_some());
    }

    #[test]
    fn weights_alone_are_no_training() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert!(read(&write(folder.path(), "iter_4.pth")).expect("reads").is_none());
    }
}
