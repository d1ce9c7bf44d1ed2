//! TIFF through the tiff crate, decoded whole, to the pixels that libtiff's picture interface hands
//! to OpenCV: colours of palettes and of inks, deep channels rounded to 8 bits, colours weighed by
//! a transparency that is their own.

use std::borrow::Cow;
use std::io::Cursor;
use std::ops::Range;

use tiff::ColorType;
use tiff::decoder::{Decoder, DecodingResult, Limits};

use super::{Header, believable, exif};
use crate::data::image::room;

const COLOR_MAP: u16 = 0x0140;
const EXTRA_SAMPLES: u16 = 0x0152;
/// A transparency that the colours were not weighed by.
const UNASSOCIATED: u16 = 2;

/// The most pixels that a byte holds: what compresses well may be flat.
const DENSITY: usize = 1 << 14;

pub(super) fn is(bytes: &[u8]) -> bool {
    // 42, or 43 for a file of the long kind.
    matches!(bytes, [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..])
}

pub(super) fn header(bytes: &[u8]) -> Result<Header, String> {
    let (width, height) = Decoder::new(Cursor::new(bytes))
        .and_then(|mut it| it.dimensions())
        .map_err(|it| it.to_string())?;
    let shape = (height as usize, width as usize);
    believable(shape, DENSITY, bytes.len())?;
    Ok(Header { shape, orientation: exif::orientation(bytes) })
}

/// Hands over rows as red, green, blue.
pub(super) fn decode(
    bytes: &[u8],
    rows: Range<usize>,
    take: &mut dyn FnMut(usize, &[u8]),
) -> Result<(), String> {
    let stored = Stored::read(bytes)?;
    let pixels = stored.colours()?;
    let rows = pixels.chunks_exact(stored.width * 3).enumerate().take(rows.end).skip(rows.start);
    rows.for_each(|(y, row)| take(y, row));
    Ok(())
}

/// One channel as it is stored: a grey picture's values, or a palette's indices. The height, the
/// width, the values.
pub(super) fn indices(bytes: &[u8]) -> Result<(usize, usize, Vec<u8>), String> {
    let stored = Stored::read(bytes)?;
    let channels = stored.samples;
    if channels != 1 {
        return Err(format!(
            "it is a picture of {channels} channels; expected one channel of class indices (a grey \
             or palette picture)"
        ));
    }
    let labels: Result<Vec<u8>, i64> = match stored.values {
        // As Pillow has it: 2 and 4 bits of grey are stretched, palette indices and single bits are
        // not.
        DecodingResult::U8(it) if matches!(stored.depth, 2 | 4) && stored.palette.is_none() => {
            Ok(it.into_iter().map(|it| it * (255 / ((1 << stored.depth) - 1))).collect())
        }
        DecodingResult::U8(it) => Ok(it),
        DecodingResult::U16(it) => {
            it.into_iter().map(|it| u8::try_from(it).map_err(|_| i64::from(it))).collect()
        }
        DecodingResult::U32(it) => {
            it.into_iter().map(|it| u8::try_from(it).map_err(|_| i64::from(it))).collect()
        }
        DecodingResult::I8(it) => {
            it.into_iter().map(|it| u8::try_from(it).map_err(|_| i64::from(it))).collect()
        }
        DecodingResult::I16(it) => {
            it.into_iter().map(|it| u8::try_from(it).map_err(|_| i64::from(it))).collect()
        }
        DecodingResult::I32(it) => {
            it.into_iter().map(|it| u8::try_from(it).map_err(|_| i64::from(it))).collect()
        }
        _ => {
            return Err(format!(
                "its values have {} bits or are fractions; expected labels from 0 to 255",
                stored.depth
            ));
        }
    };
    let labels = labels.map_err(|it| {
        format!(
            "it has {} bits a pixel and the label {it}; expected labels from 0 to 255",
            stored.depth
        )
    })?;
    Ok((stored.height, stored.width, labels))
}

