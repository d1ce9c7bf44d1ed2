//! From a batch to label maps at the images' own sizes: whole or in overlapping windows, as mmseg does it.

use burn::tensor::{Int, Tensor};
use serde::Deserialize;

use super::{Forward, ModelError, Segmentor};
use crate::config::Pair;
use crate::ops;

/// `model.test_cfg`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct InferenceConfig {
    pub mode: InferenceMode,
    /// Distance between windows (height, width), for `slide`.
    pub stride: Option<Pair<usize>>,
    /// Size of a window (height, width), for `slide`.
    pub crop_size: Option<Pair<usize>>,
}

impl Default for InferenceConfig {
    fn default() -> Self {
        Self { mode: InferenceMode::Whole, stride: None, crop_size: None }
    }
}

/// Whether an image is seen at once.
#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum InferenceMode {
    #[default]
    Whole,
    Slide,
}

impl InferenceConfig {
    /// Errors name keys below `test_cfg`.
    pub(super) fn init(&self) -> Result<Inference, ModelError> {
        if self.mode == InferenceMode::Whole {
            return Ok(Inference::Whole);
        }
        let given = |key: &str, value: Option<Pair<usize>>| {
            let size: Option<[usize; 2]> = value.map(|Pair(it)| it);
            size.filter(|it| !it.contains(&0))
                .ok_or_else(|| ModelError::config(key, "mode slide needs two positive numbers, height and width"))
        };
        let (stride, crop) = (given("stride", self.stride)?, given("crop_size", self.crop_size)?);
        if stride[0] > crop[0] || stride[1] > crop[1] {
            let problem = format!("{stride:?} is larger than crop_size {crop:?}: some pixels would be in no window");
            return Err(ModelError::config("stride", problem));
        }
        Ok(Inference::Slide { stride, crop })
    }
}

/// How logits of a batch are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inference {
    Whole,
    Slide { stride: [usize; 2], crop: [usize; 2] },
}

/// What happened to an image on its way to the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Height and width after the pipeline, before padding.
    pub img_shape: [usize; 2],
    /// Height and width of the image as it was read.
    pub ori_shape: [usize; 2],
    pub flip: Option<FlipDirection>,
}

/// Which way an image was mirrored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlipDirection {
    Horizontal,
    Vertical,
    Diagonal,
}

impl FlipDirection {
    fn undo(self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Horizontal => x.flip([3]),
            Self::Vertical => x.flip([2]),
            Self::Diagonal => x.flip([2, 3]),
        }
    }
}

/// The class of every pixel of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segmentation {
    pub height: usize,
    pub width: usize,
    /// Row by row.
    pub data: Vec<u8>,
}

/// Starts of the windows that cover `length` with windows of `crop`; the last one ends at the end.
fn starts(length: usize, crop: usize, stride: usize) -> Vec<usize> {
    let count = length.saturating_sub(crop).div_ceil(stride) + 1;
    (0..count).map(|index| (index * stride + crop).min(length).saturating_sub(crop)).collect()
}

impl Segmentor {
    /// Logits `[n, c, h, w]` at the size of `images` `[n, 3, h, w]`, whole or in windows as `test_cfg` says.
    ///
    /// Run it on a model that left autodiff ([`predict`](Self::predict) does so itself), or every activation is kept.
    pub fn infer(&self, images: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        match self.inference() {
            Inference::Whole => self.encode_decode(images, ctx),
            Inference::Slide { stride, crop } => self.slide(&images, stride, crop, ctx),
        }
    }

