//! What the loader hands out: samples, and what is known about each.

use std::path::PathBuf;

use crate::geometry::FlipDirection;

use super::{Image, LabelMap};

/// Samples of one step, in the sampler's order. They are stacked or padded on the device by the
/// model's preprocessor.
///
/// With `TestTimeAug` one entry of the dataset gives several samples, which follow each other and
/// share `meta.sample_idx`.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    pub samples: Vec<Sample>,
}

/// One image as the pipeline left it, with its label map if the pipeline loads one.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// 8-bit blue, green, red.
    pub image: Image,
    /// The class of each pixel, or `ignore_index`. Of the image's size, unless the label map was
    /// loaded after a resize, as test pipelines do: then of `ori_shape`.
    pub label: Option<LabelMap>,
    pub meta: Meta,
}

/// Where a sample came from and what happened to it. Shapes are (height, width).
#[derive(Debug, Clone, PartialEq)]
pub struct Meta {
    pub img_path: PathBuf,
    pub seg_map_path: Option<PathBuf>,
    /// The image's size on disk (after its EXIF orientation).
    pub ori_shape: (usize, usize),
    /// The image's size as it leaves the pipeline.
    pub img_shape: (usize, usize),
    /// The image's size after `Pad`, else `img_shape`.
    pub pad_shape: (usize, usize),
    /// What the last resize multiplied (width, height) by.
    pub scale_factor: Option<(f64, f64)>,
    pub flip: bool,
    pub flip_direction: Option<FlipDirection>,
    pub reduce_zero_label: bool,
    /// The entry's index in the dataset.
    pub sample_idx: usize,
    /// A copy that `DefaultSampler`'s `round_up` appended so that every rank has as many: a metric
    /// must not count it.
    pub padding: bool,
}
