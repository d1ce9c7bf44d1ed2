//! JPEG through mozjpeg's build of libjpeg-turbo, which makes the very pixels that OpenCV makes; a
//! file that ends early is an error, not a grey lower half.
//!
//! Rows come in stripes from the top, so decoding stops after the last row that is wanted. libjpeg
//! reports its errors by unwinding: they are caught here.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mozjpeg::{ColorSpace, ColorSpaceExt, Decompress};

use super::{Header, believable, exif};
use crate::data::image::room;
use crate::data::scratch::Scratch;

/// Rows that are decoded at once: the height of a block of the usual 4:2:0 sampling.
const STRIPE: usize = 16;

pub(super) fn header(bytes: &[u8]) -> Result<Header, String> {
    let (width, height) = guarded(|| Ok(opened(bytes)?.size()))?;
    if !is_whole(bytes) {
        return Err(
            "it ends before the image does (no end-of-image marker): the file is truncated".into(),
        );
    }
    Ok(Header { shape: (height, width), orientation: exif(bytes).map_or(1, exif::orientation) })
}

pub(super) fn decode(
    bytes: &[u8],
    rows: Range<usize>,
    take: &mut dyn FnMut(usize, &[u8]),
) -> Result<(), String> {
    guarded(|| {
        let decoder = opened(bytes)?;
        let width = decoder.width();
        let inks = matches!(decoder.color_space(), ColorSpace::JCS_CMYK | ColorSpace::JCS_YCCK);
        let colours = if inks { ColorSpace::JCS_CMYK } else { ColorSpace::JCS_EXT_BGR };
        let mut mixed = Scratch::new();
        stripes(decoder, colours, rows.end, |y, row| {
            if y < rows.start {
                return;
            }
            if inks {
                mixed.clear();
                row.chunks_exact(4).for_each(|it| {
                    mixed.extend_from_slice(&mixed_inks([it[0], it[1], it[2], it[3]]));
                });
                take(y, &mixed[..width * 3]);
            } else {
                take(y, row);
            }
        })
    })
}

/// Reads the header. libjpeg takes memory for what it says, a progressive file's for all of the
/// picture.
fn opened(bytes: &[u8]) -> Result<Decompress<&[u8]>, Refused> {
    let decoder = Decompress::new_mem(bytes)?;
    let (width, height) = decoder.size();
    believable((height, width), DENSITY, bytes.len()).map_err(Refused)?;
    Ok(decoder)
}

/// A block of 8 by 8 pixels takes a bit at least, so a byte holds no more than eight of them.
const DENSITY: usize = 8 * 64;

/// Decodes a JPEG of one channel.
pub(super) fn grey(bytes: &[u8]) -> Result<(usize, usize, Vec<u8>), String> {
    guarded(|| {
        let decoder = opened(bytes)?;
        if decoder.color_space() != ColorSpace::JCS_GRAYSCALE {
            return Err("it is a colour JPEG; expected one channel of class indices".into());
        }
        let (width, height) = decoder.size();
        room::<1>(height, width)?;
        let mut data = Vec::with_capacity(width * height);
        stripes(decoder, ColorSpace::JCS_GRAYSCALE, height, |_, row| data.extend_from_slice(row))?;
        Ok((height, width, data))
    })
}

/// Hands the first `end` rows to `take`.
fn stripes(
    decoder: Decompress<&[u8]>,
    colours: ColorSpace,
    end: usize,
    mut take: impl FnMut(usize, &[u8]),
) -> Result<(), Refused> {
    let mut started = decoder.to_colorspace(colours)?;
    let row = started.width() * started.color_space().num_components();
    let mut stripe = Scratch::sized(row * STRIPE);
    let mut y = 0;
    while y < end {
        let rows = STRIPE.min(end - y);
        for pixels in started.read_scanlines_into(&mut stripe[..rows * row])?.chunks_exact(row) {
            take(y, pixels);
            y += 1;
        }
    }
    Ok(())
}

/// Four inks, as the files of image editors have them (inverted), to blue, green, red: OpenCV's
/// integers.
fn mixed_inks([cyan, magenta, yellow, key]: [u8; 4]) -> [u8; 3] {
    let light = |ink: u8| key - ((u16::from(255 - ink) * u16::from(key)) >> 8) as u8;
    [light(yellow), light(magenta), light(cyan)]
}

/// Why an image was refused, in libjpeg's words or ours.
struct Refused(String);

