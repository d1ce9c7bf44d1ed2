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

/// From how many bytes on it is asked first whether there is room: what is smaller comes and goes
/// with every picture.
const LARGE: usize = 64 << 20;

/// Whether there is room for a raster of `C` channels, or why not. Rust ends a process whose
/// allocation fails, and a header may promise any size.
pub(super) fn room<const C: usize>(height: usize, width: usize) -> Result<(), String> {
    let bytes = height.checked_mul(width).and_then(|it| it.checked_mul(C));
    if bytes.is_some_and(|it| {
        it < LARGE || std::hint::black_box(Vec::<u8>::new()).try_reserve_exact(it).is_ok()
    }) {
        return Ok(());
    }
    let gigabytes = height as f64 * width as f64 * C as f64 / 1e9;
    Err(format!("out of memory: {height}x{width} pixels (height x width) take {gigabytes:.1} GB"))
}

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
