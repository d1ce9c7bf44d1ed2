//! `Resize` and its kin: images bilinear (or nearest), label maps nearest, as `cv2.resize`.

use rand::Rng;
use rand_pcg::Pcg64;
use serde::Deserialize;

use super::Frame;
use crate::config::{OneOrMany, Pair};
use crate::data::size::{rescaled, scaled};
use crate::data::{DataError, Interpolation};

/// Resizes image and label map to a scale, or by a factor.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resize {
    /// (width, height), or one number for both. Wins over `scale_factor`.
    #[serde(deserialize_with = "crate::config::positive")]
    pub scale: Option<Pair<usize>>,
    /// What to multiply (width, height) by.
    #[serde(deserialize_with = "crate::config::above_zero")]
    pub scale_factor: Option<Pair<f64>>,
    /// Keep the aspect ratio: the result is the largest that fits into the scale's long and short
    /// edge.
    pub keep_ratio: bool,
    /// About boxes; without effect on images and label maps.
    pub clip_object_border: bool,
    pub backend: ResizeBackend,
    /// Of the image; label maps are always resized by nearest neighbour.
    pub interpolation: Interpolation,
}

/// Whose arithmetic a resize follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResizeBackend {
    #[default]
    Cv2,
}

/// Which resize a random one performs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum ResizeType {
    #[default]
    Resize,
    ResizeShortestEdge,
}

impl Default for Resize {
    fn default() -> Self {
        Self {
            scale: None,
            scale_factor: None,
            keep_ratio: false,
            clip_object_border: true,
            backend: ResizeBackend::Cv2,
            interpolation: Interpolation::Bilinear,
        }
    }
}

impl Resize {
    pub(super) fn check(&self) -> Result<(), DataError> {
        let refuse = |reason: &str| Err(DataError::transform("Resize", reason));
        match (self.scale, self.scale_factor) {
            (None, None) => refuse("needs scale or scale_factor"),
            (Some(Pair([width, height])), _) if width == 0 || height == 0 => {
                refuse("scale has to be positive")
            }
            (None, Some(Pair([x, y]))) if !(x > 0.0 && y > 0.0) => {
                refuse("scale_factor has to be positive")
            }
            _ => Ok(()),
        }
    }

    pub(super) fn apply(&self, frame: &mut Frame) -> Result<(), DataError> {
        let (height, width) = frame.image("Resize")?.shape();
        let scale = match (self.scale, self.scale_factor) {
            (Some(Pair([width, height])), _) => (width, height),
            (None, Some(Pair([x, y]))) => scaled((width, height), (x, y)),
            (None, None) => (width, height),
        };
        resize(frame, scale, self.keep_ratio, self.interpolation)
    }
}

/// Resizes to a random scale: one of `ratio_range` times `scale`, or one between two scales.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandomResize {
    /// `[w, h]` with a `ratio_range`, or `[[w, h], [w, h]]`.
    pub scale: ScaleRange,
    #[serde(default, deserialize_with = "crate::config::above_zero")]
    pub ratio_range: Option<(f64, f64)>,
    #[serde(default)]
    pub resize_type: ResizeType,
    #[serde(default)]
    pub keep_ratio: bool,
    #[serde(default = "crate::config::default::yes")]
    pub clip_object_border: bool,
    #[serde(default)]
    pub backend: ResizeBackend,
    #[serde(default)]
    pub interpolation: Interpolation,
}

/// Scales, (width, height), to choose from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Pair<OneOrMany<usize>>")]
pub enum ScaleRange {
    /// One, to be multiplied.
    Base(usize, usize),
    /// Each edge lies between those of the two.
    Between((usize, usize), (usize, usize)),
}

impl TryFrom<Pair<OneOrMany<usize>>> for ScaleRange {
    type Error = &'static str;

