//! What of a training outlives it: numbered checkpoints, the best one, and the last one of a run
//! that was asked to stop.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::build::Training;
use super::outcome::Outcome;
use super::state::RunState;
use crate::checkpoint::{self, Checkpoint, DatasetMeta, Meta, StateDict};
use crate::config::nearest;
use crate::exit::{Exit, Failure};
use crate::experiment::{CheckpointHook, PublishedKey};
use crate::metrics::Metrics;
use crate::ops::GradScaler;
use crate::optim::Average;

impl Training {
    /// A step is made: from now on the work dir's run is this one.
    pub(super) fn begun(&mut self) {
        if let Some(beginning) = &mut self.beginning {
            beginning.done();
        }
    }

    /// Keeps the weights as the best ones where these metrics say so. What is not a number is never
    /// the best.
    pub(super) fn keep_best(&mut self, metrics: &Metrics) -> Result<(), Failure> {
        let hook = self.setting.experiment.checkpoint_hook();
        for (place, name) in chosen(&hook, metrics).into_iter().enumerate() {
            let value = metrics
                .summary
                .get(&name)
                .copied()
                .ok_or_else(|| unknown_metric(SAVE_BEST, &name, metrics))?;
            let rule = hook
                .rule_of(place, &name)
                .map_err(|it| Failure::new(Exit::Config, format!("{CHECKPOINT}.{it}")))?;
            if !value.is_finite() {
                tracing::warn!("{name} is {value}, so this validation gives no best checkpoint");
            } else if self.best.get(&name).is_none_or(|(best, _)| rule.is_better(value, *best)) {
                self.keep_as_best(&name, value)?;
            }
        }
        Ok(())
    }

    fn keep_as_best(&mut self, name: &str, value: f64) -> Result<(), Failure> {
        let stem =
            format!("best_{}_{}", safe(name), self.plan.checkpoint_name(self.progress.iteration));
        let mut file = format!("{stem}.safetensors");
        if !self.group.is_main() {
            self.best.insert(name.to_owned(), (value, file));
            return Ok(());
        }
        let folder = self.setting.checkpoints().to_owned();
        let of_this_run =
            |file: &str| checkpoint::owner(&folder.join(file)).is_some_and(|it| it == self.run);
        if folder.join(&file).exists() && !of_this_run(&file) {
            // Another run's best checkpoint of the same iteration stays.
            file = format!("{stem}-{}.safetensors", self.run.own_part());
        }
        let old =
            self.best.get(name).map(|it| it.1.clone()).filter(|it| *it != file && of_this_run(it));
        self.best.insert(name.to_owned(), (value, file.clone()));
        let path = folder.join(&file);
        self.setting.still_held()?;
        self.checkpoint().write(&path)?;
        if let Some(old) = old {
            let _ = std::fs::remove_file(folder.join(old));
        }
        tracing::info!("the best {name} so far is {value:.4}, saved as {}", path.display());
        Ok(())
    }

    fn checkpoint(&self) -> Checkpoint {
        let hook = self.setting.experiment.checkpoint_hook();
        let weights = self.learner.weights.iter();
        let mut model: StateDict =
            weights.map(|it| (it.name.clone(), it.tensor.shallow_clone())).collect();
        let mut trained = StateDict::new();
        if let Some(average) = &self.average {
            // As in mmengine: the averages are the weights that others load, and the trained ones
            // lie beside them.
            trained = std::mem::take(&mut model);
            model
                .extend(average.averages().map(|(name, it)| (name.to_owned(), it.shallow_clone())));
        }
        let optimizer =
            if hook.save_optimizer { self.learner.optimizer.state() } else { BTreeMap::new() };
        let optimizer =
            optimizer.into_iter().map(|(name, it)| (name, it.shallow_clone())).collect();
        let metainfo = self.dataset.metainfo();
        let state = RunState {
            progress: self.progress.clone(),
            seed: self.setting.seed,
            world: self.group.world(),
            window: self.journal.window().clone(),
            best: self.best.clone(),
            stopping: self.stopping.iter().map(|it| it.seen.clone()).collect(),
            averaged: self.average.as_ref().map(Average::steps),
            observed: self.schedule.observations().to_vec(),
            scaler: self.learner.scaler.as_ref().map(GradScaler::state),
        };
        let meta = Meta {
            run_id: self.run.clone(),
            dataset_meta: DatasetMeta {
                classes: metainfo.classes.clone(),
                palette: metainfo.palette.clone(),
            },
            config: Some(self.setting.config_text.clone()),
            run: state.to_map(),
        };
        Checkpoint { model, optimizer, trained, meta }
    }

