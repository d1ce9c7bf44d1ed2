//! BMP and WebP through the image crate. They are rare in datasets and decoded whole; the pixels
//! are those that OpenCV reads.

use std::io::Cursor;
use std::ops::Range;

use image::codecs::bmp::BmpDecoder;
use image::codecs::webp::WebPDecoder;
use image::{DynamicImage, ImageDecoder};

use super::{Header, believable};
use crate::data::image::room;

/// Which of them a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bmp,
    WebP,
}

impl Kind {
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [b'B', b'M', ..] if bytes.len() > 26 => Some(Self::Bmp),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::WebP),
            _ => None,
        }
    }

    /// The most pixels that a byte of it holds: what compresses well may be flat.
    fn density(self) -> usize {
        match self {
            Self::WebP => 1 << 14,
            // Run lengths: two bytes for 255 pixels.
            Self::Bmp => 128,
        }
    }

    fn decoder<'a>(self, bytes: &'a [u8]) -> Result<Box<dyn ImageDecoder + 'a>, String> {
        let cursor = Cursor::new(bytes);
        let told = |error: image::ImageError| error.to_string();
        Ok(match self {
            Self::Bmp => Box::new(BmpDecoder::new(cursor).map_err(told)?),
            Self::WebP => Box::new(WebPDecoder::new(cursor).map_err(told)?),
        })
    }

    pub(super) fn header(self, bytes: &[u8]) -> Result<Header, String> {
        let (width, height) = self.decoder(bytes)?.dimensions();
        let shape = (height as usize, width as usize);
        believable(shape, self.density(), bytes.len())?;
        Ok(Header { shape, orientation: 1 })
    }

    fn image(self, bytes: &[u8]) -> Result<DynamicImage, String> {
        let (height, width) = self.header(bytes)?.shape;
        let decoder = self.decoder(bytes)?;
        let size = usize::try_from(decoder.total_bytes()).unwrap_or(usize::MAX);
        // A decoder of WebP has its own copies beside what it hands over.
        room::<3>(height, size.div_ceil(height.max(1)).max(width))?;
        DynamicImage::from_decoder(decoder).map_err(|error| error.to_string())
    }

    /// Hands over rows as red, green, blue. Transparency is left out, as OpenCV does.
    pub(super) fn decode(
        self,
        bytes: &[u8],
        rows: Range<usize>,
        take: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<(), String> {
        let (width, mut pixels) = colours(self.image(bytes)?)?;
        if self == Self::Bmp && depth(bytes) == 16 {
            cut_to_stored_bits(bytes, &mut pixels);
        }
        let rows = pixels.chunks_exact(width * 3).enumerate().take(rows.end).skip(rows.start);
        rows.for_each(|(y, row)| take(y, row));
        Ok(())
    }

    /// One channel as it is stored: a grey picture's values, or a palette's indices. The height,
    /// the width, the values.
    pub(super) fn indices(self, bytes: &[u8]) -> Result<(usize, usize, Vec<u8>), String> {
        let Header { shape, .. } = self.header(bytes)?;
        if self == Self::Bmp && matches!(depth(bytes), 1 | 4 | 8) {
            return Ok((shape.0, shape.1, bmp_indices(bytes, shape)?));
        }
        let channels = self.image(bytes)?.color().channel_count();
        Err(format!(
            "it is a picture of {channels} channels; expected one channel of class indices (a grey \
             or palette picture)"
        ))
    }
}

