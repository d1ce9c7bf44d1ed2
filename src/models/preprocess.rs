//! mmseg's `SegDataPreProcessor`: images as bytes become normalised, padded batches on the device.

use burn::tensor::{Device, Int, Tensor};
use serde::Deserialize;

use super::ModelError;
use crate::config::NotOffered;
use crate::config::Typed;
pub use crate::ops::Pixels;
use crate::ops::{Constant, Layout, MemoryFormat, Uploads};

/// The keys of `type: SegDataPreProcessor`.
#[derive(Debug, Clone, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct SegDataPreProcessorConfig {
    /// Means of the channels, in the order after `bgr_to_rgb`; without `mean` and `std` values stay
    /// 0 to 255.
    #[serde(default)]
    pub mean: Option<Vec<f64>>,
    #[serde(default)]
    pub std: Option<Vec<f64>>,
    /// Pad training images to this size (height, width).
    #[serde(default)]
    pub size: Option<[usize; 2]>,
    /// Pad training images to the batch's largest size, rounded up to a multiple of this.
    #[serde(default)]
    #[serde(deserialize_with = "crate::config::positive")]
    pub size_divisor: Option<usize>,
    /// What normalised images are padded with.
    #[serde(default)]
    pub pad_val: f64,
    /// What labels are padded with; the model's `ignore_index` unless given.
    #[serde(default)]
    pub seg_pad_val: Option<u8>,
    #[serde(default)]
    pub bgr_to_rgb: bool,
    #[serde(default)]
    pub rgb_to_bgr: bool,
    #[serde(default)]
    pub batch_augments: Option<NotOffered>,
    /// How images are padded in tests; not at all without it.
    #[serde(default)]
    pub test_cfg: Option<TestPaddingConfig>,
}

impl Typed for SegDataPreProcessorConfig {
    const TYPES: &'static [&'static str] = &["SegDataPreProcessor"];
}

/// `data_preprocessor.test_cfg`.
#[derive(Debug, Clone, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct TestPaddingConfig {
    pub size: Option<[usize; 2]>,
    #[serde(deserialize_with = "crate::config::positive")]
    pub size_divisor: Option<usize>,
}

impl SegDataPreProcessorConfig {
    /// Errors name keys below `data_preprocessor`.
    pub fn init(&self) -> Result<SegDataPreProcessor, ModelError> {
        if self.bgr_to_rgb && self.rgb_to_bgr {
            return Err(ModelError::config(
                "rgb_to_bgr",
                "cannot be true together with bgr_to_rgb",
            ));
        }
        let three = |key: &str, values: &Option<Vec<f64>>| match values {
            Some(values) if values.len() != 3 => Err(ModelError::config(
                key,
                format!("expected 3 numbers, one for each channel, got {}", values.len()),
            )),
            _ => Ok(()),
        };
        three("mean", &self.mean)?;
        three("std", &self.std)?;
        if self.mean.is_some() != self.std.is_some() {
            let (there, missing) =
                if self.mean.is_some() { ("mean", "std") } else { ("std", "mean") };
            return Err(ModelError::config(
                missing,
                format!("is missing, but {there} is given: set both or neither"),
            ));
        }
        if self.std.iter().flatten().any(|&it| it <= 0.0) {
            return Err(ModelError::config(
                "std",
                format!("expected positive numbers, got {:?}", self.std),
            ));
        }
        let test = self.test_cfg.clone().unwrap_or_default();
        let training = Padding::new(self.size, self.size_divisor)?;
        let testing =
            Padding::new(test.size, test.size_divisor).map_err(|it| it.within("test_cfg"))?;
        let constant = |values: &Vec<f64>| {
            Constant::from(values.iter().map(|&it| it as f32).collect::<Vec<_>>())
        };
        let statistics = self
            .mean
            .as_ref()
            .zip(self.std.as_ref())
            .map(|(mean, std)| [constant(mean), constant(std)]);
        let layout = Layout {
            swap: self.bgr_to_rgb || self.rgb_to_bgr,
            statistics,
            pad: self.pad_val,
            pad_label: self.seg_pad_val.unwrap_or(255),
            format: MemoryFormat::default(),
        };
        Ok(SegDataPreProcessor { training, testing, layout, uploads: Uploads::default() })
    }
}

