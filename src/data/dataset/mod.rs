//! Datasets: where the files of each entry are and what their labels mean.
//!
//! Every dataset is a folder dataset with its own defaults; `RepeatDataset` and `ConcatDataset` put
//! datasets together.

mod entry;
mod folder;
mod kind;
mod listing;
mod palette;
mod source;
mod survey;

use std::path::PathBuf;

use rand_pcg::Pcg64;
use serde::Deserialize;

pub use folder::{BaseSegDataset, DataPrefix, Folder, Indices, MetaInfoConfig};
pub use kind::DatasetKind;
use kind::dataset_types;
pub use source::Source;
pub use survey::{Look, Survey};

use super::{DataError, Sample};
use crate::config::{Own, Slot};

dataset_types! {
    /// The `dataset` section of a dataloader; the variant is its `type`.
    DatasetConfig {
        ADE20KDataset: "ade20k.yaml",
        BDD100KDataset: "bdd100k.yaml",
        COCOStuffDataset: "coco_stuff.yaml",
        ChaseDB1Dataset: "chase_db1.yaml",
        CityscapesDataset: "cityscapes.yaml",
        DRIVEDataset: "drive.yaml",
        DarkZurichDataset: "dark_zurich.yaml",
        HRFDataset: "hrf.yaml",
        ISPRSDataset: "isprs.yaml",
        LIPDataset: "lip.yaml",
        LoveDADataset: "loveda.yaml",
        MapillaryDataset_v1: "mapillary_v1.yaml",
        MapillaryDataset_v2: "mapillary_v2.yaml",
        NightDrivingDataset: "night_driving.yaml",
        PascalContextDataset: "pascal_context.yaml",
        PascalContextDataset59: "pascal_context_59.yaml",
        PascalVOCDataset: "voc.yaml",
        PotsdamDataset: "potsdam.yaml",
        REFUGEDataset: "refuge.yaml",
        STAREDataset: "stare.yaml",
        SynapseDataset: "synapse.yaml",
        iSAIDDataset: "isaid.yaml",
        --
        RepeatDataset(RepeatDataset),
        ConcatDataset(ConcatDataset),
        /// One of a user's own kind.
        #[serde(rename = "segslurm::config::Own")]
        Own(Own<OwnDataset>),
    }
}

/// A folder dataset of a user's own [`DatasetKind`].
#[derive(Debug, Clone)]
pub struct OwnDataset {
    pub kind: DatasetKind,
    pub config: BaseSegDataset,
}

impl Slot for OwnDataset {
    const NAME: &'static str = "segslurm::config::Own DatasetConfig";
}

/// The same dataset several times over in one epoch.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepeatDataset {
    pub dataset: Box<DatasetConfig>,
    #[serde(deserialize_with = "crate::config::positive")]
    pub times: usize,
    /// Without effect: files are always listed at the start.
    #[serde(default)]
    pub lazy_init: bool,
}

/// Datasets of the same classes, one after the other.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConcatDataset {
    pub datasets: Vec<DatasetConfig>,
    /// Without effect: files are always listed at the start.
    #[serde(default)]
    pub lazy_init: bool,
}

/// What the labels of a dataset mean.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetaInfo {
    /// Class names, in the order of their labels.
    pub classes: Vec<String>,
    /// A red, green, blue for each class.
    pub palette: Vec<[u8; 3]>,
}

/// Entries, and the pipeline that turns each into a sample.
#[derive(Debug, Clone, PartialEq)]
pub enum Dataset {
    Folder(Folder),
    Repeat(Box<Dataset>, usize),
    Concat(Vec<Dataset>),
}

impl DatasetConfig {
    /// Lists the files and checks the pipeline.
    pub fn init(&self) -> Result<Dataset, DataError> {
        if let Some((config, kind)) = self.folder() {
            return Folder::init(config, kind).map(Dataset::Folder);
        }
        match self {
            Self::RepeatDataset(RepeatDataset { dataset, times, .. }) => {
                if *times == 0 {
                    return Err(DataError::Dataset {
                        name: "RepeatDataset".into(),
                        reason: "times has to be at least 1".into(),
                    });
                }
                Ok(Dataset::Repeat(Box::new(dataset.init()?), *times))
            }
            Self::ConcatDataset(ConcatDataset { datasets, .. }) => {
                let parts: Vec<Dataset> =
                    datasets.iter().map(Self::init).collect::<Result<_, _>>()?;
                let refuse = |reason: &str| {
                    Err(DataError::Dataset { name: "ConcatDataset".into(), reason: reason.into() })
                };
                let Some(first) = parts.first() else {
                    return refuse("datasets is empty");
                };
                if parts.iter().any(|part| part.metainfo() != first.metainfo()) {
                    return refuse(
                        "the datasets have different classes or palettes; they have to agree",
                    );
                }
                if parts.iter().any(|part| part.ignore_index() != first.ignore_index()) {
                    return refuse(
                        "the datasets have different values of ignore_index; they have to agree",
                    );
                }
                Ok(Dataset::Concat(parts))
            }
            _ => unreachable!("all others are folders"),
        }
    }
}

