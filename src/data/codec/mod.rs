//! Picture files: PNG, JPEG, TIFF, BMP and WebP by what their first bytes say, whatever the file's
//! name.
//!
//! Images are read as OpenCV's `IMREAD_COLOR` reads them (three channels, 8 bits, EXIF orientation
//! applied), label maps as Pillow opens them (class indices, also of palette PNGs). Opening an
//! image reads its header; its pixels are decoded when, and as far as, they are needed.

mod exif;
mod jpeg;
mod label;
mod png;
mod tiff;
mod whole;

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub use label::read_label;

use super::image::room;
use super::resample::{Order, ResamplePlan, Resampler};
use super::scratch::Scratch;
use super::{DataError, Image, Interpolation, Rect, View};

const IMAGE: &str = "image";

/// An image file: its header was read, its pixels were not.
#[derive(Debug)]
pub(super) struct Encoded {
    path: PathBuf,
    bytes: Scratch,
    format: Format,
    shape: (usize, usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Png,
    Jpeg,
    Tiff,
    Whole(whole::Kind),
}

/// A header: the size (height, width) as stored, and the EXIF orientation, 1 to 8.
struct Header {
    shape: (usize, usize),
    orientation: u8,
}

impl Encoded {
    /// Reads the file and its header. An image that has to be turned is decoded at once, so this
    /// gives a view.
    pub(super) fn open(path: &Path, honour_orientation: bool) -> Result<View<3>, DataError> {
        let (file, orientation) = Self::read(path)?;
        if !honour_orientation || orientation == 1 {
            return Ok(View::of_file(file));
        }
        Ok(exif::upright(file.image()?, orientation).into())
    }

    /// How EXIF says that the image is to be turned: 1 to 8, of which 5 to 8 exchange height and
    /// width.
    pub(super) fn orientation(path: &Path) -> Result<u8, DataError> {
        Self::read(path).map(|(_, orientation)| orientation)
    }

    fn read(path: &Path) -> Result<(Self, u8), DataError> {
        let bytes = read(IMAGE, path)?;
        let format = format(IMAGE, path, &bytes)?;
        let header = match format {
            Format::Png => png::header(&bytes),
            Format::Jpeg => jpeg::header(&bytes),
            Format::Tiff => tiff::header(&bytes),
            Format::Whole(kind) => kind.header(&bytes),
        }
        .map_err(|reason| DataError::undecodable(IMAGE, path, reason))?;
        Ok((Self { path: path.to_owned(), bytes, format, shape: header.shape }, header.orientation))
    }

    pub(super) fn shape(&self) -> (usize, usize) {
        self.shape
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The channel order of the rows that `decode` yields.
    pub(super) fn order(&self) -> Order {
        match self.format {
            Format::Png | Format::Tiff | Format::Whole(_) => Order::Reversed,
            Format::Jpeg => Order::Same,
        }
    }

    /// Hands `rows`, at least, to `take` from the top, each `width * 3` bytes in this file's order.
    /// Rows below are not decoded where the format allows that.
    pub(super) fn decode(
        &self,
        rows: Range<usize>,
        take: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<(), DataError> {
        match self.format {
            Format::Png => png::decode(&self.bytes, rows, take),
            Format::Jpeg => jpeg::decode(&self.bytes, rows, take),
            Format::Tiff => tiff::decode(&self.bytes, rows, take),
            Format::Whole(kind) => kind.decode(&self.bytes, rows, take),
        }
        .map_err(|reason| DataError::undecodable(IMAGE, &self.path, reason))
    }

    fn image(&self) -> Result<Image, DataError> {
        room::<3>(self.shape.0, self.shape.1)
            .map_err(|reason| DataError::undecodable(IMAGE, &self.path, reason))?;
        let plan = ResamplePlan {
            source: self.shape,
            scaled: self.shape,
            window: Rect::whole(self.shape),
            flip_horizontal: false,
            flip_vertical: false,
            interpolation: Interpolation::Bilinear,
        };
        let mut resampler = Resampler::new(plan, self.order());
        self.decode(0..self.shape.0, &mut |y, row| resampler.push(y, row))?;
        Ok(resampler.finish())
    }
}

/// A colour image as `cv2.imread(path)` reads it: blue, green, red; EXIF orientation applied.
pub fn read_image(path: &Path) -> Result<Image, DataError> {
    Encoded::open(path, true)?.into_raster()
}

fn read(what: &'static str, path: &Path) -> Result<Scratch, DataError> {
    let mut bytes = Scratch::new();
    let hint = "check data_root, data_prefix, the suffixes and ann_file";
    let outcome = File::open(path).and_then(|mut file| {
        if let Ok(metadata) = file.metadata() {
            bytes.reserve(metadata.len() as usize + 1);
        }
        file.read_to_end(&mut bytes)
    });
    outcome.map_err(|source| DataError::io(what, path, source, hint))?;
    Ok(bytes)
}

/// What OpenCV takes, by its `CV_IO_MAX_IMAGE_WIDTH`, `_HEIGHT` and `_PIXELS`.
const SIDE_LIMIT: usize = 1 << 20;
const PIXEL_LIMIT: usize = 1 << 30;

/// Refuses sizes that a header claims and so few bytes cannot hold, before memory is taken for
/// them. `density` is the most pixels that the format packs into a byte.
fn believable((height, width): (usize, usize), density: usize, bytes: usize) -> Result<(), String> {
    let pixels = height.saturating_mul(width);
    if height.max(width) > SIDE_LIMIT || pixels > PIXEL_LIMIT {
        return Err(format!(
            "its header says {width}x{height} pixels; expected at most {SIDE_LIMIT} a side and \
             {PIXEL_LIMIT} in all, as OpenCV does"
        ));
    }
    if pixels / density > bytes {
        return Err(format!(
            "its header says {width}x{height} pixels, which its {bytes} bytes cannot hold: it is \
             damaged"
        ));
    }
    Ok(())
}

const JPEG: [u8; 3] = [0xff, 0xd8, 0xff];

/// Whether a file that can be read is a JPEG.
pub(super) fn is_jpeg(path: &Path) -> bool {
    let mut start = JPEG.map(|_| 0);
    File::open(path).and_then(|mut it| it.read_exact(&mut start)).is_ok_and(|()| start == JPEG)
}

fn format(what: &'static str, path: &Path, bytes: &[u8]) -> Result<Format, DataError> {
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        Ok(Format::Png)
    } else if bytes.starts_with(&JPEG) {
        Ok(Format::Jpeg)
    } else if tiff::is(bytes) {
        Ok(Format::Tiff)
    } else if let Some(kind) = whole::Kind::of(bytes) {
        Ok(Format::Whole(kind))
    } else if bytes.is_empty() {
        Err(DataError::undecodable(what, path, "the file is empty"))
    } else {
        Err(DataError::undecodable(what, path, no_picture(bytes)))
    }
}

/// What a file is, and what to do about it, that begins like no picture.
fn no_picture(bytes: &[u8]) -> &'static str {
    let start = bytes.trim_ascii_start();
    if start.starts_with(b"version https://git-lfs") {
        "it is a pointer of git-LFS and not the file itself: git lfs pull fetches it"
    } else if start.starts_with(b"<") {
        "it is a page of HTML or XML, as a failed download leaves it: fetch it again"
    } else if bytes.iter().all(|it| *it == 0) {
        "it is nothing but zeros, as a copy that was cut off leaves it: fetch it again"
    } else {
        "it is no PNG, JPEG, TIFF, BMP or WebP; convert it to one of these"
    }
}