    /// Writes the numbered checkpoint of this iteration. Rank 0 writes, the others go on.
    ///
    /// It is whole before `last_checkpoint` names it, and named before an older one goes: wherever
    /// this ends, what is named is there.
    pub(crate) fn save(&self) -> Result<PathBuf, Failure> {
        let folder = self.setting.checkpoints();
        let path = folder
            .join(format!("{}.safetensors", self.plan.checkpoint_name(self.progress.iteration)));
        if self.group.is_main() {
            self.setting.still_held()?;
            let checkpoint = self.checkpoint();
            let cannot = |error: std::io::Error| {
                Failure::new(
                    Exit::CannotWrite,
                    format!("cannot keep {} in order: {error}", folder.display()),
                )
            };
            if let Some(aside) = checkpoint::set_aside(&path, &self.run).map_err(cannot)? {
                tracing::info!(
                    "another run's {} is {} from now on",
                    path.display(),
                    aside.display()
                );
            }
            checkpoint.write(&path)?;
            let keep = self.setting.experiment.checkpoint_hook().max_keep_ckpts;
            let prune = || {
                checkpoint::prune(folder, &self.run, keep as usize, &path, &self.setting.naming())
            };
            let written = checkpoint::record_newest(self.setting.rundir.work_dir(), &path)
                .and_then(|()| if keep > 0 { prune() } else { Ok(()) });
            written.map_err(cannot)?;
            tracing::info!("saved {}", path.display());
        }
        Ok(path)
    }

    /// The training is done: what `published_keys` asks for, beside the last and the best
    /// checkpoints.
    pub(crate) fn finish(&mut self) -> Result<Outcome, Failure> {
        if let Some(reason) = self.stopped.take() {
            tracing::info!(
                "the training ends early, after iteration {}: {reason}",
                self.progress.iteration
            );
            let kept = self.plan.checkpoint_due(self.progress.iteration);
            if self.setting.experiment.checkpoint_hook().save_last && !kept {
                self.save()?;
            }
        }
        let published = self
            .setting
            .experiment
            .checkpoint_hook()
            .published_keys
            .filter(|_| self.group.is_main());
        if let Some(keys) = published {
            let folder = self.setting.checkpoints().to_owned();
            let last = self.setting.experiment.checkpoint_hook().save_last;
            let last = last.then(|| {
                folder.join(format!(
                    "{}.safetensors",
                    self.plan.checkpoint_name(self.progress.iteration)
                ))
            });
            let best = self.best.values().map(|(_, file)| folder.join(file));
            for path in last.into_iter().chain(best).filter(|it| it.exists()) {
                publish(&path, keys.contains(&PublishedKey::Meta))?;
            }
        }
        Ok(Outcome::Finished)
    }

    /// Somebody asked to stop: saves, and says how to go on.
    pub(crate) fn leave(&mut self) -> Result<Outcome, Failure> {
        let path = self.save()?;
        // Beside --resume, a load_from on the command line is that file and not this one.
        let without = if self.setting.asked.file { ", without load_from," } else { "" };
        tracing::info!(
            "stopped by {} after iteration {}; everything is in {}: start again with \
             --resume{without} to go on",
            self.interrupt.name(),
            self.progress.iteration,
            path.display()
        );
        Ok(Outcome::Interrupted)
    }
}

/// Writes a checkpoint's weights, and its classes where its `meta` is asked for, as a `.pth` with
/// the beginning of its SHA-256 in its name, as those have that are put on the web: `torch.hub`
/// checks it.
fn publish(path: &Path, with_meta: bool) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let cannot = |error: std::io::Error| {
        Failure::new(Exit::CannotWrite, format!("cannot publish {}: {error}", path.display()))
    };
    let place = tempfile::tempdir_in(folder).map_err(cannot)?;
    let unnamed = place.path().join("published.pth");
    let mut checkpoint = Checkpoint::read(path)?.into_weights();
    if !with_meta {
        checkpoint.meta = Meta::default();
    }
    checkpoint.write_pth(&unnamed)?;
    let digest = Sha256::digest(std::fs::read(&unnamed).map_err(cannot)?);
    let digest: String = digest.iter().take(4).map(|it| format!("{it:02x}")).collect();
    let published = folder.join(format!("{stem}-{digest}.pth"));
    std::fs::rename(&unnamed, &published).map_err(cannot)?;
    tracing::info!("published {} as {}", path.display(), published.display());
    Ok(())
}

/// Where the hook stands in a config.
const CHECKPOINT: &str = "default_hooks.checkpoint";
pub(super) const SAVE_BEST: &str = "default_hooks.checkpoint.save_best";

/// The metrics of which the best is kept: `auto` is the first that a validation gives.
pub(super) fn chosen(hook: &CheckpointHook, metrics: &Metrics) -> Vec<String> {
    let first = || metrics.summary.keys().next().cloned();
    hook.save_best
        .iter()
        .filter_map(|it| if it == "auto" { first() } else { Some(it.clone()) })
        .collect()
}

pub(super) fn unknown_metric(key: &str, name: &str, metrics: &Metrics) -> Failure {
    let known: Vec<_> = metrics.summary.keys().map(String::as_str).collect();
    let hint = nearest(name, known.iter().copied())
        .map(|it| format!("; did you mean {it}?"))
        .unwrap_or_default();
    let message = format!("{key} is {name}, but the metrics are {}{hint}", known.join(", "));
    Failure::new(Exit::Config, message)
}

/// A metric's name as a part of a file's name: `val/mIoU` becomes `val_mIoU`, as in mmengine.
fn safe(name: &str) -> String {
    name.chars()
        .map(|it| if it.is_alphanumeric() || "-_.+=@".contains(it) { it } else { '_' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metrics_name_is_safe_in_a_file_name() {
        assert_eq!(safe("val/mIoU"), "val_mIoU");
        assert_eq!(safe("../a b\n\0\\c:d"), ".._a_b___c_d");
        assert_eq!(safe("größe"), "größe");
    }
}
