//! Attention within windows of a map, as Swin and Twins cut them: padded at the right and at the
//! bottom to whole windows.

use burn::tensor::Tensor;

use crate::ops;

/// How a map is cut into windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Height and width of the map.
    pub map: [usize; 2],
    /// Height and width of a window.
    pub side: usize,
    /// How far the map is rolled to the left and up before it is cut.
    pub shift: usize,
}

impl Windows {
    /// Height and width in whole windows.
    pub fn padded(self) -> [usize; 2] {
        self.map.map(|it| it.next_multiple_of(self.side))
    }

    /// How many rows and columns of windows there are.
    pub fn grid(self) -> [usize; 2] {
        self.padded().map(|it| it / self.side)
    }

    /// Tokens of a window.
    pub fn tokens(self) -> usize {
        self.side * self.side
    }

    /// `[n, h · w, c]` to `[n · windows, tokens, c]`.
    pub fn cut(self, x: Tensor<3>) -> Tensor<3> {
        let ([n, _, channels], [height, width]) = (x.dims(), self.map);
        let ([high, wide], [rows, columns], side) = (self.padded(), self.grid(), self.side);
        let mut x = x.reshape([n, height, width, channels]);
        if [high, wide] != self.map {
            let more = [0, (wide - width) as i64, 0, (high - height) as i64];
            x = ops::pad2d(x.permute([0, 3, 1, 2]), more, 0.0).permute([0, 2, 3, 1]);
        }
        if self.shift > 0 {
            x = ops::roll(x, [-(self.shift as i64); 2], [1, 2]);
        }
        x.reshape([n, rows, side, columns, side, channels]).permute([0, 1, 3, 2, 4, 5]).reshape([
            n * rows * columns,
            side * side,
            channels,
        ])
    }

    /// The way back: `[n · windows, tokens, c]` to `[n, h · w, c]`.
    pub fn join(self, x: Tensor<3>) -> Tensor<3> {
        let ([all, _, channels], [height, width]) = (x.dims(), self.map);
        let ([high, wide], [rows, columns], side) = (self.padded(), self.grid(), self.side);
        let n = all / (rows * columns);
        let mut x: Tensor<4> = x
            .reshape([n, rows, columns, side, side, channels])
            .permute([0, 1, 3, 2, 4, 5])
            .reshape([n, high, wide, channels]);
        if self.shift > 0 {
            x = ops::roll(x, [self.shift as i64; 2], [1, 2]);
        }
        if [high, wide] != self.map {
            x = x.slice([0..n, 0..height, 0..width, 0..channels]);
        }
        x.reshape([n, height * width, channels])
    }

    /// The scores `[windows, 1, tokens, tokens]` between places that `region` tells apart: `apart`
    /// where they are of two regions, else 0. It gets a row and a column of the rolled map.
    pub fn between(self, apart: f32, region: impl Fn(usize, usize) -> usize) -> Vec<f32> {
        let ([rows, columns], side, count) = (self.grid(), self.side, self.tokens());
        let mut scores = Vec::with_capacity(rows * columns * count * count);
        let mut regions = vec![0; count];
        for row in 0..rows {
            for column in 0..columns {
                for (at, to) in regions.iter_mut().enumerate() {
                    *to = region(row * side + at / side, column * side + at % side);
                }
                for from in &regions {
                    scores.extend(regions.iter().map(|to| if to == from { 0.0 } else { apart }));
                }
            }
        }
        scores
    }

    /// The shape of [`between`](Self::between).
    pub fn mask_shape(self) -> [usize; 4] {
        let [rows, columns] = self.grid();
        [rows * columns, 1, self.tokens(), self.tokens()]
    }
}
