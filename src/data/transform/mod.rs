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
pub(in crate::data) use load::check_range;
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

impl Transform {
    /// The transforms that it holds, if it holds any.
    pub fn inner(&self) -> impl Iterator<Item = (String, &Self)> {
        let stages = if let Self::TestTimeAug(it) = self { &it.transforms[..] } else { &[] };
        let numbered = stages.iter().enumerate();
        numbered.flat_map(|(stage, all)| all.iter().enumerate().map(move |(at, it)| (format!("transforms.{stage}.{at}"), it)))
    }

    /// The label that this step takes for "no class", where its config says so, and the key that does.
    pub fn ignore_index(&self) -> Option<(&'static str, u8)> {
        match self {
            Self::RandomCrop(it) => it.ignore_index.map(|it| ("ignore_index", it)),
            Self::Pad(it) => {
                it.pad_val.seg.filter(|_| it.padding_mode == pad::PaddingMode::Constant).map(|it| ("pad_val.seg", it))
            }
            _ => None,
        }
    }

    /// Whether label maps are read by it.
    pub fn loads_labels(&self) -> bool {
        matches!(self, Self::LoadAnnotations(_)) || self.inner().any(|(_, it)| it.loads_labels())
    }
}

/// The same steps without those that read label maps.
pub fn unlabelled(transforms: &[Transform]) -> Vec<Transform> {
    let kept = transforms.iter().filter(|it| !matches!(it, Transform::LoadAnnotations(_))).cloned();
    let inside = kept.map(|it| match it {
        Transform::TestTimeAug(TestTimeAug { transforms }) => {
            let stages = transforms.iter().map(|stage| unlabelled(stage)).filter(|stage| !stage.is_empty());
            Transform::TestTimeAug(TestTimeAug { transforms: stages.collect() })
        }
        other => other,
    });
    inside.collect()
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

    /// Whether label maps are read.
    pub(in crate::data) fn loads_labels(&self) -> bool {
        self.transforms.iter().any(Transform::loads_labels)
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
