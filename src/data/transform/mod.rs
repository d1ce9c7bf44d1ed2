//! The steps of a `pipeline`, with mmcv's and mmseg's names, parameters and semantics; one per
//! file.
//!
//! A transform is its own config: parsed, checked once by [`Pipeline::init`], and then applied to a
//! [`Frame`] with a random generator. Transforms that only move pixels plan on the frame's views;
//! those that change values render them.

mod crop;
mod flip;
mod frame;
mod load;
mod pack;
mod pad;
mod photometric;
mod resize;
mod test_time_aug;

use std::fmt::Debug;
use std::path::Path;

use rand_pcg::Pcg64;
use serde::Deserialize;

pub use crop::RandomCrop;
pub use flip::RandomFlip;
pub use frame::{Entry, Frame, LabelRule};
pub use load::{BackendArgs, LoadAnnotations, LoadImageFromFile};
pub(in crate::data) use load::{check_range, check_size};
pub use pack::PackSegInputs;
pub use pad::Pad;
pub use photometric::{Distortion, PhotoMetricDistortion};
pub use resize::{RandomChoiceResize, RandomResize, Resize, ResizeShortestEdge, ResizeToMultiple};
pub use test_time_aug::TestTimeAug;

use super::{DataError, Sample, View};
use crate::config::{Own, Slot};

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
    /// One of a user's own.
    #[serde(rename = "segslurm::config::Own")]
    Own(Own<dyn RunTransform>),
}

/// A transform of one's own: a config that is parsed, checked once, and applied to every frame.
pub trait RunTransform: Debug + Send + Sync {
    /// Refuses settings that could never work.
    fn check(&self) -> Result<(), DataError> {
        Ok(())
    }

    /// Changes a frame. All chance comes from `rng`, which is the entry's own: the same run has the
    /// same images.
    fn apply(&self, frame: &mut Frame, rng: &mut Pcg64) -> Result<(), DataError>;
}

impl Slot for dyn RunTransform {
    const NAME: &'static str = "segslurm::config::Own Transform";
}

impl Transform {
    /// Refuses settings that could never work.
    fn check(&self) -> Result<(), DataError> {
        match self {
            Self::LoadImageFromFile(it) => it.check(),
            Self::Resize(it) => it.check(),
            Self::RandomResize(it) => it.check(),
            Self::RandomChoiceResize(it) => it.check(),
            Self::ResizeShortestEdge(it) => it.check(),
            Self::ResizeToMultiple(it) => it.check(),
            Self::RandomCrop(it) => it.check(),
            Self::RandomFlip(it) => it.check(),
            Self::PhotoMetricDistortion(it) => it.check(),
            Self::Pad(it) => it.check(),
            Self::TestTimeAug(it) => it.check(),
            Self::Own(it) => it.check(),
            Self::LoadAnnotations(_) | Self::PackSegInputs(_) => Ok(()),
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
            Self::Own(it) => it.apply(frame, rng),
            // Packing is what `Frame::pack` does at the pipeline's end; several views are
            // `Pipeline::run`'s matter.
            Self::PackSegInputs(_) | Self::TestTimeAug(_) => Ok(()),
        }
    }
}

impl Transform {
    /// The transforms that it holds, if it holds any.
    pub fn inner(&self) -> impl Iterator<Item = (String, &Self)> {
        let stages = if let Self::TestTimeAug(it) = self { &it.transforms[..] } else { &[] };
        let numbered = stages.iter().enumerate();
        numbered.flat_map(|(stage, all)| {
            all.iter().enumerate().map(move |(at, it)| (format!("transforms.{stage}.{at}"), it))
        })
    }

    /// The label that this step takes for "no class", where its config says so, and the key that
    /// does.
    pub fn ignore_index(&self) -> Option<(&'static str, u8)> {
        match self {
            Self::RandomCrop(it) => it.ignore_index.map(|it| ("ignore_index", it)),
            Self::Pad(it) => it
                .pad_val
                .seg
                .filter(|_| it.padding_mode == pad::PaddingMode::Constant)
                .map(|it| ("pad_val.seg", it)),
            _ => None,
        }
    }

    /// What it says of `reduce_zero_label` itself.
    pub fn reduce_zero_label(&self) -> Option<bool> {
        if let Self::LoadAnnotations(it) = self { it.reduce_zero_label } else { None }
    }

    /// Whether label maps are read by it.
    pub fn loads_labels(&self) -> bool {
        matches!(self, Self::LoadAnnotations(_)) || self.inner().any(|(_, it)| it.loads_labels())
    }
}

/// All steps, those that hold others before what they hold, each with its place below `pipeline`.
pub fn steps(transforms: &[Transform]) -> impl Iterator<Item = (String, &Transform)> {
    transforms.iter().enumerate().flat_map(|(index, step)| {
        let inner = step.inner().map(move |(inner, step)| (format!("{index}.{inner}"), step));
        std::iter::once((index.to_string(), step)).chain(inner)
    })
}

/// Everything that is wrong with the steps by themselves and with their order, each with its place.
pub fn problems(transforms: &[Transform]) -> Vec<(String, DataError)> {
    let last = transforms.len().saturating_sub(1);
    let out_of_order =
        transforms.iter().enumerate().filter(|(index, _)| *index != last).filter_map(
            |(index, step)| {
                let name = match step {
                    Transform::TestTimeAug(_) => "TestTimeAug",
                    Transform::PackSegInputs(_) => "PackSegInputs",
                    _ => return None,
                };
                Some((
                    index.to_string(),
                    DataError::transform(name, "has to be the last of the pipeline"),
                ))
            },
        );
    steps(transforms)
        .filter_map(|(at, step)| Some((at, step.check().err()?)))
        .chain(out_of_order)
        .collect()
}

/// The same steps without those that read label maps.
pub fn unlabelled(transforms: &[Transform]) -> Vec<Transform> {
    let kept = transforms.iter().filter(|it| !matches!(it, Transform::LoadAnnotations(_))).cloned();
    let inside = kept.map(|it| match it {
        Transform::TestTimeAug(TestTimeAug { transforms }) => {
            let stages =
                transforms.iter().map(|stage| unlabelled(stage)).filter(|stage| !stage.is_empty());
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
    /// Checks every transform's settings and their order.
    pub fn init(transforms: Vec<Transform>) -> Result<Self, DataError> {
        match problems(&transforms).into_iter().next() {
            Some((_, problem)) => Err(problem),
            None => Ok(Self { transforms }),
        }
    }

    /// An image as the pipeline loads it.
    pub(in crate::data) fn image(&self, path: &Path) -> Result<View<3>, DataError> {
        let load = self.transforms.iter().find_map(|it| {
            if let Transform::LoadImageFromFile(load) = it { Some(load) } else { None }
        });
        load.unwrap_or(&LoadImageFromFile::default()).image(path)
    }

    /// Whether label maps are read.
    pub(in crate::data) fn loads_labels(&self) -> bool {
        self.transforms.iter().any(Transform::loads_labels)
    }

    /// Turns an entry of a dataset into its sample, or into several where the pipeline ends in
    /// `TestTimeAug`.
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