#[derive(Debug, Clone, Copy)]
enum Padding {
    None,
    Size([usize; 2]),
    Divisor(usize),
}

impl Padding {
    fn new(size: Option<[usize; 2]>, divisor: Option<usize>) -> Result<Self, ModelError> {
        match (size, divisor) {
            (Some(_), Some(_)) => {
                Err(ModelError::config("size_divisor", "cannot be given together with size"))
            }
            (_, Some(0)) => Err(ModelError::config("size_divisor", "expected at least 1, got 0")),
            (Some(size), None) => Ok(Self::Size(size)),
            (None, Some(divisor)) => Ok(Self::Divisor(divisor)),
            (None, None) => Ok(Self::None),
        }
    }

    /// The size that all of `images` have after padding.
    fn target(self, images: &[Pixels]) -> Result<[usize; 2], ModelError> {
        let Some(first) = images.first() else {
            return Err(ModelError::Input("a batch without images".to_owned()));
        };
        let size = images.iter().fold([0, 0], |[h, w], it| [h.max(it.height), w.max(it.width)]);
        let target = match self {
            Self::None => size,
            Self::Size([height, width]) => [size[0].max(height), size[1].max(width)],
            Self::Divisor(divisor) => return Ok(size.map(|it| it.next_multiple_of(divisor))),
        };
        let fits = |it: &Pixels| match self {
            Self::Size([height, width]) => [it.height.max(height), it.width.max(width)] == target,
            _ => [it.height, it.width] == target,
        };
        match images.iter().find(|it| !fits(it)) {
            None => Ok(target),
            Some(other) => {
                let odd = if fits(first) { other } else { first };
                Err(ModelError::Input(format!(
                    "images of one batch differ in size: {}x{} does not become {}x{} (height x \
                     width); crop them in the pipeline, or set data_preprocessor.size or \
                     size_divisor, or use batch_size 1",
                    odd.height, odd.width, target[0], target[1]
                )))
            }
        }
    }
}

/// Turns bytes into batches.
#[derive(Debug, Clone)]
pub struct SegDataPreProcessor {
    training: Padding,
    testing: Padding,
    layout: Layout,
    uploads: Uploads,
}

impl SegDataPreProcessor {
    /// How images are to lie in memory from now on.
    pub fn set_memory_format(&mut self, format: MemoryFormat) {
        self.layout.format = format;
    }

    /// Height and width of a training batch of `images`.
    pub fn training_size(&self, images: &[Pixels]) -> Result<[usize; 2], ModelError> {
        self.training.target(images)
    }

    /// A training batch: images `[n, 3, h, w]` and labels `[n, h, w]` in 64 bits, padded at the
    /// bottom and the right.
    ///
    /// Each image needs labels of its own size. To a GPU the bytes of a batch go in one copy,
    /// beside its computations.
    pub fn training(
        &self,
        images: &[Pixels],
        labels: &[Pixels],
        device: &Device,
    ) -> Result<(Tensor<4>, Tensor<3, Int>), ModelError> {
        let size = self.training.target(images)?;
        if labels.len() != images.len() {
            return Err(ModelError::Input(format!(
                "{} images with {} label maps",
                images.len(),
                labels.len()
            )));
        }
        if let Some((image, label)) =
            images.iter().zip(labels).find(|(a, b)| (a.height, a.width) != (b.height, b.width))
        {
            return Err(ModelError::Input(format!(
                "an image of {}x{} with a label map of {}x{} (height x width)",
                image.height, image.width, label.height, label.width
            )));
        }
        let (pixels, classes) = (bytes(images, 3)?, bytes(labels, 1)?);
        let sent = self.uploads.send(&[pixels, classes], device).map_err(ModelError::Input)?;
        Ok((sent.images(0, images, size, &self.layout), sent.labels(1, labels, size, &self.layout)))
    }

    /// A test batch: images `[n, 3, h, w]`, padded at the bottom and the right as `test_cfg` says.
    pub fn testing(&self, images: &[Pixels], device: &Device) -> Result<Tensor<4>, ModelError> {
        let size = self.testing.target(images)?;
        let sent = self.uploads.send(&[bytes(images, 3)?], device).map_err(ModelError::Input)?;
        Ok(sent.images(0, images, size, &self.layout))
    }
}