impl Dataset {
    /// How many entries there are; at least one.
    pub fn len(&self) -> usize {
        match self {
            Self::Folder(folder) => folder.len(),
            Self::Repeat(dataset, times) => dataset.len() * times,
            Self::Concat(parts) => parts.iter().map(Self::len).sum(),
        }
    }

    /// Never: a dataset without entries is an error when it is made.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn metainfo(&self) -> &MetaInfo {
        &self.first().metainfo
    }

    pub fn ignore_index(&self) -> u8 {
        self.first().rule.ignore_index
    }

    pub fn reduce_zero_label(&self) -> bool {
        self.first().rule.reduce_zero_label
    }

    /// Labels are the model's from now on: those from `num_classes` on are errors, but for the
    /// model's `ignore_index`.
    #[must_use]
    pub fn for_model(mut self, num_classes: usize, ignore_index: i64) -> Self {
        self.folders(&mut |folder| {
            folder.rule.num_classes = Some(num_classes);
            // A number that no label map can hold leaves nothing out.
            folder.rule.ignore_index =
                u8::try_from(ignore_index).unwrap_or(folder.rule.ignore_index);
        });
        self
    }

    /// Where entry `index` is read from: its image and its label map.
    pub fn paths(&self, index: usize) -> (PathBuf, Option<PathBuf>) {
        let (folder, index) = self.find(index);
        folder.paths(index)
    }

    /// The path of entry `index`'s image below its image folder, and which of the joined datasets
    /// it belongs to.
    pub fn below(&self, index: usize) -> (usize, PathBuf) {
        match self {
            Self::Folder(folder) => (0, folder.below(index)),
            Self::Repeat(dataset, _) => dataset.below(index % dataset.len()),
            Self::Concat(parts) => {
                let mut start = 0;
                for (number, part) in parts.iter().enumerate() {
                    if index < start + part.len() {
                        return (number, part.below(index - start).1);
                    }
                    start += part.len();
                }
                panic!("entry {index} past the end of the dataset")
            }
        }
    }

    /// Entry `index` after the pipeline: one sample, the first where the pipeline ends in
    /// `TestTimeAug`.
    pub fn sample(&self, index: usize, rng: &mut Pcg64) -> Result<Sample, DataError> {
        self.samples(index, rng).map(|mut samples| samples.swap_remove(0))
    }

    /// Entry `index` after the pipeline: several samples where it ends in `TestTimeAug`, else one.
    pub fn samples(&self, index: usize, rng: &mut Pcg64) -> Result<Vec<Sample>, DataError> {
        let (folder, inner) = self.find(index);
        let mut samples = folder.samples(inner, rng)?;
        samples.iter_mut().for_each(|sample| sample.meta.sample_idx = index);
        Ok(samples)
    }

    /// The folder that holds entry `index`, and its index there.
    fn find(&self, mut index: usize) -> (&Folder, usize) {
        match self {
            Self::Folder(folder) => (folder, index),
            Self::Repeat(dataset, _) => dataset.find(index % dataset.len()),
            Self::Concat(parts) => {
                for part in parts {
                    if index < part.len() {
                        return part.find(index);
                    }
                    index -= part.len();
                }
                panic!("entry {index} past the end of the dataset")
            }
        }
    }

    fn first(&self) -> &Folder {
        match self {
            Self::Folder(folder) => folder,
            Self::Repeat(dataset, _) => dataset.first(),
            Self::Concat(parts) => parts[0].first(),
        }
    }

    fn folders(&mut self, change: &mut dyn FnMut(&mut Folder)) {
        match self {
            Self::Folder(folder) => change(folder),
            Self::Repeat(dataset, _) => dataset.folders(change),
            Self::Concat(parts) => parts.iter_mut().for_each(|part| part.folders(change)),
        }
    }
}
