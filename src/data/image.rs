//! Pixels in memory: rows from top to bottom, channels interleaved, one byte each.

/// A picture of `C` interleaved 8-bit channels: `data[(y * width + x) * C + channel]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raster<const C: usize> {
    pub height: usize,
    pub width: usize,
    /// `height * width * C` bytes.
    pub data: Vec<u8>,
}

/// A colour image in OpenCV's order: blue, green, red.
pub type Image = Raster<3>;

/// One class index a pixel.
pub type LabelMap = Raster<1>;

impl<const C: usize> Raster<C> {
    /// A raster of one value everywhere.
    pub fn filled(height: usize, width: usize, value: u8) -> Self {
        Self { height, width, data: vec![value; height * width * C] }
    }

    /// Row `y`: `width * C` bytes.
    pub fn row(&self, y: usize) -> &[u8] {
        &self.data[y * self.width * C..(y + 1) * self.width * C]
    }

    /// Row `y`, to be changed.
    pub fn row_mut(&mut self, y: usize) -> &mut [u8] {
        &mut self.data[y * self.width * C..(y + 1) * self.width * C]
    }

    /// The pixel of column `x` in row `y`.
    pub fn pixel(&self, y: usize, x: usize) -> [u8; C] {
        std::array::from_fn(|channel| self.data[(y * self.width + x) * C + channel])
    }

    /// Height and width.
    pub fn shape(&self) -> (usize, usize) {
        (self.height, self.width)
    }
}
