//! PNG through the png crate, row by row: decoding stops after the last row that is wanted.

use std::io::Cursor;
use std::ops::Range;

use png::{ColorType, Decoder, DecodingError, Reader, Transformations};

use super::{Header, believable, exif};
use crate::data::image::room;

pub(super) fn header(bytes: &[u8]) -> Result<Header, String> {
    if !is_whole(bytes) {
        return Err("it ends before the image does (no IEND chunk): the file is truncated".into());
    }
    let reader = reader(bytes, Transformations::IDENTITY)?;
    let info = reader.info();
    let orientation = info.exif_metadata.as_deref().map_or(1, exif::orientation);
    Ok(Header { shape: (info.height as usize, info.width as usize), orientation })
}

pub(super) fn decode(
    bytes: &[u8],
    rows: Range<usize>,
    take: &mut dyn FnMut(usize, &[u8]),
) -> Result<(), String> {
    let mut reader = reader(bytes, Transformations::normalize_to_color8())?;
    let width = reader.info().width as usize;
    let channels = reader.output_color_type().0.samples();
    let mut colours = vec![0; width * 3];
    let mut give = |y: usize, row: &[u8]| {
        if channels == 3 {
            take(y, row);
        } else {
            to_colours(row, channels, &mut colours);
            take(y, &colours);
        }
    };
    let height = reader.info().height as usize;
    if reader.info().interlaced {
        let mut pixels = vec![0; size(&reader)?];
        reader.next_frame(&mut pixels).map_err(|error| damaged(&error))?;
        for (y, row) in
            pixels.chunks_exact(width * channels).enumerate().take(rows.end).skip(rows.start)
        {
            give(y, row);
        }
        return Ok(());
    }
    for y in 0..rows.end {
        let row = reader
            .next_row()
            .map_err(|error| damaged(&error))?
            .ok_or("it has fewer rows than its header says")?;
        if y >= rows.start {
            give(y, row.data());
        }
    }
    if rows.end >= height {
        // The sums behind the last row.
        reader.next_row().map_err(|error| damaged(&error))?;
    }
    Ok(())
}

/// The samples as they are stored, 1 to 16 bits each, packed; nothing is expanded.
pub(super) fn samples(bytes: &[u8]) -> Result<Samples, String> {
    let mut reader = reader(bytes, Transformations::IDENTITY)?;
    let mut data = vec![0; size(&reader)?];
    reader.next_frame(&mut data).map_err(|error| damaged(&error))?;
    let info = reader.info();
    Ok(Samples {
        height: info.height as usize,
        width: info.width as usize,
        colours: info.color_type,
        bits: info.bit_depth as usize,
        data,
    })
}

/// What a PNG stores.
pub(super) struct Samples {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) colours: ColorType,
    pub(super) bits: usize,
    /// Rows, each beginning on a byte.
    pub(super) data: Vec<u8>,
}

/// Bytes of the whole picture, for which there is room.
fn size(reader: &Reader<Cursor<&[u8]>>) -> Result<usize, String> {
    let (height, width) = (reader.info().height as usize, reader.info().width as usize);
    let size = reader
        .output_buffer_size()
        .ok_or_else(|| format!("out of memory: {height}x{width} pixels (height x width)"))?;
    room::<1>(height, size.div_ceil(height.max(1)))?;
    Ok(size)
}

fn reader(bytes: &[u8], transformations: Transformations) -> Result<Reader<Cursor<&[u8]>>, String> {
    let mut decoder = Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(transformations);
    decoder.ignore_checksums(false);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let info = decoder.read_header_info().map_err(|error| damaged(&error))?;
    let bits = info.color_type.samples() * info.bit_depth as usize;
    believable(
        (info.height as usize, info.width as usize),
        (DEFLATE * 8).div_ceil(bits),
        bytes.len(),
    )?;
    decoder.read_info().map_err(|error| damaged(&error))
}

/// What is wrong with the bytes.
fn damaged(error: &DecodingError) -> String {
    match error {
        DecodingError::Format(_) => {
            format!("its bytes are damaged ({error}): copy or fetch it again")
        }
        _ => error.to_string(),
    }
}

/// The most bytes that deflate makes of one.
const DEFLATE: usize = 1032;

/// Grey becomes three equal channels; alpha is dropped, not blended: OpenCV's `IMREAD_COLOR`.
fn to_colours(row: &[u8], channels: usize, colours: &mut [u8]) {
    for (from, to) in row.chunks_exact(channels).zip(colours.chunks_exact_mut(3)) {
        match from {
            [red, green, blue, _] => to.copy_from_slice(&[*red, *green, *blue]),
            [grey, ..] => to.fill(*grey),
            [] => {}
        }
    }
}

/// Whether the chunks reach to IEND. Without this a file cut below the crop would go unnoticed.
fn is_whole(bytes: &[u8]) -> bool {
    let mut at = 8;
    while let Some(&[a, b, c, d, ref name @ ..]) = bytes.get(at..at + 8) {
        at += 12 + u32::from_be_bytes([a, b, c, d]) as usize;
        if name == b"IEND" {
            return at <= bytes.len();
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A PNG whose header says another size than its data have.
    fn claiming(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 4, 4);
        encoder.set_color(ColorType::Rgb);
        encoder
            .write_header()
            .and_then(|mut it| it.write_image_data(&[7; 48]))
            .expect("a small picture");
        bytes[16..20].copy_from_slice(&width.to_be_bytes());
        bytes[20..24].copy_from_slice(&height.to_be_bytes());
        let sum = crc32fast::hash(&bytes[12..29]).to_be_bytes();
        bytes[29..33].copy_from_slice(&sum);
        bytes
    }

    #[test]
    fn a_header_that_claims_too_much_is_refused_before_memory_is_taken() {
        for (width, height) in [(2_000_000_000, 1), (60_000, 60_000), (30_000, 30_000), (400, 400)]
        {
            let bytes = claiming(width, height);
            let errors = [
                header(&bytes).map(|_| ()).expect_err("refused"),
                samples(&bytes).map(|_| ()).expect_err("refused"),
                decode(&bytes, 0..1, &mut |_, _| {}).expect_err("refused"),
            ];
            for error in errors {
                assert!(error.contains(&format!("{width}x{height}")), "{error}");
            }
        }
        assert!(header(&claiming(4, 4)).is_ok());
    }
}
