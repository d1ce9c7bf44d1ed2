//! Resizing, without antialiasing, as `torch.nn.functional.interpolate` does it.

use burn::tensor::Tensor;

use super::axis::{bilinear, is_channels_last};
use super::border::Handle;
use super::count;
use super::error::{computed, refuse};
use super::function::{Function, apply};

/// Resizes `x` `[n, c, h, w]` to `size` (height, width). With `align_corners` the corner pixels'
/// centres stay at the corners, else the pixels' edges do.
pub fn resize_bilinear(x: Tensor<4>, size: [usize; 2], align_corners: bool) -> Tensor<4> {
    let [_, _, height, width] = x.dims();
    if size.iter().chain(&[height, width]).any(|&side| side == 0) {
        let shape = x.dims().map(|it| it as i64).to_vec();
        refuse(
            "resize_bilinear",
            &[shape],
            &format!("there is nothing between it and {}x{} pixels", size[0], size[1]),
        );
    }
    if [height, width] == size {
        return x;
    }
    apply([x.into()], Resize { size: size.map(|it| it as i64), align_corners })
}

/// Resizes `x` `[n, c, h, w]` to `size` (height, width), each pixel taking the value of the one
/// that it falls into.
pub fn resize_nearest(x: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
    let [_, _, height, width] = x.dims();
    if size.iter().chain(&[height, width]).any(|&side| side == 0) {
        let shape = x.dims().map(|it| it as i64).to_vec();
        refuse(
            "resize_nearest",
            &[shape],
            &format!("there is nothing between it and {}x{} pixels", size[0], size[1]),
        );
    }
    if [height, width] == size {
        x
    } else {
        apply([x.into()], Nearest { size: size.map(|it| it as i64) })
    }
}

/// Resizes `x` `[n, c, h, w]` to `size` (height, width) by cubic convolution (Keys 1981, with
/// torch's -0.75).
pub fn resize_bicubic(x: Tensor<4>, size: [usize; 2], align_corners: bool) -> Tensor<4> {
    let [_, _, height, width] = x.dims();
    if size.iter().chain(&[height, width]).any(|&side| side == 0) {
        let shape = x.dims().map(|it| it as i64).to_vec();
        refuse(
            "resize_bicubic",
            &[shape],
            &format!("there is nothing between it and {}x{} pixels", size[0], size[1]),
        );
    }
    if [height, width] == size {
        x
    } else {
        apply([x.into()], Bicubic { size: size.map(|it| it as i64), align_corners })
    }
}

#[derive(Debug, Clone, Copy)]
struct Bicubic {
    size: [i64; 2],
    align_corners: bool,
}

impl Function<1> for Bicubic {
    const NAME: &'static str = "resize_bicubic";

    /// The input's shape.
    type Saved = Vec<i64>;

    fn forward(&self, [x]: [Handle; 1], _: [bool; 1]) -> (Handle, Vec<i64>) {
        let y = x.f_upsample_bicubic2d(self.size, self.align_corners, None, None);
        (Handle::new(computed("resize_bicubic", [&x], y)), x.size())
    }

    fn backward(&self, shape: Vec<i64>, grad: Handle, _: [bool; 1]) -> [Option<Handle>; 1] {
        let found = tch::Tensor::f_upsample_bicubic2d_backward(
            &grad,
            self.size,
            shape,
            self.align_corners,
            None,
            None,
        );
        [Some(Handle::new(computed("resize_bicubic backward", [&grad], found)))]
    }
}

#[derive(Debug, Clone, Copy)]
struct Nearest {
    size: [i64; 2],
}

impl Function<1> for Nearest {
    const NAME: &'static str = "resize_nearest";

    fn multiply_adds(&self, _: [&[i64]; 1], output: &[i64]) -> u64 {
        count::values(output)
    }

    /// The input's shape.
    type Saved = Vec<i64>;

    fn forward(&self, [x]: [Handle; 1], _: [bool; 1]) -> (Handle, Vec<i64>) {
        let y = x.f_upsample_nearest2d(self.size, None, None);
        (Handle::new(computed("resize_nearest", [&x], y)), x.size())
    }

    fn backward(&self, shape: Vec<i64>, grad: Handle, _: [bool; 1]) -> [Option<Handle>; 1] {
        let found = tch::Tensor::f_upsample_nearest2d_backward(&grad, self.size, shape, None, None);
        [Some(Handle::new(computed("resize_nearest backward", [&grad], found)))]
    }
}

#[derive(Debug, Clone, Copy)]
struct Resize {
    size: [i64; 2],
    align_corners: bool,
}

impl Function<1> for Resize {
    const NAME: &'static str = "resize_bilinear";

    fn multiply_adds(&self, _: [&[i64]; 1], output: &[i64]) -> u64 {
        4 * count::values(output)
    }

    /// The input's shape.
    type Saved = Vec<i64>;

    fn forward(&self, [x]: [Handle; 1], _: [bool; 1]) -> (Handle, Vec<i64>) {
        let y = x.f_upsample_bilinear2d(self.size, self.align_corners, None, None);
        (Handle::new(computed("resize_bilinear", [&x], y)), x.size())
    }

