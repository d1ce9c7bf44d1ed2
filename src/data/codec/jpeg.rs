//! JPEG through zune-jpeg; a file that ends early is an error, not a grey lower half.
//!
//! zune-jpeg decodes whole images. It is shown a header with fewer rows where only the upper part is wanted: a baseline image
//! is coded in stripes from the top, so the decoder then stops early, and what it has made is the same.

use std::ops::Range;

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::{Header, exif};
use crate::data::scratch::Scratch;

pub(super) fn header(bytes: &[u8]) -> Result<Header, String> {
    let mut decoder = decoder(bytes, ColorSpace::BGR);
    decoder.decode_headers().map_err(|error| error.to_string())?;
    let (width, height) = decoder.dimensions().ok_or("it has no size")?;
    if !is_whole(bytes) {
        return Err("it ends before the image does (no end-of-image marker): the file is truncated".into());
    }
    let orientation = decoder.exif().map_or(1, |tiff| exif::orientation(tiff));
    Ok(Header { shape: (height, width), orientation })
}

pub(super) fn decode(bytes: &[u8], rows: Range<usize>, take: &mut dyn FnMut(usize, &[u8])) -> Result<(), String> {
    let shortened = shortened(bytes, rows.end);
    pixels(shortened.as_deref().map_or(bytes, |it| it.as_slice()), ColorSpace::BGR, |width, pixels| {
        for (y, row) in pixels.chunks_exact(width * 3).enumerate().take(rows.end).skip(rows.start) {
            take(y, row);
        }
    })
}

/// Decodes a JPEG of one channel.
pub(super) fn grey(bytes: &[u8]) -> Result<(usize, usize, Vec<u8>), String> {
    let mut probe = decoder(bytes, ColorSpace::Luma);
    probe.decode_headers().map_err(|error| error.to_string())?;
    if probe.input_colorspace() != Some(ColorSpace::Luma) {
        return Err("it is a colour JPEG; expected one channel of class indices".into());
    }
    let (width, height) = probe.dimensions().ok_or("it has no size")?;
    let mut data = Vec::new();
    pixels(bytes, ColorSpace::Luma, |_, pixels| data.extend_from_slice(pixels))?;
    Ok((height, width, data))
}

fn pixels(bytes: &[u8], colours: ColorSpace, use_them: impl FnOnce(usize, &[u8])) -> Result<(), String> {
    let mut decoder = decoder(bytes, colours);
    decoder.decode_headers().map_err(|error| error.to_string())?;
    let (width, _) = decoder.dimensions().ok_or("it has no size")?;
    let mut pixels = Scratch::sized(decoder.output_buffer_size().ok_or("it has no size")?);
    decoder.decode_into(&mut pixels).map_err(|error| error.to_string())?;
    use_them(width, &pixels);
    Ok(())
}

fn decoder(bytes: &[u8], colours: ColorSpace) -> JpegDecoder<ZCursor<&[u8]>> {
    let options = DecoderOptions::default().jpeg_set_out_colorspace(colours).set_max_width(1 << 16).set_max_height(1 << 16);
    JpegDecoder::new_with_options(ZCursor::new(bytes), options)
}

/// The file as one of a lower image: at least `rows` high, and those rows as in the whole image. `None` where nothing would be
/// saved, and for files that are not coded in one pass from the top (progressive ones, one component after the other).
fn shortened(bytes: &[u8], rows: usize) -> Option<Scratch> {
    const BASELINE: [u8; 2] = [0xc0, 0xc1];
    let (frame, frame_at) =
        segments(bytes).find(|(marker, _)| matches!(marker, 0xc0..=0xcf if ![0xc4, 0xc8, 0xcc].contains(marker)))?;
    let (_, scan_at) = segments(bytes).find(|&(marker, _)| marker == START_OF_SCAN)?;
    // A frame's header: precision, height, width, and for each component its name, sampling factors and table.
    let &[_, high, low, _, _, components, ref sampling @ ..] = bytes.get(frame_at..)? else { return None };
    if !BASELINE.contains(&frame) || bytes.get(scan_at) != Some(&components) {
        return None;
    }
    let vertical = sampling.chunks_exact(3).take(components.into()).map(|it| usize::from(it[1] & 15)).max()?;
    let stripe = 8 * vertical;
    // Colours of fewer rows than the brightness are blended with those of the next stripe.
    let stripes = rows.div_ceil(stripe) + usize::from(vertical > 1);
    let height = u16::try_from(stripes * stripe).ok().filter(|&it| it < u16::from_be_bytes([high, low]))?;
    let mut lower = Scratch::new();
    lower.extend_from_slice(bytes);
    lower[frame_at + 1..frame_at + 3].copy_from_slice(&height.to_be_bytes());
    Some(lower)
}

const START_OF_SCAN: u8 = 0xda;

/// The markers before the first scan's data, that of the scan included, each with the place of its content.
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
            at = (marker != START_OF_SCAN).then(|| place + 2 + usize::from(u16::from_be_bytes([high, low])));
            return Some((marker, place + 4));
        }
    })
}

/// Whether the end-of-image marker comes after the start of the first scan. (A thumbnail in the header has one of its own.)
fn is_whole(bytes: &[u8]) -> bool {
    let scan = segments(bytes).find(|&(marker, _)| marker == START_OF_SCAN);
    scan.and_then(|(_, at)| bytes.get(at..)).is_some_and(|scan| scan.windows(2).rev().any(|pair| pair == [0xff, 0xd9]))
}

#[cfg(test)]
mod tests {
    use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

    use super::*;

    const HEIGHT: usize = 101;
    const WIDTH: usize = 67;

    fn encoded(sampling: SamplingFactor, progressive: bool) -> Vec<u8> {
        let pixels: Vec<u8> = (0..HEIGHT * WIDTH * 3).map(|it| ((it * it / 7) ^ (it / 200)) as u8).collect();
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, 90);
        encoder.set_sampling_factor(sampling);
        encoder.set_progressive(progressive);
        encoder.encode(&pixels, WIDTH as u16, HEIGHT as u16, ColorType::Rgb).expect("a small picture");
        bytes
    }

    fn rows(bytes: &[u8], rows: Range<usize>) -> Vec<Vec<u8>> {
        let mut taken = Vec::new();
        decode(bytes, rows, &mut |_, row| taken.push(row.to_vec())).expect("a whole picture");
        taken
    }

    #[test]
    fn the_upper_rows_are_those_of_the_whole_image() {
        for sampling in [SamplingFactor::F_1_1, SamplingFactor::F_2_1, SamplingFactor::F_1_2, SamplingFactor::F_2_2] {
            for progressive in [false, true] {
                let bytes = encoded(sampling, progressive);
                let whole = rows(&bytes, 0..HEIGHT);
                for end in [1, 8, 15, 16, 17, 48, 90, HEIGHT] {
                    assert!(rows(&bytes, end / 2..end) == whole[end / 2..end], "{sampling:?}, progressive {progressive}, {end}");
                }
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
        assert!(rows(&damaged, 0..HEIGHT)[..] != rows(&bytes, 0..HEIGHT)[..], "the damage shows where it is decoded");
        assert!(shortened(&bytes, 16).is_some() && shortened(&bytes, 90).is_none());
    }
}
