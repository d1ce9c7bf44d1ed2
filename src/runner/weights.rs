//! Weights on their way into a model: where they come from, and what of them does not fit.

use std::path::{Path, PathBuf};

use super::build::Setting;
use crate::checkpoint::{self, Checkpoint, Fit, Report, Source, StateDict, listed};
use crate::dist::Group;
use crate::exit::{Failure, Within};
use crate::models::PretrainedSource;
use crate::weights::Weights;

/// The file of a checkpoint on this machine. All ranks come here together: what a path means, rank
/// 0 says, and what comes from the network, one rank of each machine fetches.
pub(super) fn obtain(named: &Path, setting: &Setting) -> Result<PathBuf, Failure> {
    let Setting { group, places, .. } = setting;
    let source = Source::parse(named, places)?;
    if source.is_remote() {
        let first = group.local_rank() == 0;
        let path = if first { Some(source.fetched()?) } else { None };
        together(group)?;
        return path.map_or_else(|| source.fetched().map_err(Into::into), Ok);
    }
    if group.world() == 1 {
        return Ok(source.fetched()?);
    }
    let path = if group.is_main() {
        source.fetched()?.to_string_lossy().into_owned()
    } else {
        String::new()
    };
    Ok(group.broadcast_text(&path)?.into())
}

fn together(group: &Group) -> Result<(), Failure> {
    if group.world() > 1 {
        group.barrier()?;
    }
    Ok(())
}

/// The weights that a training begins with: a checkpoint's, the pretrained ones of the backbone, or
/// those that were drawn. Where a checkpoint leaves parts of the backbone out, these have the
/// pretrained ones, as in mmengine.
pub(super) fn begin(
    weights: &Weights,
    pretrained: Option<&PretrainedSource>,
    given: Option<(&Path, &StateDict)>,
    setting: &Setting,
) -> Result<(), Failure> {
    let Some((path, state)) = given else { return load_pretrained(weights, pretrained, setting) };
    let lacking = pretrained.is_some_and(|source| {
        weights
            .iter()
            .any(|it| it.name.starts_with(&source.target) && !state.contains_key(&it.name))
    });
    if lacking {
        load_pretrained(weights, pretrained, setting)?;
    }
    load(weights, state, path, Fit::Trained)
}

/// The weights that a training goes on with. Where a checkpoint's are averages, those are the
/// trained ones beside them, if this training averages too.
pub(super) fn to_train(checkpoint: &Checkpoint, averages: bool) -> StateDict {
    let mut state: StateDict =
        checkpoint.model.iter().map(|(name, it)| (name.clone(), it.shallow_clone())).collect();
    if averages {
        state
            .extend(checkpoint.trained.iter().map(|(name, it)| (name.clone(), it.shallow_clone())));
    } else if !checkpoint.trained.is_empty() {
        tracing::warn!(
            "the checkpoint has averaged weights and the trained ones beside them; the config has \
             no EMAHook, so this goes on with the averages"
        );
    }
    state
}

/// Copies a checkpoint's tensors into the model and tells what does not meet.
pub(super) fn load(
    weights: &Weights,
    state: &StateDict,
    path: &Path,
    fit: Fit,
) -> Result<(), Failure> {
    let report = copy(weights, state, path, fit)?;
    tell(path, &report.missing, &report.unexpected, &report);
    Ok(())
}

fn copy(weights: &Weights, state: &StateDict, path: &Path, fit: Fit) -> Result<Report, Failure> {
    checkpoint::load_into(weights, state, fit).within(path.display())
}

fn tell(path: &Path, missing: &[String], unexpected: &[String], report: &Report) {
    for (what, names) in
        [("missing in the checkpoint", missing), ("unexpected in the checkpoint", unexpected)]
    {
        if !names.is_empty() {
            tracing::warn!("{what} {}: {}", path.display(), listed(names));
        }
    }
    if !report.reshaped.is_empty() {
        let told: Vec<_> = report.reshaped.iter().map(ToString::to_string).collect();
        tracing::warn!(
            "{} has tensors of other shapes, as of other classes; these begin with the values that \
             they would have without it: {}",
            path.display(),
            told.join("; ")
        );
    }
}

/// The backbone's pretrained weights, where the config names some.
fn load_pretrained(
    weights: &Weights,
    source: Option<&PretrainedSource>,
    setting: &Setting,
) -> Result<(), Failure> {
    let Some(source) = source else { return Ok(()) };
    let path = obtain(Path::new(&source.checkpoint), setting).within("pretrained weights")?;
    let checkpoint = Checkpoint::read(&path)?;
    let prefix = source.prefix.as_deref().unwrap_or_default();
    let target = |name: &str| Some(format!("{}{}", source.target, name.strip_prefix(prefix)?));
    let state: StateDict =
        checkpoint.model.into_iter().filter_map(|(name, it)| Some((target(&name)?, it))).collect();
    let report = copy(weights, &state, &path, Fit::Trained)?;
    // What the file has not is told of its part of the model alone: heads have no pretrained
    // weights.
    let within = |name: &&String| name.starts_with(&source.target);
    let part = source.target.trim_end_matches('.');
    let part = if part.is_empty() { "model" } else { part };
    let all = weights.iter().filter(|it| within(&&it.name)).count();
    let missing: Vec<String> = report.missing.iter().filter(within).cloned().collect();
    let loaded = all - missing.len() - report.reshaped.len();
    tracing::info!("loaded {loaded} of {all} tensors into the {part} from {}", path.display());
    let unexpected: Vec<String> = report
        .unexpected
        .iter()
        .map(|it| it.trim_start_matches(&source.target).to_owned())
        .collect();
    tell(&path, &missing, &unexpected, &report);
    Ok(())
}