    fn slide(&self, images: &Tensor<4>, stride: [usize; 2], crop: [usize; 2], ctx: &Forward) -> Tensor<4> {
        let [n, _, height, width] = images.dims();
        let window = [crop[0].min(height), crop[1].min(width)];
        let (rows, columns) = (starts(height, window[0], stride[0]), starts(width, window[1], stride[1]));
        if let ([_], [_]) = (rows.as_slice(), columns.as_slice()) {
            return self.encode_decode(images.clone(), ctx);
        }
        let area =
            |x: &tch::Tensor, [y, x0]: [usize; 2]| x.narrow(2, y as i64, window[0] as i64).narrow(3, x0 as i64, window[1] as i64);
        let device = images.device();
        let source = ops::to_tch(images);
        let options = (source.kind(), source.device());
        let sum = tch::Tensor::zeros([n, self.out_channels(), height, width].map(|it| it as i64), options);
        let mut count = tch::Tensor::zeros([1, 1, height as i64, width as i64], options);
        for &y in &rows {
            for &x in &columns {
                let part = ops::from_tch(area(&source, [y, x]).contiguous(), &device);
                let logits = ops::to_tch(&self.encode_decode(part, ctx));
                let _ = area(&sum, [y, x]).g_add_(&logits);
                let _ = area(&count, [y, x]).g_add_scalar_(1.0);
            }
        }
        let _ = count.clamp_min_(1.0);
        ops::from_tch(sum / count, &device)
    }

    /// The logits of each image `[1, c, h, w]` at its own size: padding removed, flip undone, resized to `ori_shape`.
    pub fn seg_logits(&self, images: Tensor<4>, geometry: &[Geometry], ctx: &Forward) -> Vec<Tensor<4>> {
        let resized = |(logits, it): (Tensor<4>, &Geometry)| ops::resize_bilinear(logits, it.ori_shape, self.align_corners());
        self.upright_logits(images, geometry, ctx).into_iter().zip(geometry).map(resized).collect()
    }

    /// The class of each pixel of each image at its own size: those of [`seg_logits`](Self::seg_logits), which are not made.
    pub fn label_maps(&self, images: Tensor<4>, geometry: &[Geometry], ctx: &Forward) -> Vec<Segmentation> {
        let one = |(logits, it): (Tensor<4>, &Geometry)| {
            if self.out_channels() == 1 {
                return self.classify(&ops::resize_bilinear(logits, it.ori_shape, self.align_corners()));
            }
            segmentation(&ops::resized_label_map(&logits, it.ori_shape, self.align_corners()))
        };
        self.upright_logits(images, geometry, ctx).into_iter().zip(geometry).map(one).collect()
    }

    /// The logits of each image `[1, c, h, w]` at the size it left the pipeline with: padding removed, flip undone.
    fn upright_logits(&self, images: Tensor<4>, geometry: &[Geometry], ctx: &Forward) -> Vec<Tensor<4>> {
        let logits = self.infer(images, ctx);
        let [n, channels, height, width] = logits.dims();
        assert_eq!(n, geometry.len(), "one geometry for each image");
        let one = |(index, it): (usize, &Geometry)| {
            let [h, w] = [it.img_shape[0].min(height), it.img_shape[1].min(width)];
            let logits = logits.clone().slice([index..index + 1, 0..channels, 0..h, 0..w]);
            it.flip.map_or(logits.clone(), |flip| flip.undo(logits))
        };
        geometry.iter().enumerate().map(one).collect()
    }

    /// The class of each pixel from logits `[1, c, h, w]`: the largest, or for one channel the threshold's side.
    pub fn classify(&self, logits: &Tensor<4>) -> Segmentation {
        let [_, channels, ..] = logits.dims();
        if channels > 1 {
            return segmentation(&ops::label_map(logits));
        }
        let labels = ops::to_tch(logits).sigmoid().gt(self.threshold()).to_kind(tch::Kind::Uint8).squeeze_dim(1);
        segmentation(&ops::from_tch(labels, &logits.device()))
    }

    /// The label map of every image of a batch, each at its `ori_shape`.
    pub fn predict(&self, images: Tensor<4>, geometry: &[Geometry]) -> Vec<Segmentation> {
        use burn::module::Module as _;
        let model = self.valid();
        model.label_maps(images.without_autodiff(), geometry, &Forward::default())
    }
}

/// Labels `[1, h, w]` stored as bytes, on the host.
fn segmentation(labels: &Tensor<3, Int>) -> Segmentation {
    let [_, height, width] = labels.dims();
    let labels = ops::to_tch(labels).to_device(tch::Device::Cpu).contiguous().flatten(0, -1);
    let mut data = vec![0; height * width];
    labels.copy_data_u8(&mut data, height * width);
    Segmentation { height, width, data }
}
