//! Batch norm cannot learn of one value: found before the first step, not at the end of the first
//! epoch.
//!
//! A batch of one image whose features were pooled to a single cell has one value per channel. No
//! rule says which models do that: the model is asked, by a pass over zeros, if a batch of one can
//! come at all.

use super::learner::Learner;
use super::progress::TrainPlan;
use crate::data::{DataloaderConfig, Dataset, Sampler, sample_rng};
use crate::exit::{Exit, Failure};
use crate::models::Pixels;

/// Refuses a training that would come to a batch of which some norm sees a single value per
/// channel.
pub(super) fn refuse(
    learner: &Learner,
    loader: &DataloaderConfig,
    dataset: &Dataset,
    plan: &TrainPlan,
) -> Result<(), Failure> {
    let group = &learner.group;
    let sampler = Sampler::new(&loader.sampler, dataset.len(), group.rank(), group.world(), 0);
    let Some(which) = lone_batch(sampler.len(), loader, plan.max_iterations) else { return Ok(()) };
    let sample = dataset.sample(0, &mut sample_rng(0, 0, 0, 0))?;
    let image =
        Pixels { height: sample.image.height, width: sample.image.width, data: &sample.image.data };
    let [height, width] = learner.preprocessor.training_size(&[image])?;
    let among = (group.world() > 1).then_some(group);
    let norms = learner.segmentor.starved_norms([1, 3, height, width], among);
    let Some(first) = norms.first() else { return Ok(()) };
    let others =
        if norms.len() > 1 { format!(" (and {} more)", norms.len() - 1) } else { String::new() };
    let drop_last = if which.ends_the_epoch { "train_dataloader.drop_last: true, " } else { "" };
    let message = format!(
        "{}: from one image of {height}x{width} pixels the norm model.{first}{others} gets a \
         single value per channel, which batch norm cannot be trained on; set {drop_last}another \
         train_dataloader.batch_size, or norm_cfg.type: SyncBN and train on several ranks; norms \
         that are not trained (model.backbone.norm_eval, frozen_stages) take such a batch",
        which.described
    );
    Err(Failure::new(Exit::Config, message))
}

/// A batch of one image.
#[derive(Debug, PartialEq, Eq)]
struct LoneBatch {
    described: String,
    ends_the_epoch: bool,
}

/// The batch of one image that a training of so many iterations comes to; `entries` are those of an
/// epoch, if there are epochs.
fn lone_batch(
    entries: Option<usize>,
    loader: &DataloaderConfig,
    max_iterations: u64,
) -> Option<LoneBatch> {
    let size = loader.batch_size;
    if size == 1 {
        let described = "train_dataloader.batch_size is 1".to_owned();
        return Some(LoneBatch { described, ends_the_epoch: false });
    }
    let entries = entries.filter(|it| it % size == 1 && !loader.drop_last)?;
    // A training that ends before its first epoch does never sees the rest.
    (entries.div_ceil(size) as u64 <= max_iterations).then(|| {
        let described = format!(
            "the last batch of an epoch has one image ({entries} images in batches of {size})"
        );
        LoneBatch { described, ends_the_epoch: true }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_str;

    fn loader(batch_size: usize, drop_last: bool) -> DataloaderConfig {
        let text = format!(
            "{{batch_size: {batch_size}, drop_last: {drop_last}, dataset: {{type: BaseSegDataset, \
             pipeline: []}}}}"
        );
        parse_str(&text).expect("a dataloader")
    }

    #[test]
    fn a_batch_of_one_comes_by_its_size_or_as_the_rest_of_an_epoch_that_is_reached() {
        let comes = |entries, size, drop_last, iterations| {
            lone_batch(entries, &loader(size, drop_last), iterations).is_some()
        };
        assert!(comes(None, 1, false, 1) && comes(Some(8), 1, true, 1));
        assert!(comes(Some(9), 4, false, 3) && comes(Some(1), 4, false, 1));
        assert!(!comes(Some(9), 4, false, 2), "the third batch is never reached");
        assert!(
            !comes(Some(9), 4, true, 100)
                && !comes(Some(10), 4, false, 100)
                && !comes(Some(8), 4, false, 100)
        );
        assert!(!comes(None, 4, false, 100), "an endless sampler has no rest");
    }
}
