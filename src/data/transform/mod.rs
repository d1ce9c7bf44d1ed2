//! The steps of a `pipeline`, with mmcv's and mmseg's names, parameters and semantics; one per file.
//!
//! A transform is its own config: parsed, checked once by [`Pipeline::init`], and then applied to a [`Frame`] with a random
//! generator. Transforms that only move pixels plan on the frame's views; those that change values render them.

mod crop;
mod flip;
mod frame;
mod load;
mod pack;
mod pad;
mod photometric;
mod resize;
mod test_time_aug;

use rand_pcg::Pcg64;
use serde::Deserialize;

pub use crop::RandomCrop;
pub use flip::RandomFlip;
pub use frame::{Entry, Frame, LabelRule};
pub use load::{BackendArgs, LoadAnnotations, LoadImageFromFile};
pub use pack::PackSegInputs;
pub use pad::Pad;
pub use photometric::{Distortion, PhotoMetricDistortion};
pub use resize::{RandomChoiceResize, RandomResize, Resize, ResizeShortestEdge, ResizeToMultiple};
pub use test_time_aug::TestTimeAug;

use super::{DataError, Sample};

/// One step of a pipeline; the variant is the config's `type`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum Transform {
    LoadImageFromFile(LoadImageFromFile),
    LoadAnnotations(LoadAnnotations),
    Resize(Resize),
    RandomResize(RandomResize),
    RandomChoiceResize(RandomChoiceResize),
    ResizeShortestEdge(ResizeShortestEdge),
    ResizeToMultiple(ResizeToMultiple),
    RandomCrop(RandomCrop),
    RandomFlip(RandomFlip),
    PhotoMetricDistortion(PhotoMetricDistortion),
    Pad(Pad),
    PackSegInputs(PackSegInputs),
    TestTimeAug(TestTimeAug),
}

impl Transform {
    /// Refuses settings that could never work.
    fn check(&self, rule: &LabelRule) -> Result<(), DataError> {
        match self {
            Self::LoadImageFromFile(it) => it.check(),
            Self::LoadAnnotations(it) => it.check(rule),
            Self::Resize(it) => it.check(),
            Self::RandomResize(it) => it.check(),
            Self::RandomChoiceResize(it) => it.check(),
            Self::ResizeShortestEdge(it) => it.check(),
            Self::ResizeToMultiple(it) => it.check(),
            Self::RandomCrop(it) => it.check(),
            Self::RandomFlip(it) => it.check(),
            Self::PhotoMetricDistortion(it) => it.check(),
            Self::Pad(it) => it.check(),
            Self::PackSegInputs(_) => Ok(()),
            Self::TestTimeAug(it) => it.check(rule),
        }
    }

    fn apply(&self, frame: &mut Frame, rng: &mut Pcg64) -> Result<(), DataError> {
        match self {
            Self::LoadImageFromFile(it) => it.apply(frame),
            Self::LoadAnnotations(it) => it.apply(frame),
            Self::Resize(it) => it.apply(frame),
            Self::RandomResize(it) => it.apply(frame, rng),
            Self::RandomChoiceResize(it) => it.apply(frame, rng),
            Self::ResizeShortestEdge(it) => it.apply(frame),
            Self::ResizeToMultiple(it) => it.apply(frame),
            Self::RandomCrop(it) => it.apply(frame, rng),
            Self::RandomFlip(it) => it.apply(frame, rng),
            Self::PhotoMetricDistortion(it) => it.apply(frame, rng),
            Self::Pad(it) => it.apply(frame),
            // Packing is what `Frame::pack` does at the pipeline's end; several views are `Pipeline::run`'s matter.
            Self::PackSegInputs(_) | Self::TestTimeAug(_) => Ok(()),
        }
    }
}

/// A checked list of transforms.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    transforms: Vec<Transform>,
}

impl Pipeline {
    /// Checks every transform's settings and their order, against the dataset's rule for labels.
    pub fn init(transforms: Vec<Transform>, rule: &LabelRule) -> Result<Self, DataError> {
        transforms.iter().try_for_each(|transform| transform.check(rule))?;
        if let Some(position) = transforms.iter().position(|it| matches!(it, Transform::TestTimeAug(_)))
            && position + 1 != transforms.len()
        {
            return Err(DataError::transform("TestTimeAug", "has to be the last of the pipeline"));
        }
        if let Some(position) = transforms.iter().position(|it| matches!(it, Transform::PackSegInputs(_)))
            && position + 1 != transforms.len()
        {
            return Err(DataError::transform("PackSegInputs", "has to be the last of the pipeline"));
        }
        Ok(Self { transforms })
    }

    /// Turns an entry of a dataset into its sample, or into several where the pipeline ends in `TestTimeAug`.
    pub fn run(&self, entry: Entry<'_>, rng: &mut Pcg64) -> Result<Vec<Sample>, DataError> {
        let mut frame = Frame::new(entry);
        for transform in &self.transforms {
            if let Transform::TestTimeAug(augmentation) = transform {
                return augmentation.run(frame, rng);
            }
            transform.apply(&mut frame, rng)?;
        }
        Ok(vec![frame.pack()?])
    }
}