/// A picture's first page, as it is in the file.
struct Stored {
    height: usize,
    width: usize,
    /// Values of a pixel, which lie together.
    samples: usize,
    /// Bits of a value. What has less than 8 was unpacked.
    depth: u8,
    colour: ColorType,
    /// Red, green and blue of all indices, one after the other.
    palette: Option<Vec<u16>>,
    /// Whether the fourth value is a transparency that the colours were not weighed by.
    weighed: bool,
    values: DecodingResult,
}

impl Stored {
    fn read(bytes: &[u8]) -> Result<Self, String> {
        let Header { shape: (height, width), .. } = header(bytes)?;
        let (bytes, painted) = as_indices(bytes);
        let read = || -> tiff::TiffResult<_> {
            let mut limits = Limits::default();
            // What a picture may take is asked for below.
            (limits.decoding_buffer_size, limits.intermediate_buffer_size) =
                (usize::MAX, usize::MAX);
            let mut decoder = Decoder::new(Cursor::new(&bytes[..]))?.with_limits(limits);
            let layout = decoder.image_buffer_layout()?;
            Ok((decoder, layout))
        };
        let (mut decoder, layout) = read().map_err(|it| it.to_string())?;
        room::<1>(height, layout.complete_len.div_ceil(height.max(1)).max(width))?;
        let mut values = DecodingResult::U8(Vec::new());
        let mut rest = || -> tiff::TiffResult<_> {
            decoder.read_image_to_buffer(&mut values)?;
            decoder.colortype()
        };
        let colour = rest().map_err(|it| it.to_string())?;
        let palette = if painted {
            Some(
                exif::shorts(&bytes, COLOR_MAP, 3 << 16)
                    .ok_or("it has a palette without colours: it is damaged")?,
            )
        } else {
            None
        };
        let (depth, samples) = (colour.bit_depth(), usize::from(colour.num_samples()));
        let row_stride = layout.row_stride.map_or(0, std::num::NonZero::get);
        let values = match values {
            DecodingResult::U8(packed) if depth < 8 => {
                DecodingResult::U8(unpacked(&packed, depth, row_stride, width * samples)?)
            }
            DecodingResult::U8(planes) if layout.planes > 1 => {
                DecodingResult::U8(together(&planes, layout.planes))
            }
            DecodingResult::U16(planes) if layout.planes > 1 => {
                DecodingResult::U16(together(&planes, layout.planes))
            }
            values => values,
        };
        let weighed = samples == 4
            && exif::entry(&bytes, EXTRA_SAMPLES).is_some_and(|(_, kind)| kind == UNASSOCIATED);
        Ok(Self { height, width, samples, depth, colour, palette, weighed, values })
    }