    fn try_from(scales: Pair<OneOrMany<usize>>) -> Result<Self, Self::Error> {
        match (&scales[0][..], &scales[1][..]) {
            (&[width], &[height]) => Ok(Self::Base(width, height)),
            (&[a, b], &[c, d]) => Ok(Self::Between((a, b), (c, d))),
            _ => Err("expected a scale [w, h], or two scales [[w, h], [w, h]]"),
        }
    }
}

impl RandomResize {
    pub(super) fn check(&self) -> Result<(), DataError> {
        let refuse = |reason: &str| Err(DataError::transform("RandomResize", reason));
        if self.resize_type != ResizeType::Resize {
            return refuse("its resize_type has to be Resize");
        }
        match (self.scale, self.ratio_range) {
            (ScaleRange::Base(..), None) => {
                refuse("a scale [w, h] needs a ratio_range; or give two scales [[w, h], [w, h]]")
            }
            (ScaleRange::Base(..), Some((low, high))) if !(low > 0.0 && low <= high) => {
                refuse("ratio_range has to be [low, high] with 0 < low <= high")
            }
            (ScaleRange::Base(0, _) | ScaleRange::Base(_, 0), _) => {
                refuse("scale has to be positive")
            }
            (ScaleRange::Between(a, b), _) if [a.0, a.1, b.0, b.1].contains(&0) => {
                refuse("scales have to be positive")
            }
            _ => Ok(()),
        }
    }

    pub(super) fn apply(&self, frame: &mut Frame, rng: &mut Pcg64) -> Result<(), DataError> {
        resize(frame, self.draw(rng), self.keep_ratio, self.interpolation)
    }

    /// The scale, (width, height), of one sample.
    fn draw(&self, rng: &mut Pcg64) -> (usize, usize) {
        match self.scale {
            ScaleRange::Base(width, height) => {
                let (low, high) = self.ratio_range.unwrap_or((1.0, 1.0));
                let ratio = rng.random::<f64>() * (high - low) + low;
                ((width as f64 * ratio) as usize, (height as f64 * ratio) as usize)
            }
            ScaleRange::Between(a, b) => {
                let width = rng.random_range(a.0.min(b.0)..=a.0.max(b.0));
                let height = rng.random_range(a.1.min(b.1)..=a.1.max(b.1));
                (width, height)
            }
        }
    }
}

/// Resizes to one of several scales, each as likely.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandomChoiceResize {
    /// Each (width, height), or one number for both.
    #[serde(deserialize_with = "crate::config::positive")]
    pub scales: Vec<Pair<usize>>,
    #[serde(default)]
    pub resize_type: ResizeType,
    /// Of `resize_type: ResizeShortestEdge`.
    #[serde(default)]
    #[serde(deserialize_with = "crate::config::positive")]
    pub max_size: Option<usize>,
    #[serde(default)]
    pub keep_ratio: bool,
    #[serde(default = "crate::config::default::yes")]
    pub clip_object_border: bool,
    #[serde(default)]
    pub backend: ResizeBackend,
    #[serde(default)]
    pub interpolation: Interpolation,
}

impl RandomChoiceResize {
    pub(super) fn check(&self) -> Result<(), DataError> {
        if self.scales.is_empty()
            || self.scales.iter().any(|&Pair([width, height])| width == 0 || height == 0)
        {
            return Err(DataError::transform(
                "RandomChoiceResize",
                "needs at least one scale, and positive ones",
            ));
        }
        match (self.resize_type, self.max_size) {
            (ResizeType::Resize, None) | (ResizeType::ResizeShortestEdge, Some(1..)) => Ok(()),
            (ResizeType::Resize, Some(_)) => Err(DataError::transform(
                "RandomChoiceResize",
                "max_size belongs to resize_type: ResizeShortestEdge",
            )),
            (ResizeType::ResizeShortestEdge, _) => Err(DataError::transform(
                "RandomChoiceResize",
                "resize_type: ResizeShortestEdge needs a positive max_size",
            )),
        }
    }

