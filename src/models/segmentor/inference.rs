//! From a batch to label maps at the images' own sizes: whole or in overlapping windows, as mmseg
//! does it.

use burn::tensor::{Int, Tensor};
use serde::Deserialize;

use super::Segmentor;
use crate::config::Pair;
use crate::geometry::FlipDirection;
use crate::models::{Forward, ModelError};
use crate::ops;

/// `model.test_cfg`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct InferenceConfig {
    pub mode: InferenceMode,
    /// Distance between windows (height, width), for `slide`.
    #[serde(deserialize_with = "crate::config::side")]
    pub stride: Option<Pair<usize>>,
    /// Size of a window (height, width), for `slide`.
    #[serde(deserialize_with = "crate::config::side")]
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
            size.filter(|it| !it.contains(&0)).ok_or_else(|| {
                ModelError::config(key, "mode slide needs two positive numbers, height and width")
            })
        };
        let (stride, crop) = (given("stride", self.stride)?, given("crop_size", self.crop_size)?);
        if stride[0] > crop[0] || stride[1] > crop[1] {
            let problem = format!(
                "{stride:?} is larger than crop_size {crop:?}: some pixels would be in no window"
            );
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

/// Maps of a mirrored image, mirrored back.
fn undo(flip: FlipDirection, x: Tensor<4>) -> Tensor<4> {
    match flip {
        FlipDirection::Horizontal => x.flip([3]),
        FlipDirection::Vertical => x.flip([2]),
        FlipDirection::Diagonal => x.flip([2, 3]),
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

/// Logits of more values than this (a gibibyte of them) are large.
const LARGE: usize = 1 << 28;

/// The windows that cover a batch of images.
struct Windows {
    /// Height and width of each.
    size: [usize; 2],
    tops: Vec<usize>,
    lefts: Vec<usize>,
}

impl Windows {
    fn new(images: &Tensor<4>, stride: [usize; 2], crop: [usize; 2]) -> Self {
        let [_, _, height, width] = images.dims();
        let size = [crop[0].min(height), crop[1].min(width)];
        Self {
            size,
            tops: starts(height, size[0], stride[0]),
            lefts: starts(width, size[1], stride[1]),
        }
    }

    fn is_one(&self) -> bool {
        self.tops.len() * self.lefts.len() == 1
    }
}

/// Starts of the windows that cover `length` with windows of `crop`; the last one ends at the end.
fn starts(length: usize, crop: usize, stride: usize) -> Vec<usize> {
    let count = length.saturating_sub(crop).div_ceil(stride) + 1;
    (0..count).map(|index| (index * stride + crop).min(length).saturating_sub(crop)).collect()
}

impl Segmentor {
    /// Logits `[n, c, h, w]` at the size of `images` `[n, 3, h, w]`, whole or in windows as
    /// `test_cfg` says.
    ///
    /// Run it on a model that left autodiff ([`predict`](Self::predict) does so itself), or every
    /// activation is kept.
    pub fn infer(&self, images: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        match self.inference() {
            Inference::Whole => self.encode_decode(images, ctx),
            Inference::Slide { stride, crop } => self.slide(&images, stride, crop, ctx),
        }
    }

    fn slide(
        &self,
        images: &Tensor<4>,
        stride: [usize; 2],
        crop: [usize; 2],
        ctx: &Forward,
    ) -> Tensor<4> {
        let windows = Windows::new(images, stride, crop);
        if windows.is_one() {
            return self.encode_decode(images.clone(), ctx);
        }
        let mut strips = Vec::new();
        self.strips(images, &windows, ctx, |strip| strips.push(strip));
        Tensor::cat(strips, 2)
    }

    /// Hands the logits of `images` to `take` in strips `[n, c, rows, w]` from the top, each as
    /// soon as no window is left that reaches into it. Only as many rows of sums are there at a
    /// time as a window is high: for all of a large picture's classes and pixels no memory may be
    /// large enough.
    fn strips(
        &self,
        images: &Tensor<4>,
        windows: &Windows,
        ctx: &Forward,
        mut take: impl FnMut(Tensor<4>),
    ) {
        let Windows { size: [rows, columns], tops, lefts } = windows;
        let [n, _, height, width] = images.dims();
        let mut sums =
            ops::WindowSums::new([n, self.out_channels(), *rows, width], &images.device());
        for (index, &top) in tops.iter().enumerate() {
            for &left in lefts {
                let window = ops::window(images, [top, left], [*rows, *columns]);
                sums.add(left, &self.encode_decode(window, ctx));
            }
            let next = tops.get(index + 1).copied().unwrap_or(height);
            take(sums.finish(next - top));
        }
    }

    /// The logits of each image `[1, c, h, w]` at its own size: padding removed, flip undone,
    /// resized to `ori_shape`.
    pub fn seg_logits(
        &self,
        images: Tensor<4>,
        geometry: &[Geometry],
        ctx: &Forward,
    ) -> Vec<Tensor<4>> {
        let resized = |(logits, it): (Tensor<4>, &Geometry)| {
            ops::resize_bilinear(logits, it.ori_shape, self.align_corners())
        };
        self.upright_logits(images, geometry, ctx).into_iter().zip(geometry).map(resized).collect()
    }

    /// The class of each pixel of each image at its own size: those of
    /// [`seg_logits`](Self::seg_logits), which are not made.
    ///
    /// In windows, finished rows become labels while later windows are still to come, and only a
    /// strip of logits is there at a time. Where that would cost something (a GPU resizes faster
    /// than the CPU, a flip begins at the other end) it is done for pictures whose logits are
    /// large.
    pub fn label_maps(
        &self,
        images: Tensor<4>,
        geometry: &[Geometry],
        ctx: &Forward,
    ) -> Vec<Segmentation> {
        if let Inference::Slide { stride, crop } = self.inference()
            && self.out_channels() > 1
            && geometry.iter().all(|it| it.flip.is_none())
        {
            let windows = Windows::new(&images, stride, crop);
            let free = ops::is_full_precision_on_cpu(&images)
                || geometry.iter().all(|it| it.img_shape == it.ori_shape);
            let [n, _, height, width] = images.dims();
            if !windows.is_one() && (free || n * self.out_channels() * height * width > LARGE) {
                return self.label_maps_by_strips(&images, &windows, geometry, ctx);
            }
        }
        let one = |(logits, it): (Tensor<4>, &Geometry)| {
            if self.out_channels() == 1 {
                return self.classify(&ops::resize_bilinear(
                    logits,
                    it.ori_shape,
                    self.align_corners(),
                ));
            }
            segmentation(&ops::resized_label_map(&logits, it.ori_shape, self.align_corners()))
        };
        self.upright_logits(images, geometry, ctx).into_iter().zip(geometry).map(one).collect()
    }

    fn label_maps_by_strips(
        &self,
        images: &Tensor<4>,
        windows: &Windows,
        geometry: &[Geometry],
        ctx: &Forward,
    ) -> Vec<Segmentation> {
        let [n, _, height, width] = images.dims();
        assert_eq!(n, geometry.len(), "one geometry for each image");
        let kept = |it: &Geometry| [it.img_shape[0].min(height), it.img_shape[1].min(width)];
        let new =
            |it: &Geometry| ops::LabelStrips::new(kept(it), it.ori_shape, self.align_corners());
        let mut maps: Vec<_> = geometry.iter().map(new).collect();
        let mut taken = 0;
        self.strips(images, windows, ctx, |strip| {
            let [_, channels, rows, _] = strip.dims();
            for (index, (map, it)) in maps.iter_mut().zip(geometry).enumerate() {
                let [height, width] = kept(it);
                // Below it and on its right there is padding.
                let rows = rows.min(height.saturating_sub(taken));
                if rows > 0 {
                    map.push(&strip.clone().slice([
                        index..index + 1,
                        0..channels,
                        0..rows,
                        0..width,
                    ]));
                }
            }
            taken += rows;
        });
        maps.into_iter().map(|it| segmentation(&it.finish())).collect()
    }

    /// The logits of each image `[1, c, h, w]` at the size it left the pipeline with: padding
    /// removed, flip undone.
    fn upright_logits(
        &self,
        images: Tensor<4>,
        geometry: &[Geometry],
        ctx: &Forward,
    ) -> Vec<Tensor<4>> {
        let logits = self.infer(images, ctx);
        let [n, channels, height, width] = logits.dims();
        assert_eq!(n, geometry.len(), "one geometry for each image");
        let one = |(index, it): (usize, &Geometry)| {
            let [h, w] = [it.img_shape[0].min(height), it.img_shape[1].min(width)];
            let logits = logits.clone().slice([index..index + 1, 0..channels, 0..h, 0..w]);
            it.flip.map_or(logits.clone(), |flip| undo(flip, logits))
        };
        geometry.iter().enumerate().map(one).collect()
    }

    /// The class of each pixel from logits `[1, c, h, w]`: the largest, or for one channel the
    /// threshold's side.
    pub fn classify(&self, logits: &Tensor<4>) -> Segmentation {
        let [_, channels, ..] = logits.dims();
        if channels > 1 {
            return segmentation(&ops::label_map(logits));
        }
        segmentation(&ops::foreground(logits, self.threshold()))
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
    let data = ops::to_tch(labels).bytes();
    Segmentation { height, width, data }
}
