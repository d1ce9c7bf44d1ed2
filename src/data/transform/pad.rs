//! `Pad`: fills up on the right and at the bottom.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::Frame;
use crate::config::{OneOrMany, Pair};
use crate::data::image::room;
use crate::data::{DataError, Raster};

/// Pads image and label map to a size, to a multiple, or to a square.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pad {
    /// (width, height). An image that is larger already stays as it is.
    #[serde(deserialize_with = "crate::config::side")]
    pub size: Option<Pair<usize>>,
    /// Both edges become multiples of it.
    #[serde(deserialize_with = "crate::config::positive")]
    pub size_divisor: Option<usize>,
    pub pad_to_square: bool,
    /// One number for the image (labels get `ignore_index`), or `{img: …, seg: …}`.
    pub pad_val: PadVal,
    pub padding_mode: PaddingMode,
}

/// What a constant padding is filled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PadVal {
    /// Blue, green, red.
    pub img: [u8; 3],
    /// The dataset's `ignore_index` unless given.
    pub seg: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PaddingMode {
    #[default]
    Constant,
    /// The last pixel again.
    Edge,
    /// Mirrored at the last pixel's middle.
    Reflect,
    /// Mirrored at the last pixel's edge.
    Symmetric,
}

impl Default for Pad {
    fn default() -> Self {
        Self {
            size: None,
            size_divisor: None,
            pad_to_square: false,
            pad_val: PadVal::default(),
            padding_mode: PaddingMode::Constant,
        }
    }
}

impl Pad {
    pub(super) fn check(&self) -> Result<(), DataError> {
        let refuse = |reason: &str| Err(DataError::transform("Pad", reason));
        match (self.size, self.size_divisor, self.pad_to_square) {
            (Some(_), _, true) => refuse("size cannot go with pad_to_square"),
            (Some(_), Some(_), _) => refuse("give size or size_divisor, not both"),
            (None, None, false) => refuse("needs size, size_divisor or pad_to_square"),
            (_, Some(0), _) => refuse("size_divisor has to be positive"),
            _ => Ok(()),
        }
    }

    pub(super) fn apply(&self, frame: &mut Frame) -> Result<(), DataError> {
        let seg = self.pad_val.seg.unwrap_or(frame.rule.ignore_index);
        let image = frame.image("Pad")?;
        let shape = self.target(image.shape());
        let img_val = self.pad_val.img;
        if shape != image.shape() {
            // The loader knows of which file.
            let told =
                |reason| DataError::OutOfMemory { what: "image", path: PathBuf::new(), reason };
            room::<3>(shape.0, shape.1).map_err(told)?;
            *image = self.pad(&image.render()?, shape, img_val).into();
        }
        frame.meta.img_shape = shape;
        frame.meta.pad_shape = shape;
        if let Some(label) = &mut frame.label
            && label.shape() != shape
        {
            *label = self.pad(&label.render()?, shape, [seg]).into();
        }
        Ok(())
    }

    /// The padded height and width.
    fn target(&self, (height, width): (usize, usize)) -> (usize, usize) {
        let mut shape = (height, width);
        if self.pad_to_square {
            shape = (height.max(width), height.max(width));
        }
        if let Some(divisor) = self.size_divisor {
            shape = (shape.0.next_multiple_of(divisor), shape.1.next_multiple_of(divisor));
        } else if let Some(Pair([to_width, to_height])) = self.size {
            shape = (to_height.max(height), to_width.max(width));
        }
        shape
    }

    fn pad<const C: usize>(
        &self,
        from: &Raster<C>,
        shape: (usize, usize),
        value: [u8; C],
    ) -> Raster<C> {
        let (height, width) = (shape.0.max(from.height), shape.1.max(from.width));
        let mut data = Vec::with_capacity(height * width * C);
        for y in 0..height {
            match self.source(y, from.height) {
                Some(y) => {
                    data.extend_from_slice(from.row(y));
                    for x in from.width..width {
                        data.extend_from_slice(
                            &self.source(x, from.width).map_or(value, |x| from.pixel(y, x)),
                        );
                    }
                }
                None => (0..width).for_each(|_| data.extend_from_slice(&value)),
            }
        }
        Raster { height, width, data }
    }

    /// Where index `at` of a padded axis comes from, if from the `size` pixels at all.
    fn source(&self, at: usize, size: usize) -> Option<usize> {
        if at < size {
            return Some(at);
        }
        let mirror = |at: usize, period: usize| if at < size { at } else { period - at };
        match self.padding_mode {
            PaddingMode::Constant => None,
            PaddingMode::Edge => Some(size - 1),
            PaddingMode::Reflect if size == 1 => Some(0),
            PaddingMode::Reflect => Some(mirror(at % (2 * size - 2), 2 * size - 2)),
            PaddingMode::Symmetric => Some(mirror(at % (2 * size), 2 * size - 1)),
        }
    }
}

impl<'de> Deserialize<'de> for PadVal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrMap;
        impl<'de> Visitor<'de> for NumberOrMap {
            type Value = PadVal;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value from 0 to 255, or {img: …, seg: …}")
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<PadVal, E> {
                let value = u8::try_from(value)
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(value), &self))?;
                Ok(PadVal { img: [value; 3], ..PadVal::default() })
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<PadVal, E> {
                let value = u64::try_from(value)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))?;
                self.visit_u64(value)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PadVal, A::Error> {
                let mut value = PadVal::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "img" => value.img = colour(&map.next_value::<OneOrMany<u8>>()?)?,
                        "seg" => value.seg = Some(map.next_value()?),
                        _ => return Err(de::Error::unknown_field(&key, &["img", "seg"])),
                    }
                }
                Ok(value)
            }
        }
        deserializer.deserialize_any(NumberOrMap)
    }
}

/// One value for all channels, or three.
fn colour<E: de::Error>(values: &[u8]) -> Result<[u8; 3], E> {
    match *values {
        [value] => Ok([value; 3]),
        [blue, green, red] => Ok([blue, green, red]),
        _ => Err(E::invalid_length(values.len(), &"one value, or three")),
    }
}
