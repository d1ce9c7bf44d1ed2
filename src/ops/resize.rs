//! Bilinear resizing, without antialiasing, as `torch.nn.functional.interpolate` does it.

use burn::tensor::Tensor;
use burn_tch::TchTensor;

use super::axis::{bilinear, is_channels_last};
use super::error::{computed, refuse};
use super::function::{Function, unary};

/// Resizes `x` `[n, c, h, w]` to `size` (height, width). With `align_corners` the corner pixels' centres stay at the
/// corners, else the pixels' edges do.
pub fn resize_bilinear(x: Tensor<4>, size: [usize; 2], align_corners: bool) -> Tensor<4> {
    let [_, _, height, width] = x.dims();
    if size.iter().chain(&[height, width]).any(|&side| side == 0) {
        let shape = x.dims().map(|it| it as i64).to_vec();
        refuse("resize_bilinear", &[shape], &format!("there is nothing between it and {}x{} pixels", size[0], size[1]));
    }
    if [height, width] == size {
        return x;
    }
    unary(x, Resize { size: size.map(|it| it as i64), align_corners })
}

#[derive(Debug, Clone, Copy)]
struct Resize {
    size: [i64; 2],
    align_corners: bool,
}

impl Function<1> for Resize {
    /// The input's shape.
    type Saved = Vec<i64>;

    fn forward(&self, [x]: [TchTensor; 1], _: [bool; 1]) -> (TchTensor, Vec<i64>) {
        let y = x.tensor.f_upsample_bilinear2d(self.size, self.align_corners, None, None);
        (TchTensor::new(computed("resize_bilinear", [&x.tensor], y)), x.tensor.size())
    }

    fn backward(&self, shape: Vec<i64>, grad: TchTensor, _: [bool; 1]) -> [Option<TchTensor>; 1] {
        let grad = &grad.tensor;
        let found = if grad.device().is_cuda() && !is_channels_last(grad) {
            self.transposed(&shape, grad)
        } else {
            tch::Tensor::f_upsample_bilinear2d_backward(grad, self.size, shape, self.align_corners, None, None)
        };
        [Some(TchTensor::new(computed("resize_bilinear backward", [grad], found)))]
    }
}

impl Resize {
    /// The backward as two products with the transposed matrices of both axes, the larger reduction first.
    fn transposed(&self, shape: &[i64], grad: &tch::Tensor) -> Result<tch::Tensor, tch::TchError> {
        let matrix = |axis: usize| bilinear(shape[2 + axis], self.size[axis], self.align_corners, (grad.kind(), grad.device()));
        grad.f_matmul(&matrix(1)?).and_then(|narrow| matrix(0)?.f_transpose(0, 1)?.f_matmul(&narrow))
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::{check, resized, values};
    use super::*;

    #[test]
    fn the_backward_by_products_of_matrices_is_libtorchs() {
        for (size, align_corners) in [([40, 56], false), ([9, 4], true), ([3, 7], false)] {
            let resize = Resize { size, align_corners };
            let grad = tch::Tensor::rand([2, 3, size[0], size[1]], (tch::Kind::Double, tch::Device::Cpu));
            let found = resize.transposed(&[2, 3, 5, 7], &grad).expect("a gradient");
            let expected = tch::Tensor::upsample_bilinear2d_backward(&grad, size, [2, 3, 5, 7], align_corners, None, None);
            assert!((found - expected).abs().max().double_value(&[]) < 1e-6);
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