impl From<std::io::Error> for Refused {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<String> for Refused {
    fn from(reason: String) -> Self {
        Self(reason)
    }
}

impl From<&str> for Refused {
    fn from(reason: &str) -> Self {
        Self(reason.to_owned())
    }
}

fn guarded<T>(work: impl FnOnce() -> Result<T, Refused>) -> Result<T, String> {
    let told = |payload: Box<dyn Any + Send>| match payload.downcast::<String>() {
        Ok(message) => message.trim_start_matches("libjpeg fatal error: ").to_owned(),
        Err(other) => std::panic::resume_unwind(other),
    };
    catch_unwind(AssertUnwindSafe(work)).map_err(told)?.map_err(|it| it.0)
}

/// The TIFF structure with the orientation in it.
fn exif(bytes: &[u8]) -> Option<&[u8]> {
    const APP1: u8 = 0xe1;
    let mut found =
        segments(bytes).filter(|&(marker, _)| marker == APP1).filter_map(|(_, at)| bytes.get(at..));
    found.find_map(|content| content.strip_prefix(b"Exif\0\0"))
}

const START_OF_SCAN: u8 = 0xda;

/// The markers before the first scan's data, that of the scan included, each with the place of its
/// content.
fn segments(bytes: &[u8]) -> impl Iterator<Item = (u8, usize)> {
    let mut at = Some(2);
    std::iter::from_fn(move || {
        loop {
            let place = at?;
            let &[0xff, marker, high, low] = bytes.get(place..place + 4)? else { return None };
            if marker == 0xff {
                at = Some(place + 1);
                continue;
            }
            at = (marker != START_OF_SCAN)
                .then(|| place + 2 + usize::from(u16::from_be_bytes([high, low])));
            return Some((marker, place + 4));
        }
    })
}

/// Whether the end-of-image marker comes after the start of the first scan. (A thumbnail in the
/// header has one of its own.)
fn is_whole(bytes: &[u8]) -> bool {
    let scan = segments(bytes).find(|&(marker, _)| marker == START_OF_SCAN);
    scan.and_then(|(_, at)| bytes.get(at..))
        .is_some_and(|scan| scan.windows(2).rev().any(|pair| pair == [0xff, 0xd9]))
}

#[cfg(test)]
mod tests {
    use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

    use super::*;

    const HEIGHT: usize = 101;
    const WIDTH: usize = 67;

    fn encoded(sampling: SamplingFactor, progressive: bool) -> Vec<u8> {
        let pixels: Vec<u8> =
            (0..HEIGHT * WIDTH * 3).map(|it| ((it * it / 7) ^ (it / 200)) as u8).collect();
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, 90);
        encoder.set_sampling_factor(sampling);
        encoder.set_progressive(progressive);
        encoder
            .encode(&pixels, WIDTH as u16, HEIGHT as u16, ColorType::Rgb)
            .expect("a small picture");
        bytes
    }

    fn rows(bytes: &[u8], rows: Range<usize>) -> Vec<Vec<u8>> {
        let mut taken = Vec::new();
        decode(bytes, rows, &mut |_, row| taken.push(row.to_vec())).expect("a whole picture");
        taken
    }

    #[test]
    fn the_upper_rows_are_those_of_the_whole_image() {
        for sampling in [
            SamplingFactor::F_1_1,
            SamplingFactor::F_2_1,
            SamplingFactor::F_1_2,
            SamplingFactor::F_2_2,
        ] {
            for progressive in [false, true] {
                let bytes = encoded(sampling, progressive);
                let whole = rows(&bytes, 0..HEIGHT);
                for end in [1, 8, 15, 16, 17, 48, 90, HEIGHT] {
                    assert!(
                        rows(&bytes, end / 2..end) == whole[end / 2..end],
                        "{sampling:?}, progressive {progressive}, {end}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_header_that_claims_too_much_is_refused_before_memory_is_taken() {
        for progressive in [false, true] {
            let mut bytes = encoded(SamplingFactor::F_2_2, progressive);
            let frame = segments(&bytes)
                .find(|(marker, _)| matches!(marker, 0xc0..=0xc2))
                .expect("a frame")
                .1;
            bytes[frame + 1..frame + 5].copy_from_slice(&[0xfd, 0xe8, 0xfd, 0xe8]);
            for error in [
                header(&bytes).map(|_| ()),
                grey(&bytes).map(|_| ()),
                decode(&bytes, 0..1, &mut |_, _| {}),
            ] {
                let error = error.expect_err("refused");
                assert!(error.contains("65000x65000 pixels"), "{error}");
            }
        }
    }

    #[test]
    fn rows_below_the_wanted_ones_are_not_decoded() {
        let bytes = encoded(SamplingFactor::F_2_2, false);
        let whole = rows(&bytes, 0..16);
        let mut damaged = bytes.clone();
        let lower = damaged.len() * 3 / 4..damaged.len() - 2;
        damaged[lower].fill(0x55);
        assert!(rows(&damaged, 0..16) == whole);
        assert!(
            rows(&damaged, 0..HEIGHT)[..] != rows(&bytes, 0..HEIGHT)[..],
            "the damage shows where it is decoded"
        );
    }
}
