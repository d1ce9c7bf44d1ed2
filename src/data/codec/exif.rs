//! EXIF orientation: how a camera was held. OpenCV turns images by it when it reads them.

use crate::data::Image;

/// The orientation, 1 to 8, in a TIFF block (what follows `Exif\0\0` in a JPEG, a PNG's whole
/// `eXIf` chunk); 1 if it has none.
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
    let at = block.value(tag)?.1;
    Some((at, block.short(at)?))
}

/// The values of a tag of 16 bits, at most `most` of them.
pub(super) fn shorts(tiff: &[u8], tag: u16, most: usize) -> Option<Vec<u16>> {
    let block = Block::of(tiff)?;
    let (count, at) = block.value(tag)?;
    let start = if 2 * count > block.word { block.offset(at)? } else { at };
    (count <= most)
        .then(|| (0..count).map(|index| block.short(start.checked_add(2 * index)?)).collect())?
}

/// Numbers in a file's own order of bytes.
struct Block<'a> {
    bytes: &'a [u8],
    little: bool,
    /// Bytes of an offset: 4, or 8 in a BigTIFF.
    word: usize,
}

impl<'a> Block<'a> {
    fn of(bytes: &'a [u8]) -> Option<Self> {
        let little = match bytes.get(..2)? {
            b"II" => true,
            b"MM" => false,
            _ => return None,
        };
        let mut block = Self { bytes, little, word: 4 };
        if block.short(2)? == 43 {
            block.word = 8;
        }
        Some(block)
    }

    fn number<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let mut bytes: [u8; N] = self.bytes.get(at..at.checked_add(N)?)?.try_into().ok()?;
        if !self.little {
            bytes.reverse();
        }
        Some(bytes)
    }

    fn short(&self, at: usize) -> Option<u16> {
        self.number(at).map(u16::from_le_bytes)
    }

    fn offset(&self, at: usize) -> Option<usize> {
        match self.word {
            4 => self.number(at).map(|it| u32::from_le_bytes(it) as usize),
            _ => usize::try_from(u64::from_le_bytes(self.number(at)?)).ok(),
        }
    }

    /// How many values a tag of the first directory has, and where they, or their place, are
    /// written.
    fn value(&self, tag: u16) -> Option<(usize, usize)> {
        let directory = self.offset(self.word)?;
        let (count, size) = match self.word {
            4 => (usize::from(self.short(directory)?), 2),
            _ => (self.offset(directory)?, 8),
        };
        // An entry is its tag, its type, a count and a value.
        let entries = self.bytes.len() / (4 + 2 * self.word);
        let first = directory.checked_add(size)?;
        let at = (0..count.min(entries))
            .map(|number| first.saturating_add((4 + 2 * self.word) * number));
        let at = at.into_iter().find(|&at| self.short(at) == Some(tag))?;
        Some((self.offset(at + 4)?, at + 4 + self.word))
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
