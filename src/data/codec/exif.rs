//! EXIF orientation: how a camera was held. OpenCV turns images by it when it reads them.

use crate::data::Image;

/// The orientation, 1 to 8, in a TIFF block (what follows `Exif\0\0` in a JPEG, a PNG's whole `eXIf` chunk); 1 if it has none.
pub(super) fn orientation(tiff: &[u8]) -> u8 {
    find(tiff).filter(|value| (1..=8).contains(value)).map_or(1, |value| value as u8)
}

fn find(tiff: &[u8]) -> Option<u16> {
    const ORIENTATION: u16 = 0x0112;
    entry(tiff, ORIENTATION).map(|(_, value)| value)
}

/// Where in a TIFF block the value of a tag lies, for those of 16 bits, and the value.
pub(super) fn entry(tiff: &[u8], tag: u16) -> Option<(usize, u16)> {
    let block = Block::of(tiff)?;
    let at = block.entry(tag)?;
    Some((at + 8, block.short(at + 8)?))
}

/// The values of a tag of 16 bits, at most `most` of them.
pub(super) fn shorts(tiff: &[u8], tag: u16, most: usize) -> Option<Vec<u16>> {
    let block = Block::of(tiff)?;
    let at = block.entry(tag)?;
    let count = block.long(at + 4)? as usize;
    let start = if count > 2 { block.long(at + 8)? as usize } else { at + 8 };
    (count <= most).then(|| (0..count).map(|index| block.short(start.checked_add(2 * index)?)).collect())?
}

/// Numbers in a file's own order of bytes.
struct Block<'a> {
    bytes: &'a [u8],
    little: bool,
}

impl<'a> Block<'a> {
    fn of(bytes: &'a [u8]) -> Option<Self> {
        match bytes.get(..2)? {
            b"II" => Some(Self { bytes, little: true }),
            b"MM" => Some(Self { bytes, little: false }),
            _ => None,
        }
    }

    fn short(&self, at: usize) -> Option<u16> {
        let bytes = self.bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if self.little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    }

    fn long(&self, at: usize) -> Option<u32> {
        let bytes = self.bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if self.little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    /// Where the entry of a tag lies in the first directory.
    fn entry(&self, tag: u16) -> Option<usize> {
        let directory = self.long(4)? as usize;
        let count = usize::from(self.short(directory)?);
        (0..count).map(|number| directory + 2 + 12 * number).find(|&at| self.short(at) == Some(tag))
    }
}

/// The image as it is to be seen.
pub(super) fn upright(image: Image, orientation: u8) -> Image {
    let (height, width) = image.shape();
    // For each pixel of the upright image where it is stored.
    let stored: fn(usize, usize, usize, usize) -> (usize, usize) = match orientation {
        2 => |y, x, _, w| (y, w - 1 - x),
        3 => |y, x, h, w| (h - 1 - y, w - 1 - x),
        4 => |y, x, h, _| (h - 1 - y, x),
        5 => |y, x, _, _| (x, y),
        6 => |y, x, h, _| (h - 1 - x, y),
        7 => |y, x, h, w| (h - 1 - x, w - 1 - y),
        8 => |y, x, _, w| (x, w - 1 - y),
        _ => return image,
    };
    let (rows, columns) = if orientation >= 5 { (width, height) } else { (height, width) };
    let mut data = Vec::with_capacity(image.data.len());
    for y in 0..rows {
        for x in 0..columns {
            let (y, x) = stored(y, x, height, width);
            data.extend_from_slice(&image.pixel(y, x));
        }
    }
    Image { height: rows, width: columns, data }
}
