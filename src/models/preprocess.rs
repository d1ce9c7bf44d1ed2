//! mmseg's `SegDataPreProcessor`: images as bytes become normalised, padded batches on the device.

use burn::tensor::{Device, Int, Tensor};
use serde::Deserialize;
use tch::Kind;

use super::ModelError;
use crate::ops;

/// The keys of `type: SegDataPreProcessor`.
#[derive(Debug, Clone, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct SegDataPreProcessorConfig {
    /// Means of the channels, in the order after `bgr_to_rgb`; without `mean` and `std` values stay 0 to 255.
    #[serde(default)]
    pub mean: Option<Vec<f64>>,
    #[serde(default)]
    pub std: Option<Vec<f64>>,
    /// Pad training images to this size (height, width).
    #[serde(default)]
    pub size: Option<[usize; 2]>,
    /// Pad training images to the batch's largest size, rounded up to a multiple of this.
    #[serde(default)]
    pub size_divisor: Option<usize>,
    /// What normalised images are padded with.
    #[serde(default)]
    pub pad_val: f64,
    /// What labels are padded with.
    #[serde(default = "ignored")]
    pub seg_pad_val: u8,
    #[serde(default)]
    pub bgr_to_rgb: bool,
    #[serde(default)]
    pub rgb_to_bgr: bool,
    /// How images are padded in tests; not at all without it.
    #[serde(default)]
    pub test_cfg: Option<TestPaddingConfig>,
}

/// `data_preprocessor.test_cfg`.
#[derive(Debug, Clone, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct TestPaddingConfig {
    pub size: Option<[usize; 2]>,
    pub size_divisor: Option<usize>,
}

fn ignored() -> u8 {
    255
}

/// Bytes that somebody else owns: an image `[height, width, 3]` or a label map `[height, width]`.
#[derive(Debug, Clone, Copy)]
pub struct Pixels<'a> {
    pub height: usize,
    pub width: usize,
    pub data: &'a [u8],
}

impl SegDataPreProcessorConfig {
    /// Errors name keys below `data_preprocessor`.
    pub fn init(&self) -> Result<SegDataPreProcessor, ModelError> {
        if self.bgr_to_rgb && self.rgb_to_bgr {
            return Err(ModelError::config("rgb_to_bgr", "cannot be true together with bgr_to_rgb"));
        }
        let three = |key: &str, values: &Option<Vec<f64>>| match values {
            Some(values) if values.len() != 3 => {
                Err(ModelError::config(key, format!("expected 3 numbers, one for each channel, got {}", values.len())))
            }
            _ => Ok(()),
        };
        three("mean", &self.mean)?;
        three("std", &self.std)?;
        if self.mean.is_some() != self.std.is_some() {
            let (there, missing) = if self.mean.is_some() { ("mean", "std") } else { ("std", "mean") };
            return Err(ModelError::config(missing, format!("is missing, but {there} is given: set both or neither")));
        }
        if self.std.iter().flatten().any(|&it| it <= 0.0) {
            return Err(ModelError::config("std", format!("expected positive numbers, got {:?}", self.std)));
        }
        let test = self.test_cfg.clone().unwrap_or_default();
        let training = Padding::new(self.size, self.size_divisor)?;
        let testing = Padding::new(test.size, test.size_divisor).map_err(|it| it.within("test_cfg"))?;
        Ok(SegDataPreProcessor { config: self.clone(), training, testing })
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
            (Some(_), Some(_)) => Err(ModelError::config("size_divisor", "cannot be given together with size")),
            (_, Some(0)) => Err(ModelError::config("size_divisor", "expected at least 1, got 0")),
            (Some(size), None) => Ok(Self::Size(size)),
            (None, Some(divisor)) => Ok(Self::Divisor(divisor)),
            (None, None) => Ok(Self::None),
        }
    }

    /// The size that all of `images` have after padding.
    fn target(self, images: &[Pixels]) -> Result<[usize; 2], ModelError> {
        let Some(first) = images.first() else { return Err(ModelError::Input("a batch without images".to_owned())) };
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
                    "images of one batch differ in size: {}x{} does not become {}x{} (height x width); crop them in the \
                     pipeline, or set data_preprocessor.size or size_divisor, or use batch_size 1",
                    odd.height, odd.width, target[0], target[1]
                )))
            }
        }
    }
}

/// Turns bytes into batches.
#[derive(Debug, Clone)]
pub struct SegDataPreProcessor {
    config: SegDataPreProcessorConfig,
    training: Padding,
    testing: Padding,
}

