//! What of a training outlives it: numbered checkpoints, the best one, and the last one of a run that was asked to stop.

use std::path::PathBuf;

use super::build::Training;
use super::outcome::Outcome;
use super::state::RunState;
use crate::checkpoint::{self, Checkpoint, DatasetMeta, Meta, StateDict};
use crate::exit::{Exit, Failure};
use crate::experiment::Rule;
use crate::metrics::Metrics;
use crate::models::named_tensors;
use crate::optim::GradScaler;

impl Training {
    /// A step is made: from now on the work dir's run is this one.
    pub(super) fn begun(&mut self) {
        if let Some(beginning) = &mut self.beginning {
            beginning.done();
        }
    }

    /// Keeps the weights as the best ones where these metrics say so. What is not a number is never the best.
    pub(super) fn keep_best(&mut self, metrics: &Metrics) -> anyhow::Result<()> {
        let hook = self.setting.experiment.checkpoint_hook();
        let Some(name) = &hook.save_best else { return Ok(()) };
        let value = metrics.summary.get(name).copied().ok_or_else(|| unknown_metric(name, metrics))?;
        if !value.is_finite() {
            tracing::warn!("{name} is {value}, so this validation gives no best checkpoint");
            return Ok(());
        }
        let better = match (&self.best, hook.rule) {
            (None, _) => true,
            (Some((best, _)), Some(Rule::Less)) => value < *best,
            (Some((best, _)), _) => value > *best,
        };
        if !better {
            return Ok(());
        }
        let stem = format!("best_{}_{}", safe(name), self.plan.checkpoint_name(self.progress.iteration));
        let mut file = format!("{stem}.safetensors");
        if !self.group.is_main() {
            self.best = Some((value, file));
            return Ok(());
        }
        let folder = self.setting.checkpoints().to_owned();
        let of_this_run = |file: &str| checkpoint::owner(&folder.join(file)).is_some_and(|it| it == self.run);
        if folder.join(&file).exists() && !of_this_run(&file) {
            // Another run's best checkpoint of the same iteration stays.
            file = format!("{stem}-{}.safetensors", self.run.own_part());
        }
        let old = self.best.as_ref().map(|it| it.1.clone()).filter(|it| *it != file && of_this_run(it));
        self.best = Some((value, file.clone()));
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
        let model = named_tensors(&self.learner.segmentor).into_iter().map(|it| (it.name, it.tensor)).collect();
        let optimizer = if hook.save_optimizer { self.learner.optimizer.state() } else { StateDict::new() };
        let metainfo = self.dataset.metainfo();
        let state = RunState {
            progress: self.progress.clone(),
            seed: self.setting.seed,
            world: self.group.world(),
            window: self.journal.window().clone(),
            best: self.best.clone(),
            scaler: self.learner.scaler.as_ref().map(GradScaler::state),
        };
        let meta = Meta {
            run_id: self.run.clone(),
            dataset_meta: DatasetMeta { classes: metainfo.classes.clone(), palette: metainfo.palette.clone() },
            config: Some(self.setting.config_text.clone()),
            run: state.to_map(),
        };
        Checkpoint { model, optimizer, meta }
    }

    /// Writes the numbered checkpoint of this iteration. Rank 0 writes, the others go on.
    ///
    /// It is whole before `last_checkpoint` names it, and named before an older one goes: wherever this ends, what is named is there.
    pub fn save(&self) -> anyhow::Result<PathBuf> {
        let folder = self.setting.checkpoints();
        let path = folder.join(format!("{}.safetensors", self.plan.checkpoint_name(self.progress.iteration)));
        if self.group.is_main() {
            self.setting.still_held()?;
            let checkpoint = self.checkpoint();
            let cannot = |error: std::io::Error| {
                Failure::new(Exit::CannotWrite, format!("cannot keep {} in order: {error}", folder.display()))
            };
            if let Some(aside) = checkpoint::set_aside(&path, &self.run).map_err(cannot)? {
                tracing::info!("another run's {} is {} from now on", path.display(), aside.display());
            }
            checkpoint.write(&path)?;
            let keep = self.setting.experiment.checkpoint_hook().max_keep_ckpts;
            let prune = || checkpoint::prune(folder, &self.run, keep as usize, &path);
            let written = checkpoint::record_newest(self.setting.rundir.work_dir(), &path)
                .and_then(|()| if keep > 0 { prune() } else { Ok(()) });
            written.map_err(cannot)?;
            tracing::info!("saved {}", path.display());
        }
        Ok(path)
    }

    /// Somebody asked to stop: saves, and says how to go on.
    pub fn leave(&mut self) -> anyhow::Result<Outcome> {
        let path = self.save()?;
        // Beside --resume, a load_from on the command line is that file and not this one.
        let without = if self.setting.asked.file { ", without load_from," } else { "" };
        tracing::info!(
            "stopped by {} after iteration {}; everything is in {}: start again with --resume{without} to go on",
            self.interrupt.name(),
            self.progress.iteration,
            path.display()
        );
        Ok(Outcome::Interrupted)
    }
}

pub(super) fn unknown_metric(name: &str, metrics: &Metrics) -> Failure {
    let known: Vec<_> = metrics.summary.keys().map(String::as_str).collect();
    let message = format!("default_hooks.checkpoint.save_best is {name}, but the metrics are {}", known.join(", "));
    Failure::new(Exit::Config, message)
}

/// A metric's name as a part of a file's name: `val/mIoU` becomes `val_mIoU`, as in mmengine.
fn safe(name: &str) -> String {
    name.chars().map(|it| if it.is_alphanumeric() || "-_.+=@".contains(it) { it } else { '_' }).collect()
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
