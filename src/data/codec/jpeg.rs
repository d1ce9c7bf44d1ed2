//! JPEG through zune-jpeg. It decodes whole images only; a file that ends early is an error, not a grey lower half.

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
    pixels(bytes, ColorSpace::BGR, |width, pixels| {
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

/// Whether the end-of-image marker comes after the start of the first scan. (A thumbnail in the header has one of its own.)
fn is_whole(bytes: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xda;
    let mut at = 2;
    while let Some(&[marker_start, marker, high, low]) = bytes.get(at..at + 4) {
        if marker_start != 0xff {
            return false;
        }
        if marker == 0xff {
            at += 1;
            continue;
        }
        at += 2 + usize::from(u16::from_be_bytes([high, low]));
        if marker == START_OF_SCAN {
            return bytes.get(at..).is_some_and(|scan| scan.windows(2).rev().any(|pair| pair == [0xff, 0xd9]));
        }
    }
    false
}