    /// Red, green and blue of all pixels.
    fn colours(&self) -> Result<Vec<u8>, String> {
        let grey = matches!(
            self.colour,
            ColorType::Gray(_) | ColorType::GrayA(_) | ColorType::Multiband { .. }
        );
        if self.samples > 4 && !matches!(self.colour, ColorType::CMYKA(_)) {
            return Err(format!(
                "it has {} channels; expected 1 to 4: write three of them into a picture of their \
                 own",
                self.samples
            ));
        }
        let scale = if self.depth < 8 { 255 / ((1 << self.depth) - 1) } else { 1 };
        let values: Cow<'_, [u8]> = match &self.values {
            DecodingResult::U8(values) => Cow::Borrowed(values),
            // The one channel of a grey picture is cut, those of colours are rounded.
            DecodingResult::U16(values) if grey => {
                values.iter().map(|it| (it >> 8) as u8).collect()
            }
            DecodingResult::U16(values) => {
                values.iter().map(|it| ((u32::from(*it) + 128) / 257) as u8).collect()
            }
            _ => {
                return Err(
                    "its pixels are fractions or wide numbers; expected 8 or 16 bits a channel"
                        .to_owned(),
                );
            }
        };
        let part = |value: u8, of: u8| ((u32::from(value) * u32::from(of) + 127) / 255) as u8;
        let pixels = values.chunks_exact(self.samples);
        if let Some(palette) = &self.palette {
            let count = palette.len() / 3;
            // Some writers put 8 bits into the palette's 16.
            let deep = palette.iter().any(|it| *it > 255);
            let level = |it: u16| if deep { (it >> 8) as u8 } else { it as u8 };
            let colour = |index: u8| -> Result<[u8; 3], String> {
                let at = |plane: usize| {
                    palette.get(plane * count + usize::from(index)).map(|it| level(*it))
                };
                match (at(0), at(1), at(2)) {
                    (Some(red), Some(green), Some(blue)) if usize::from(index) < count => {
                        Ok([red, green, blue])
                    }
                    _ => Err(format!("a pixel has colour {index} of a palette of {count}")),
                }
            };
            let colours: Result<Vec<[u8; 3]>, String> = pixels.map(|it| colour(it[0])).collect();
            return Ok(colours?.concat());
        }
        match self.colour {
            _ if grey => Ok(pixels.flat_map(|it| [it[0] * scale; 3]).collect()),
            ColorType::RGB(_) | ColorType::RGBA(_) if self.weighed => Ok(pixels
                .flat_map(|it| [part(it[0], it[3]), part(it[1], it[3]), part(it[2], it[3])])
                .collect()),
            ColorType::RGB(_) | ColorType::RGBA(_) => {
                Ok(pixels.flat_map(|it| [it[0], it[1], it[2]]).collect())
            }
            ColorType::CMYK(_) | ColorType::CMYKA(_) => {
                let light = |ink: u8, black: u8| {
                    (u32::from(255 - ink) * u32::from(255 - black) / 255) as u8
                };
                Ok(pixels
                    .flat_map(|it| [light(it[0], it[3]), light(it[1], it[3]), light(it[2], it[3])])
                    .collect())
            }
            other => {
                Err(format!("its colours are {other:?}; expected grey, a palette, RGB or CMYK"))
            }
        }
    }
}

/// The tiff crate reads no palettes: with this one word changed, the indices are grey values.
/// Whether it was.
fn as_indices(bytes: &[u8]) -> (Cow<'_, [u8]>, bool) {
    const PHOTOMETRIC: u16 = 0x0106;
    const PALETTE: u16 = 3;
    match exif::entry(bytes, PHOTOMETRIC) {
        Some((at, PALETTE)) => {
            let grey: u16 = 1;
            let grey = if bytes[0] == b'I' { grey.to_le_bytes() } else { grey.to_be_bytes() };
            let mut bytes = bytes.to_vec();
            bytes[at..at + 2].copy_from_slice(&grey);
            (Cow::Owned(bytes), true)
        }
        _ => (Cow::Borrowed(bytes), false),
    }
}

/// Values of 1, 2 or 4 bits, the first of a byte in its upper bits.
fn unpacked(packed: &[u8], depth: u8, row_stride: usize, row: usize) -> Result<Vec<u8>, String> {
    if !matches!(depth, 1 | 2 | 4)
        || row_stride == 0
        || row.div_ceil(8 / usize::from(depth)) > row_stride
    {
        return Err(format!("it has {depth} bits a value; expected 1, 2, 4, 8 or 16"));
    }
    let each = 8 / usize::from(depth);
    let mask = (1 << depth) - 1;
    let value =
        |row: &[u8], x: usize| (row[x / each] >> (8 - usize::from(depth) * (x % each + 1))) & mask;
    Ok(packed
        .chunks_exact(row_stride)
        .flat_map(|bytes| (0..row).map(move |x| value(bytes, x)))
        .collect())
}

/// Channels that lie one after the other, pixel by pixel.
fn together<T: Copy>(planes: &[T], count: usize) -> Vec<T> {
    let each = planes.len() / count;
    (0..each).flat_map(|at| (0..count).map(move |plane| planes[plane * each + at])).collect()
}