/// Bytes of a BMP's header as a number, the lowest first.
fn number(bytes: &[u8], at: usize, size: usize) -> usize {
    bytes
        .get(at..at + size)
        .unwrap_or_default()
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// Bits a pixel of a BMP; 0 in a header of OS/2's kind.
fn depth(bytes: &[u8]) -> usize {
    const HEADER: usize = 40;
    if number(bytes, 14, 4) < HEADER { 0 } else { number(bytes, 28, 2) }
}

/// Five or six bits a colour: OpenCV shifts them to the upper end of a byte, where the image crate
/// spreads them over all of it.
fn cut_to_stored_bits(bytes: &[u8], pixels: &mut [u8]) {
    const MASK_OF_GREEN: usize = 58;
    const SIX_BITS: usize = 0x07e0;
    let fields = number(bytes, 30, 4) == 3;
    let green = if fields && number(bytes, MASK_OF_GREEN, 4) == SIX_BITS { 0xfc } else { 0xf8 };
    pixels
        .chunks_exact_mut(3)
        .for_each(|it| (it[0], it[1], it[2]) = (it[0] & 0xf8, it[1] & green, it[2] & 0xf8));
}

/// The indices of a BMP with a palette, which the image crate gives the colours of.
fn bmp_indices(bytes: &[u8], (height, width): (usize, usize)) -> Result<Vec<u8>, String> {
    let (start, depth) = (number(bytes, 10, 4), depth(bytes));
    if number(bytes, 30, 4) != 0 {
        return Err(
            "it is packed (run lengths), which label maps are not read from; save it as it is, or \
             as PNG"
                .to_owned(),
        );
    }
    // A height below 0 says that the first row is the upper one.
    let from_the_top = number(bytes, 22, 4) >> 31 == 1;
    let stride = (width * depth).div_ceil(32) * 4;
    let rows = bytes
        .get(start..start + stride * height)
        .ok_or("its rows end before the picture does: it is damaged")?;
    let each = 8 / depth;
    let mask = u8::MAX >> (8 - depth);
    let value = |row: &[u8], x: usize| row[x / each] >> (8 - depth * (x % each + 1)) & mask;
    let row = |y: usize| {
        let at = if from_the_top { y } else { height - 1 - y };
        &rows[at * stride..(at + 1) * stride]
    };
    Ok((0..height).flat_map(|y| (0..width).map(move |x| value(row(y), x))).collect())
}

/// The width, and three bytes for each pixel.
fn colours(image: DynamicImage) -> Result<(usize, Vec<u8>), String> {
    let width = image.width() as usize;
    match image {
        DynamicImage::ImageRgb8(it) => Ok((width, it.into_raw())),
        DynamicImage::ImageRgba8(it) => Ok((
            width,
            it.into_raw().chunks_exact(4).flat_map(|it| [it[0], it[1], it[2]]).collect(),
        )),
        DynamicImage::ImageLuma8(it) => {
            Ok((width, it.into_raw().into_iter().flat_map(|it| [it; 3]).collect()))
        }
        other => Err(format!("its colours are {:?}; expected 8 bits a channel", other.color())),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use image::{ColorType, ImageFormat};

    use crate::data::{read_image, read_label};

    fn write(path: &Path, pixels: &[u8], colour: ColorType, format: ImageFormat) {
        image::save_buffer_with_format(path, pixels, 3, 2, colour, format).expect("writes");
    }

    #[test]
    fn pictures_of_every_kind_have_their_pixels_whatever_their_names() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("picture.jpg");
        let rgb: Vec<u8> = (0..18).map(|it| it * 14).collect();
        let bgr: Vec<u8> = rgb.chunks_exact(3).flat_map(|it| [it[2], it[1], it[0]]).collect();
        for format in [ImageFormat::Tiff, ImageFormat::Bmp, ImageFormat::WebP] {
            write(&path, &rgb, ColorType::Rgb8, format);
            let read = read_image(&path).expect("reads");
            assert_eq!(((read.height, read.width), read.data), ((2, 3), bgr.clone()), "{format:?}");
        }
        let rgba: Vec<u8> = rgb.chunks_exact(3).flat_map(|it| [it[0], it[1], it[2], 9]).collect();
        for format in [ImageFormat::Tiff, ImageFormat::Bmp, ImageFormat::WebP] {
            write(&path, &rgba, ColorType::Rgba8, format);
            assert_eq!(
                read_image(&path).expect("reads").data,
                bgr,
                "{format:?}: transparency is left out"
            );
        }
        write(&path, &[0, 50, 100, 150, 200, 250], ColorType::L8, ImageFormat::Tiff);
        assert_eq!(read_image(&path).expect("reads").data[3..6], [50; 3]);
        let deep: Vec<u8> =
            [0x1234_u16, 0xffff, 0, 1, 2, 3].iter().flat_map(|it| it.to_ne_bytes()).collect();
        write(&path, &deep, ColorType::L16, ImageFormat::Tiff);
        assert_eq!(
            read_image(&path).expect("reads").data[..4],
            [0x12, 0x12, 0x12, 0xff],
            "the upper 8 of 16 bits"
        );
    }

    #[test]
    fn label_maps_have_one_channel_as_it_is_stored() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("labels.png");
        for format in [ImageFormat::Tiff, ImageFormat::Bmp] {
            write(&path, &[0, 1, 2, 3, 255, 5], ColorType::L8, format);
            assert_eq!(read_label(&path).expect("reads").data, [0, 1, 2, 3, 255, 5], "{format:?}");
        }
        write(&path, &[7; 18], ColorType::Rgb8, ImageFormat::Tiff);
        assert!(
            read_label(&path).expect_err("colours").to_string().contains("a picture of 3 channels")
        );
        std::fs::write(&path, b"II*\0torn").expect("writes");
        assert!(
            read_label(&path).expect_err("torn").to_string().contains("failed to decode label map")
        );
    }
}
