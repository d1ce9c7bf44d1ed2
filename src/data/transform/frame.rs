//! What travels through a pipeline: the views of an image and of its label map, and what is known
//! about them.

use std::path::Path;

use crate::data::{DataError, Image, LabelMap, Meta, Sample, View};

/// An entry of a dataset, to be loaded.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    pub index: usize,
    pub img_path: &'a Path,
    pub seg_map_path: Option<&'a Path>,
    pub rule: &'a LabelRule,
}

/// What a dataset's stored labels mean.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelRule {
    /// Stored 0 is nothing, stored 1 is class 0.
    pub reduce_zero_label: bool,
    /// The class of each label where a subset of the dataset's classes was chosen; applied after
    /// `reduce_zero_label`.
    pub label_map: Option<Box<[u8; 256]>>,
    pub ignore_index: u8,
    /// Labels from here on, except `ignore_index`, are errors; `None` accepts all.
    pub num_classes: Option<usize>,
}

/// A sample on its way through the pipeline.
#[derive(Debug, Clone)]
pub struct Frame<'a> {
    pub(super) image: Option<View<3>>,
    pub(super) label: Option<View<1>>,
    pub(super) meta: Meta,
    pub(super) rule: &'a LabelRule,
}

impl<'a> Frame<'a> {
    pub(super) fn new(entry: Entry<'a>) -> Self {
        let meta = Meta {
            img_path: entry.img_path.to_owned(),
            seg_map_path: entry.seg_map_path.map(Path::to_owned),
            ori_shape: (0, 0),
            img_shape: (0, 0),
            pad_shape: (0, 0),
            scale_factor: None,
            flip: false,
            flip_direction: None,
            reduce_zero_label: entry.rule.reduce_zero_label,
            sample_idx: entry.index,
            padding: false,
        };
        Self { image: None, label: None, meta, rule: entry.rule }
    }

    /// The image, or the error of a transform that came before `LoadImageFromFile`.
    pub(super) fn image(&mut self, name: &'static str) -> Result<&mut View<3>, DataError> {
        self.image.as_mut().ok_or_else(|| {
            DataError::transform(name, "needs an image: put LoadImageFromFile before it")
        })
    }

    /// What is known about the entry so far.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Changes the image's pixels, 8-bit blue, green, red; a transform of another size says it
    /// here. `name` is the transform that asks, for the error where no image was loaded yet.
    pub fn change_image(
        &mut self,
        name: &'static str,
        change: impl FnOnce(Image) -> Image,
    ) -> Result<(), DataError> {
        let view = self.image(name)?;
        *view = change(view.render()?).into();
        Ok(())
    }

    /// Changes the label map, where the pipeline has loaded one.
    pub fn change_label(
        &mut self,
        change: impl FnOnce(LabelMap) -> LabelMap,
    ) -> Result<(), DataError> {
        if let Some(view) = &mut self.label {
            *view = change(view.render()?).into();
        }
        Ok(())
    }

    /// Renders what is planned and hands the sample over.
    pub(super) fn pack(self) -> Result<Sample, DataError> {
        let Self { image, label, mut meta, .. } = self;
        let image = image
            .ok_or_else(|| {
                DataError::transform(
                    "PackSegInputs",
                    "needs an image: put LoadImageFromFile before it",
                )
            })?
            .into_raster()?;
        meta.img_shape = image.shape();
        if meta.pad_shape == (0, 0) {
            meta.pad_shape = image.shape();
        }
        let label = label.map(View::into_raster).transpose()?;
        Ok(Sample { image, label, meta })
    }
}