    pub(super) fn apply(&self, frame: &mut Frame, rng: &mut Pcg64) -> Result<(), DataError> {
        let scale = self.scales[rng.random_range(0..self.scales.len())];
        match self.max_size {
            Some(max_size) => ResizeShortestEdge { scale, max_size }.apply(frame),
            None => resize(frame, (scale.0[0], scale.0[1]), self.keep_ratio, self.interpolation),
        }
    }
}

/// Resizes so that the shorter edge has `scale` pixels, or the longer one `max_size` where it would
/// have more.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResizeShortestEdge {
    /// Of two numbers the smaller counts.
    #[serde(deserialize_with = "crate::config::positive")]
    pub scale: Pair<usize>,
    #[serde(deserialize_with = "crate::config::positive")]
    pub max_size: usize,
}

impl ResizeShortestEdge {
    pub(super) fn check(&self) -> Result<(), DataError> {
        let Pair([a, b]) = self.scale;
        if a.min(b).min(self.max_size) == 0 {
            return Err(DataError::transform(
                "ResizeShortestEdge",
                "scale and max_size have to be positive",
            ));
        }
        Ok(())
    }

    pub(super) fn apply(&self, frame: &mut Frame) -> Result<(), DataError> {
        let (height, width) = frame.image("ResizeShortestEdge")?.shape();
        let Pair([a, b]) = self.scale;
        let (short, long) = (a.min(b) as f64, self.max_size as f64);
        let factor = short / height.min(width) as f64;
        let mut edges = if height < width {
            (factor * width as f64, short)
        } else {
            (short, factor * height as f64)
        };
        let longest = edges.0.max(edges.1);
        if longest > long {
            edges = (edges.0 * (long / longest), edges.1 * (long / longest));
        }
        resize(
            frame,
            ((edges.0 + 0.5) as usize, (edges.1 + 0.5) as usize),
            true,
            Interpolation::Bilinear,
        )
    }
}

/// Resizes both edges up to the next multiple of a number.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResizeToMultiple {
    #[serde(deserialize_with = "crate::config::positive")]
    pub size_divisor: usize,
    /// Of the image; bilinear without it.
    pub interpolation: Option<Interpolation>,
}

impl Default for ResizeToMultiple {
    fn default() -> Self {
        Self { size_divisor: 32, interpolation: None }
    }
}

impl ResizeToMultiple {
    pub(super) fn check(&self) -> Result<(), DataError> {
        if self.size_divisor == 0 {
            return Err(DataError::transform(
                "ResizeToMultiple",
                "size_divisor has to be positive",
            ));
        }
        Ok(())
    }

    pub(super) fn apply(&self, frame: &mut Frame) -> Result<(), DataError> {
        let (height, width) = frame.image("ResizeToMultiple")?.shape();
        let [width, height] = [width, height].map(|it| it.next_multiple_of(self.size_divisor));
        resize(frame, (width, height), false, self.interpolation.unwrap_or_default())
    }
}

fn resize(
    frame: &mut Frame,
    scale: (usize, usize),
    keep_ratio: bool,
    interpolation: Interpolation,
) -> Result<(), DataError> {
    let target = |(height, width): (usize, usize)| {
        let (width, height) = if keep_ratio { rescaled((width, height), scale) } else { scale };
        if width == 0 || height == 0 {
            return Err(DataError::transform(
                "Resize",
                format!("would make an image of {width}x{height} pixels"),
            ));
        }
        Ok((height, width))
    };
    let image = frame.image("Resize")?;
    let before = image.shape();
    let after = target(before)?;
    image.resize(after, interpolation)?;
    frame.meta.img_shape = after;
    frame.meta.scale_factor =
        Some((after.1 as f64 / before.1 as f64, after.0 as f64 / before.0 as f64));
    if let Some(label) = &mut frame.label {
        label.resize(target(label.shape())?, Interpolation::Nearest)?;
    }
    Ok(())
}
