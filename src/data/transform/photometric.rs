//! `PhotoMetricDistortion`: brightness, contrast, saturation and hue, each changed with probability
//! one half.
//!
//! Results are those of OpenCV's 8-bit conversions between BGR and HSV on x86-64 with AVX2, bit for
//! bit, with 8 bits after each step as mmseg applies them, on pieces of a row that stay in the
//! cache.

use pulp::{Arch, NullaryFnOnce};
use rand::Rng;
use rand_pcg::Pcg64;
use serde::Deserialize;

use super::Frame;
use crate::data::{DataError, Image};

/// The ranges to draw from.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PhotoMetricDistortion {
    /// Up to this much is added or taken away.
    #[serde(deserialize_with = "crate::config::not_negative")]
    pub brightness_delta: f64,
    /// Factors of all values.
    #[serde(deserialize_with = "crate::config::not_negative")]
    pub contrast_range: (f64, f64),
    /// Factors of the saturation.
    #[serde(deserialize_with = "crate::config::not_negative")]
    pub saturation_range: (f64, f64),
    /// In steps of two degrees: from minus this much up to, not including, this much.
    pub hue_delta: i32,
}

impl Default for PhotoMetricDistortion {
    fn default() -> Self {
        Self {
            brightness_delta: 32.0,
            contrast_range: (0.5, 1.5),
            saturation_range: (0.5, 1.5),
            hue_delta: 18,
        }
    }
}

impl PhotoMetricDistortion {
    pub(super) fn check(&self) -> Result<(), DataError> {
        let refuse = |reason: &str| Err(DataError::transform("PhotoMetricDistortion", reason));
        let ordered = |(low, high): (f64, f64)| low >= 0.0 && low <= high;
        if self.brightness_delta.is_nan() || self.brightness_delta < 0.0 || self.hue_delta < 0 {
            return refuse("brightness_delta and hue_delta cannot be negative");
        }
        if !ordered(self.contrast_range) || !ordered(self.saturation_range) {
            return refuse(
                "contrast_range and saturation_range have to be [low, high] with 0 <= low <= high",
            );
        }
        Ok(())
    }

    pub(super) fn apply(&self, frame: &mut Frame, rng: &mut Pcg64) -> Result<(), DataError> {
        let distortion = self.draw(rng);
        let view = frame.image.take();
        let view = view.ok_or_else(|| {
            DataError::transform(
                "PhotoMetricDistortion",
                "needs an image: put LoadImageFromFile before it",
            )
        })?;
        let mut image = view.into_raster()?;
        distortion.apply(&mut image);
        frame.image = Some(image.into());
        Ok(())
    }

    fn draw(&self, rng: &mut Pcg64) -> Distortion {
        let uniform = |rng: &mut Pcg64, (low, high): (f64, f64)| {
            (low + (high - low) * rng.random::<f64>()) as f32
        };
        let maybe = |rng: &mut Pcg64, range| rng.random::<bool>().then(|| uniform(rng, range));
        let brightness = maybe(rng, (-self.brightness_delta, self.brightness_delta));
        let contrast_first = rng.random::<bool>();
        let early = if contrast_first { maybe(rng, self.contrast_range) } else { None };
        let saturation = maybe(rng, self.saturation_range);
        let hue = (rng.random::<bool>() && self.hue_delta > 0)
            .then(|| rng.random_range(-self.hue_delta..self.hue_delta));
        let late = if contrast_first { None } else { maybe(rng, self.contrast_range) };
        Distortion { brightness, contrast: early.or(late), contrast_first, saturation, hue }
    }
}

/// The changes drawn for one image.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Distortion {
    /// To be added.
    pub brightness: Option<f32>,
    /// To multiply by.
    pub contrast: Option<f32>,
    /// Contrast comes before saturation and hue, not after them.
    pub contrast_first: bool,
    /// To multiply by.
    pub saturation: Option<f32>,
    /// To be added to the hue, in steps of two degrees.
    pub hue: Option<i32>,
}

impl Distortion {
    /// Changes the image in place.
    pub fn apply(&self, image: &mut Image) {
        let (early, late) =
            if self.contrast_first { (self.contrast, None) } else { (None, self.contrast) };
        let brightness = self.brightness.map(|offset| Scale { factor: 1.0, offset });
        let [early, late, saturation] =
            [early, late, self.saturation].map(|it| it.map(|factor| Scale { factor, offset: 0.0 }));
        let arch = Arch::new();
        let mut planes = Planes::new();
        let width = image.width;
        for row in image.data.chunks_mut(3 * width.max(1)) {
            for (index, piece) in row.chunks_mut(3 * PIECE).enumerate() {
                let rounded = (width - width % VECTOR).saturating_sub(index * PIECE);
                for scale in [brightness, early].into_iter().flatten() {
                    scale.bytes(arch, piece);
                }
                for change in
                    [saturation.map(Change::Saturation), self.hue.map(|it| Change::Hue(it as f32))]
                        .into_iter()
                        .flatten()
                {
                    planes.load(piece);
                    arch.dispatch(Recolour { planes: &mut planes, change, rounded });
                    planes.store(piece);
                }
                if let Some(scale) = late {
                    scale.bytes(arch, piece);
                }
            }
        }
    }
}

/// Multiply, add, and cut off to 8 bits, in single precision as mmseg does.
#[derive(Debug, Clone, Copy)]
struct Scale {
    factor: f32,
    offset: f32,
}

impl Scale {
    #[inline(always)]
    fn of(self, value: f32) -> f32 {
        (value * self.factor + self.offset).clamp(0.0, 255.0).floor()
    }

