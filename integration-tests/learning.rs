//! One model on given pixels: batches from bytes, logits, losses and gradients by name. Two test
//! binaries compare them.

use std::collections::BTreeMap;

use burn::tensor::Device;
use segslurm::data::{Batch, Image, LabelMap, Meta, Sample};
use segslurm::models::{Forward, Pixels, Segmentor, SegmentorConfig};
use segslurm::ops::MemoryFormat;
use segslurm::testing::checkpoint::{Fit, StateDict, load_into};
use segslurm::testing::dist::Group;
use segslurm::testing::optim::OptimWrapperConfig;
use segslurm::testing::runner::Learner;

/// The CPU: what other machines measured came from there.
pub(crate) fn cpu() -> Device {
    Device::libtorch()
}

/// A batch as a loader hands it out.
pub(crate) fn batch(images: Vec<Image>, labels: Vec<LabelMap>) -> Batch {
    let sample = |(index, (image, label)): (usize, (Image, LabelMap))| {
        let shape = image.shape();
        let meta = Meta {
            img_path: format!("image {index}").into(),
            seg_map_path: None,
            ori_shape: shape,
            img_shape: shape,
            pad_shape: shape,
            scale_factor: None,
            flip: false,
            flip_direction: None,
            reduce_zero_label: false,
            sample_idx: index,
            padding: false,
        };
        Sample { image, label: Some(label), meta }
    };
    Batch { samples: images.into_iter().zip(labels).enumerate().map(sample).collect() }
}

pub(crate) fn pixels<const C: usize>(raster: &segslurm::data::Raster<C>) -> Pixels<'_> {
    Pixels { height: raster.height, width: raster.width, data: &raster.data }
}

/// A model in training with the weights of `state`, every one of them.
pub(crate) fn learner(
    model: &SegmentorConfig,
    wrapper: &OptimWrapperConfig,
    state: &StateDict,
    steps: u64,
) -> Learner {
    let learner = Learner::new(
        model,
        wrapper,
        &cpu().autodiff(),
        &Group::alone(),
        0,
        steps,
        MemoryFormat::Contiguous,
    );
    let learner = learner.expect("a learner");
    load(&learner.segmentor, state);
    learner
}

/// Fills a model; names that only one side has are a difference.
pub(crate) fn load(segmentor: &Segmentor, state: &StateDict) {
    let report = load_into(&segmentor.weights(), state, Fit::Exact).expect("the weights fit");
    assert_eq!(report, segslurm::testing::checkpoint::Report::default());
}

/// The gradient of every parameter that gets one, from one batch, without an update. Running
/// statistics move.
pub(crate) fn gradients(learner: &Learner, batch: &Batch) -> BTreeMap<String, tch::Tensor> {
    let images: Vec<_> = batch.samples.iter().map(|it| pixels(&it.image)).collect();
    let labels: Vec<_> =
        batch.samples.iter().map(|it| pixels(it.label.as_ref().expect("labels"))).collect();
    let (images, labels) =
        learner.preprocessor.training(&images, &labels, &learner.device).expect("a batch");
    let losses = learner.segmentor.loss(images, &labels, &Forward::training(0, None));
    let found = learner.weights.gradients(losses.total.backward());
    found.iter().map(|(id, grad)| (learner.weights[id].name.clone(), grad.copy())).collect()
}