    fn backward(&self, shape: Vec<i64>, grad: Handle, _: [bool; 1]) -> [Option<Handle>; 1] {
        let grad = &grad;
        let found = if grad.device().is_cuda() && !is_channels_last(grad) {
            self.transposed(&shape, grad)
        } else {
            tch::Tensor::f_upsample_bilinear2d_backward(
                grad,
                self.size,
                shape,
                self.align_corners,
                None,
                None,
            )
        };
        [Some(Handle::new(computed("resize_bilinear backward", [grad], found)))]
    }
}

impl Resize {
    /// The backward as two products with the transposed matrices of both axes, the larger reduction
    /// first.
    fn transposed(&self, shape: &[i64], grad: &tch::Tensor) -> Result<tch::Tensor, tch::TchError> {
        let matrix = |axis: usize| {
            bilinear(
                shape[2 + axis],
                self.size[axis],
                self.align_corners,
                (grad.kind(), grad.device()),
            )
        };
        grad.f_matmul(&matrix(1)?)
            .and_then(|narrow| matrix(0)?.f_transpose(0, 1)?.f_matmul(&narrow))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tensor;

    use super::super::reference::{check, constant, resized, values};
    use super::*;

    #[test]
    fn the_backward_by_products_of_matrices_is_libtorchs() {
        for (size, align_corners) in [([40, 56], false), ([9, 4], true), ([3, 7], false)] {
            let resize = Resize { size, align_corners };
            let grad =
                tch::Tensor::rand([2, 3, size[0], size[1]], (tch::Kind::Double, tch::Device::Cpu));
            let found = resize.transposed(&[2, 3, 5, 7], &grad).expect("a gradient");
            let expected = tch::Tensor::upsample_bilinear2d_backward(
                &grad,
                size,
                [2, 3, 5, 7],
                align_corners,
                None,
                None,
            );
            assert!((found - expected).abs().max().double_value(&[]) < 1e-6);
        }
    }

    #[test]
    fn the_nearest_pixel_is_the_one_that_a_pixel_falls_into() {
        for size in [[6, 8], [3, 3], [1, 9]] {
            check(
                &[values(2 * 3 * 4, 1)],
                |x| resize_nearest(x[0].clone().reshape([1, 2, 3, 4]), size),
                |x| {
                    let pick = |from: usize, to: usize| {
                        (0..to).map(move |it| (it * from / to) as i32).collect::<Vec<_>>()
                    };
                    let device = x[0].device();
                    let (rows, columns) = (pick(3, size[0]), pick(4, size[1]));
                    let index = |places: Vec<i32>| {
                        Tensor::<1, burn::tensor::Int>::from_ints(places.as_slice(), &device)
                    };
                    x[0].clone()
                        .reshape([1, 2, 3, 4])
                        .select(2, index(rows))
                        .select(3, index(columns))
                },
            );
        }
    }

    /// The matrix `[to, from]` of cubic convolution along one axis.
    fn cubic(from: usize, to: usize, align_corners: bool) -> Vec<f64> {
        let kernel = |distance: f64| {
            let (a, d) = (-0.75, distance.abs());
            match d {
                _ if d <= 1.0 => ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0,
                _ if d < 2.0 => a * (((d - 5.0) * d + 8.0) * d - 4.0),
                _ => 0.0,
            }
        };
        let mut matrix = vec![0.0; from * to];
        for row in 0..to {
            let at = if align_corners {
                row as f64 * (from - 1) as f64 / (to - 1).max(1) as f64
            } else {
                (row as f64 + 0.5) * from as f64 / to as f64 - 0.5
            };
            for tap in -1..=2 {
                let place = at.floor() as i64 + tap;
                let clamped = place.clamp(0, from as i64 - 1) as usize;
                matrix[row * from + clamped] += kernel(at - place as f64);
            }
        }
        matrix
    }

    #[test]
    fn cubic_resizing_matches_a_product_of_matrices() {
        for (size, align_corners) in [([9, 4], false), ([3, 13], true), ([5, 10], false)] {
            check(
                &[values(2 * 35, 1)],
                |x| resize_bicubic(x[0].clone().reshape([1, 2, 5, 7]), size, align_corners),
                |x| {
                    let device = x[0].device();
                    let matrix = |from, to| {
                        constant(&cubic(from, to, align_corners), [1, 1, to, from], &device)
                    };
                    matrix(5, size[0])
                        .matmul(x[0].clone().reshape([1, 2, 5, 7]))
                        .matmul(matrix(7, size[1]).transpose())
                },
            );
        }
    }

    #[test]
    fn resizing_up_and_down_matches_a_product_of_matrices() {
        for size in [[9, 4], [3, 13], [1, 1], [5, 7]] {
            for align_corners in [false, true] {
                check(
                    &[values(2 * 2 * 35, 1)],
                    |x| resize_bilinear(x[0].clone().reshape([2, 2, 5, 7]), size, align_corners),
                    |x| resized(x[0].clone().reshape([2, 2, 5, 7]), size, align_corners),
                );
            }
        }
    }
}
