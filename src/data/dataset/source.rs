//! What a config says of a dataset's labels, known without one of its files: for checks before any
//! queue or device.

use std::path::PathBuf;

use super::{BaseSegDataset, ConcatDataset, DatasetConfig, DatasetKind, RepeatDataset, folder};
use crate::data::{Transform, transform};

/// A folder dataset as its config describes it.
#[derive(Clone)]
pub struct Source<'a> {
    /// Where it stands in the config.
    pub key: String,
    config: &'a BaseSegDataset,
    kind: &'a DatasetKind,
}

impl DatasetConfig {
    /// The folder datasets that it is put together from; `key` is its own place.
    pub fn sources(&self, key: &str) -> Vec<Source<'_>> {
        if let Some((config, kind)) = self.folder() {
            return vec![Source { key: key.to_owned(), config, kind }];
        }
        match self {
            Self::RepeatDataset(RepeatDataset { dataset, .. }) => {
                dataset.sources(&format!("{key}.dataset"))
            }
            Self::ConcatDataset(ConcatDataset { datasets, .. }) => {
                let parts = datasets.iter().enumerate();
                parts
                    .flat_map(|(index, it)| it.sources(&format!("{key}.datasets.{index}")))
                    .collect()
            }
            _ => unreachable!("all others are folders"),
        }
    }

    /// The pipelines of all its folder datasets, to be changed.
    pub fn pipelines(&mut self) -> Vec<&mut Vec<Transform>> {
        match self {
            Self::RepeatDataset(it) => it.dataset.pipelines(),
            Self::ConcatDataset(it) => it.datasets.iter_mut().flat_map(Self::pipelines).collect(),
            other => other.folder_mut().into_iter().map(|it| &mut it.pipeline).collect(),
        }
    }
}

impl Source<'_> {
    /// The dataset's `type`.
    pub fn name(&self) -> &'static str {
        self.kind.name
    }

    /// Whether the `type` brings classes.
    pub fn has_own_classes(&self) -> bool {
        !self.kind.classes.is_empty()
    }

    /// Where the names of its classes come from: a key, or the `type`.
    pub fn classes_key(&self) -> String {
        let given = self.config.metainfo.as_ref().is_some_and(|it| it.classes.is_some());
        if given || !self.has_own_classes() {
            format!("{}.metainfo.classes", self.key)
        } else {
            format!("{} ({})", self.key, self.kind.name)
        }
    }

    /// The names of its classes, where they can be known.
    pub fn classes(&self) -> Option<Vec<String>> {
        folder::names(self.config.metainfo.as_ref(), self.kind).ok()
    }

    /// Everything that is wrong with its names and colours by themselves.
    pub fn problems(&self) -> Vec<String> {
        let problems =
            folder::classes(self.config.metainfo.as_ref(), self.kind).err().unwrap_or_default();
        problems.into_iter().map(|it| format!("{}.{it}", self.key)).collect()
    }

    /// The label that means "no class", where the config says so, and the key that does; loading
    /// makes 255 of what `reduce_zero_label` or a choice of classes leaves out.
    pub fn ignore_index(&self) -> Vec<(String, u8)> {
        let Self { key, config, kind } = self;
        let mut said = Vec::new();
        said.extend(config.ignore_index.map(|it| (format!("{key}.ignore_index"), it)));
        if self.reduce_zero_label() {
            said.push((format!("{key}.reduce_zero_label (which makes 255 of 0)"), 255));
        }
        if folder::classes(config.metainfo.as_ref(), kind)
            .is_ok_and(|(_, label_map)| label_map.is_some())
        {
            said.push((
                format!(
                    "{key}.metainfo.classes (which makes 255 of the classes that it leaves out)"
                ),
                255,
            ));
        }
        said
    }

    /// Whether a stored 0 means "no class" and 1 the first one.
    pub fn reduce_zero_label(&self) -> bool {
        self.config.reduce_zero_label.unwrap_or(self.kind.reduce_zero_label)
    }

    /// Whether the config says so, rather than the `type` alone.
    pub fn says_reduce_zero_label(&self) -> bool {
        self.config.reduce_zero_label.is_some()
    }

    /// The steps of its pipeline that say otherwise of `reduce_zero_label`, by their keys.
    pub fn reduces_otherwise(&self) -> Vec<String> {
        let otherwise = transform::steps(self.pipeline()).filter(|(_, step)| {
            step.reduce_zero_label().is_some_and(|it| it != self.reduce_zero_label())
        });
        otherwise.map(|(at, _)| format!("{}.pipeline.{at}.reduce_zero_label", self.key)).collect()
    }

    /// Whether both read the same files.
    pub fn same_files(&self, other: &Self) -> bool {
        let files = |it: &Self| {
            (
                it.config.img_dir(),
                it.config.ann_file.clone().filter(|it| !it.as_os_str().is_empty()),
                it.config.indices.clone(),
            )
        };
        files(self) == files(other)
    }

    /// Why its entries come without labels, if they do.
    pub fn unlabelled(&self) -> Option<&'static str> {
        if self.config.data_prefix.seg_map_path.is_none() {
            return Some("data_prefix.seg_map_path is left out");
        }
        let loads = self.pipeline().iter().any(Transform::loads_labels);
        (!loads).then_some("its pipeline has no LoadAnnotations")
    }

    pub fn pipeline(&self) -> &[Transform] {
        &self.config.pipeline
    }

    /// Its folders of images and of label maps.
    pub fn folders(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        let images = ("image folder", self.config.img_dir());
        std::iter::once(images).chain(self.config.seg_map_dir().map(|it| ("label map folder", it)))
    }
}