/// The bytes of each image or label map, as many as its size says.
fn bytes<'a>(all: &[Pixels<'a>], channels: usize) -> Result<Vec<&'a [u8]>, ModelError> {
    let checked = |it: &Pixels<'a>| {
        let expected = it.height * it.width * channels;
        if it.data.len() == expected {
            return Ok(it.data);
        }
        let (height, width, found) = (it.height, it.width, it.data.len());
        Err(ModelError::Input(format!(
            "{height}x{width} pixels with {found} bytes, expected {expected}"
        )))
    };
    all.iter().map(checked).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops;

    /// An image whose bytes count up from `first`.
    fn counting(first: u8, height: usize, width: usize, channels: usize) -> Vec<u8> {
        (0..height * width * channels).map(|it| first + it as u8).collect()
    }

    fn sized(all: &[Vec<u8>], sizes: [(usize, usize); 2]) -> Vec<Pixels<'_>> {
        all.iter()
            .zip(sizes)
            .map(|(data, (height, width))| Pixels { height, width, data })
            .collect()
    }

    #[test]
    fn images_of_one_size_and_of_several_land_in_their_places() {
        let config = SegDataPreProcessorConfig {
            mean: Some(vec![1.0, 2.0, 3.0]),
            std: Some(vec![1.0, 2.0, 4.0]),
            size: Some([3, 4]),
            pad_val: -7.0,
            seg_pad_val: Some(255),
            bgr_to_rgb: true,
            ..SegDataPreProcessorConfig::default()
        };
        let mut preprocessor = config.init().expect("a preprocessor");
        let sizes = [[(3, 4), (3, 4)], [(2, 4), (2, 4)], [(2, 4), (3, 3)]].into_iter();
        let formats = [MemoryFormat::Contiguous, MemoryFormat::ChannelsLast];
        for (sizes, format) in sizes.flat_map(|sizes| formats.map(|format| (sizes, format))) {
            preprocessor.set_memory_format(format);
            let made: Vec<_> = (0_u8..)
                .step_by(100)
                .zip(sizes)
                .map(|(first, (h, w))| counting(first, h, w, 3))
                .collect();
            let labelled: Vec<_> = (0_u8..)
                .step_by(100)
                .zip(sizes)
                .map(|(first, (h, w))| counting(first, h, w, 1))
                .collect();
            let (images, classes) = (sized(&made, sizes), sized(&labelled, sizes));
            let (batch, target) =
                preprocessor.training(&images, &classes, &Device::libtorch()).expect("a batch");
            let (batch, target) = (ops::to_tch(&batch), ops::to_tch(&target));
            assert_eq!((batch.size(), target.size()), (vec![2, 3, 3, 4], vec![2, 3, 4]));
            assert_eq!(batch.is_contiguous(), format == MemoryFormat::Contiguous);
            for (index, (height, width)) in sizes.into_iter().enumerate() {
                for (y, x) in (0..3).flat_map(|y| (0..4).map(move |x| (y, x))) {
                    let inside = y < height && x < width;
                    for channel in 0..3 {
                        let byte = || f64::from(made[index][(y * width + x) * 3 + 2 - channel]);
                        let value = || (byte() - (channel + 1) as f64) / [1.0, 2.0, 4.0][channel];
                        let expected = if inside { value() } else { -7.0 };
                        assert_eq!(
                            batch.double_value(&[index as i64, channel as i64, y as i64, x as i64]),
                            expected
                        );
                    }
                    let expected =
                        if inside { i64::from(labelled[index][y * width + x]) } else { 255 };
                    assert_eq!(target.int64_value(&[index as i64, y as i64, x as i64]), expected);
                }
            }
        }
    }

    #[test]
    fn bytes_that_do_not_fit_their_size_are_refused() {
        let preprocessor = SegDataPreProcessorConfig::default().init().expect("a preprocessor");
        let image = Pixels { height: 2, width: 2, data: &[0; 11] };
        let error = preprocessor.testing(&[image], &Device::libtorch()).expect_err("too few bytes");
        assert_eq!(error.to_string(), "2x2 pixels with 11 bytes, expected 12");
    }
}
