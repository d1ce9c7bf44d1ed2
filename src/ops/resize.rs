//! Bilinear resizing, without antialiasing, as `torch.nn.functional.interpolate` does it.

use burn::tensor::Tensor;
use burn_tch::TchTensor;

use super::function::{Function, computed, unary};

/// Resizes `x` `[n, c, h, w]` to `size` (height, width). With `align_corners` the corner pixels' centres stay at the
/// corners, else the pixels' edges do.
pub fn resize_bilinear(x: Tensor<4>, size: [usize; 2], align_corners: bool) -> Tensor<4> {
    let [_, _, height, width] = x.dims();
    assert!(
        size.iter().chain(&[height, width]).all(|&side| side > 0),
        "resize_bilinear: expected positive sizes, got {height}x{width} to {size:?}"
    );
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
        (TchTensor::new(computed("resize_bilinear", y)), x.tensor.size())
    }

    fn backward(&self, shape: Vec<i64>, grad: TchTensor, _: [bool; 1]) -> [Option<TchTensor>; 1] {
        let grad = tch::Tensor::f_upsample_bilinear2d_backward(&grad.tensor, self.size, shape, self.align_corners, None, None);
        [Some(TchTensor::new(computed("resize_bilinear backward", grad)))]
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::{check, resized, values};
    use super::*;

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