    fn bytes(self, arch: Arch, values: &mut [u8]) {
        arch.dispatch(Rescale { scale: self, values });
    }
}

// What `dispatch` is given is compiled for an instruction set only if it is inlined into it, which
// closures of this size are not.

struct Rescale<'a> {
    scale: Scale,
    values: &'a mut [u8],
}

impl NullaryFnOnce for Rescale<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.values.iter_mut().for_each(|it| *it = whole(self.scale.of(f32::from(*it))) as u8);
    }
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Saturation(Scale),
    /// To be added.
    Hue(f32),
}

struct Recolour<'a> {
    planes: &'a mut Planes,
    change: Change,
    rounded: usize,
}

impl NullaryFnOnce for Recolour<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.planes.to_hsv();
        match self.change {
            Change::Saturation(scale) => {
                self.planes.saturation.iter_mut().for_each(|it| *it = scale.of(*it));
            }
            Change::Hue(by) => self.planes.turn(by),
        }
        self.planes.to_bgr(self.rounded);
    }
}

/// Pixels that are converted at a time: their planes stay in the first-level cache.
const PIECE: usize = 512;

/// Pixels that OpenCV converts at a time on x86-64 with AVX2.
const VECTOR: usize = 32;

/// A piece of an image, channel by channel. All values are whole numbers from 0 to 255, the hue
/// from 0 to 179.
struct Planes {
    blue: [f32; PIECE],
    green: [f32; PIECE],
    red: [f32; PIECE],
    hue: [f32; PIECE],
    saturation: [f32; PIECE],
    value: [f32; PIECE],
}

impl Planes {
    fn new() -> Self {
        let zero = [0.0; PIECE];
        Self { blue: zero, green: zero, red: zero, hue: zero, saturation: zero, value: zero }
    }

    fn load(&mut self, pixels: &[u8]) {
        for (n, pixel) in pixels.as_chunks::<3>().0.iter().enumerate() {
            [self.blue[n], self.green[n], self.red[n]] = pixel.map(f32::from);
        }
    }

    fn store(&self, pixels: &mut [u8]) {
        for (n, pixel) in pixels.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            *pixel = [self.blue[n], self.green[n], self.red[n]].map(|it| whole(it) as u8);
        }
    }

    /// OpenCV's `COLOR_BGR2HSV`: 12-bit fixed-point reciprocals, here computed instead of looked
    /// up.
    #[inline(always)]
    #[expect(clippy::wrong_self_convention, reason = "the colours change in place")]
    fn to_hsv(&mut self) {
        for n in 0..PIECE {
            let (b, g, r) = (self.blue[n], self.green[n], self.red[n]);
            let value = b.max(g).max(r);
            let range = value - b.min(g).min(r);
            // Exact: numerators are below 2^20, so no quotient lies close enough to a half to round
            // the wrong way.
            let per_value = whole(1_044_480.0 / value.max(1.0));
            let per_range = whole(122_880.0 / range.max(1.0));
            // A single-precision product is exact up to 2^24: the two factors' is not, so it is
            // made in whole numbers.
            let saturation = (whole(range) * per_value + 2048) >> 12;
            let sector = if value == r {
                g - b
            } else if value == g {
                b - r + 2.0 * range
            } else {
                r - g + 4.0 * range
            };
            let hue = (whole(sector) * per_range + 2048) >> 12;
            self.hue[n] = if hue < 0 { hue + 180 } else { hue } as f32;
            self.saturation[n] = saturation as f32;
            self.value[n] = value;
        }
    }

    /// Adds to the hue, modulo 180.
    #[inline(always)]
    fn turn(&mut self, by: f32) {
        let by = by.rem_euclid(180.0);
        for hue in &mut self.hue {
            let turned = *hue + by;
            *hue = if turned >= 180.0 { turned - 180.0 } else { turned };
        }
    }

    /// OpenCV's `COLOR_HSV2BGR`: each channel is the value, less a share of it that rises and falls
    /// over the six sectors. In OpenCV's order of operations, fused multiply-add included, so that
    /// the last bit agrees, and cut off as its vector code does: the last columns of a row, fewer
    /// than a vector's 32, OpenCV rounds instead, from `rounded` on here.
    #[inline(always)]
    #[expect(clippy::wrong_self_convention, reason = "the colours change in place")]
    fn to_bgr(&mut self, rounded: usize) {
        for n in 0..PIECE {
            let hue = self.hue[n] * (6.0 / 180.0);
            let (saturation, value) =
                (self.saturation[n] * (1.0 / 255.0), self.value[n] * (1.0 / 255.0));
            let sector = hue.floor();
            let within = hue - sector;
            let channel = |start: f32| {
                let at = start + sector;
                let at = if at >= 6.0 { at - 6.0 } else { at };
                let share = (at + within).min(4.0 - at - within).clamp(0.0, 1.0);
                let level = value * (-saturation).mul_add(share, 1.0) * 255.0;
                if n < rounded { level.floor() } else { round(level) }
            };
            self.blue[n] = channel(1.0);
            self.green[n] = channel(3.0);
            self.red[n] = channel(5.0);
        }
    }
}

/// Added to a number of magnitude below 2^22, it leaves no bit for a fraction: the number is
/// rounded, halves to even.
const NO_FRACTION: f32 = 12_582_912.0;

#[inline(always)]
fn round(value: f32) -> f32 {
    (value + NO_FRACTION) - NO_FRACTION
}

/// The rounded number as an integer. (`as` cuts off at the ends of the range, which costs more than
/// the conversion.)
#[inline(always)]
fn whole(value: f32) -> i32 {
    (value + NO_FRACTION).to_bits().wrapping_sub(NO_FRACTION.to_bits()) as i32
}