impl SegDataPreProcessor {
    /// A training batch: images `[n, 3, h, w]` and labels `[n, h, w]` in 64 bits, padded at the bottom and the right.
    ///
    /// Each image needs labels of its own size.
    pub fn training(
        &self,
        images: &[Pixels],
        labels: &[Pixels],
        device: &Device,
    ) -> Result<(Tensor<4>, Tensor<3, Int>), ModelError> {
        let size = self.training.target(images)?;
        if labels.len() != images.len() {
            return Err(ModelError::Input(format!("{} images with {} label maps", images.len(), labels.len())));
        }
        if let Some((image, label)) = images.iter().zip(labels).find(|(a, b)| (a.height, a.width) != (b.height, b.width)) {
            return Err(ModelError::Input(format!(
                "an image of {}x{} with a label map of {}x{} (height x width)",
                image.height, image.width, label.height, label.width
            )));
        }
        Ok((self.images(images, size, device)?, self.labels(labels, size, device)?))
    }

    /// A test batch: images `[n, 3, h, w]`, padded at the bottom and the right as `test_cfg` says.
    pub fn testing(&self, images: &[Pixels], device: &Device) -> Result<Tensor<4>, ModelError> {
        let size = self.testing.target(images)?;
        self.images(images, size, device)
    }

    fn images(&self, images: &[Pixels], [height, width]: [usize; 2], device: &Device) -> Result<Tensor<4>, ModelError> {
        let place = place(device);
        let size = [images.len(), 3, height, width].map(|it| it as i64);
        let batch = tch::Tensor::empty(size, (Kind::Float, place));
        let swap = self.config.bgr_to_rgb || self.config.rgb_to_bgr;
        for (index, image) in images.iter().enumerate() {
            // One pass: bytes to floats, channels first, at their place.
            let bytes = upload(image, 3, place)?.view([image.height as i64, image.width as i64, 3]).permute([2, 0, 1]);
            let target = batch.select(0, index as i64).narrow(1, 0, image.height as i64).narrow(2, 0, image.width as i64);
            for channel in 0..3 {
                let from = if swap { 2 - channel } else { channel };
                target.select(0, channel).copy_(&bytes.select(0, from));
            }
        }
        if let (Some(mean), Some(std)) = (&self.config.mean, &self.config.std) {
            let channels = |values: &[f64]| {
                let values: Vec<f32> = values.iter().map(|&it| it as f32).collect();
                tch::Tensor::from_slice(&values).view([1, 3, 1, 1]).to_device(place)
            };
            let mut batch = batch.shallow_clone();
            let _ = batch.g_sub_(&channels(mean)).g_div_(&channels(std));
        }
        for (index, image) in images.iter().enumerate() {
            pad(&batch.select(0, index as i64), image, [height, width], self.config.pad_val);
        }
        Ok(ops::from_tch(batch, device))
    }

    fn labels(&self, labels: &[Pixels], [height, width]: [usize; 2], device: &Device) -> Result<Tensor<3, Int>, ModelError> {
        let place = place(device);
        let size = [labels.len(), height, width].map(|it| it as i64);
        let batch = tch::Tensor::empty(size, (Kind::Int64, place));
        for (index, label) in labels.iter().enumerate() {
            let bytes = upload(label, 1, place)?.view([label.height as i64, label.width as i64]);
            let target = batch.select(0, index as i64);
            target.narrow(0, 0, label.height as i64).narrow(1, 0, label.width as i64).copy_(&bytes);
            pad(&target, label, [height, width], f64::from(self.config.seg_pad_val));
        }
        Ok(ops::from_tch(batch, device))
    }
}

/// Where libtorch puts what Burn puts on `device`.
fn place(device: &Device) -> tch::Device {
    ops::to_tch(&Tensor::<1>::zeros([1], device)).device()
}

/// Bytes on the device; to a GPU from pinned memory, without waiting.
fn upload(pixels: &Pixels, channels: usize, place: tch::Device) -> Result<tch::Tensor, ModelError> {
    let expected = pixels.height * pixels.width * channels;
    if pixels.data.len() != expected {
        return Err(ModelError::Input(format!(
            "{}x{} pixels with {} bytes, expected {expected}",
            pixels.height,
            pixels.width,
            pixels.data.len()
        )));
    }
    let bytes = tch::Tensor::from_slice(pixels.data);
    Ok(if place.is_cuda() { bytes.pin_memory(place).to_device_(place, Kind::Uint8, true, false) } else { bytes })
}

/// Fills what `target` `[…, height, width]` has below and right of the image.
fn pad(target: &tch::Tensor, image: &Pixels, [height, width]: [usize; 2], value: f64) {
    let (below, right) = (height - image.height, width - image.width);
    if below > 0 {
        let _ = target.narrow(-2, image.height as i64, below as i64).fill_(value);
    }
    if right > 0 {
        let _ = target.narrow(-1, image.width as i64, right as i64).fill_(value);
    }
}
