//! Max and average pooling.

use burn::tensor::Tensor;
use burn_tch::TchTensor;

use super::function::{Function, computed, unary};

fn int(pair: [usize; 2]) -> [i64; 2] {
    pair.map(|it| it as i64)
}

fn check_window(operation: &str, kernel: [usize; 2], stride: [usize; 2], padding: [usize; 2]) {
    let fits = |axis: usize| kernel[axis] > 0 && stride[axis] > 0 && 2 * padding[axis] <= kernel[axis];
    assert!(
        fits(0) && fits(1),
        "{operation}: kernel {kernel:?} and stride {stride:?} must be positive, and padding {padding:?} at most half the kernel"
    );
}

/// The maximum of every window of `x` `[n, c, h, w]`; sizes are (height, width), output sizes are rounded down.
pub fn max_pool2d(x: Tensor<4>, kernel: [usize; 2], stride: [usize; 2], padding: [usize; 2]) -> Tensor<4> {
    check_window("max_pool2d", kernel, stride, padding);
    unary(x, MaxPool { kernel: int(kernel), stride: int(stride), padding: int(padding) })
}

/// The mean of every window of `x` `[n, c, h, w]`; sizes are (height, width). `ceil_mode` rounds output sizes up,
/// `count_include_pad` counts padding as zeros.
pub fn avg_pool2d(
    x: Tensor<4>,
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    ceil_mode: bool,
    count_include_pad: bool,
) -> Tensor<4> {
    check_window("avg_pool2d", kernel, stride, padding);
    unary(x, AvgPool { kernel: int(kernel), stride: int(stride), padding: int(padding), ceil_mode, count_include_pad })
}

/// The means of `x` `[n, c, h, w]` over a grid of `size` (height, width) cells that cover it: `[n, c, size…]`.
pub fn adaptive_avg_pool2d(x: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
    assert!(size[0] > 0 && size[1] > 0, "adaptive_avg_pool2d: expected a positive output size, got {size:?}");
    unary(x, AdaptiveAvgPool { size: int(size) })
}

#[derive(Debug, Clone, Copy)]
struct MaxPool {
    kernel: [i64; 2],
    stride: [i64; 2],
    padding: [i64; 2],
}

impl Function<1> for MaxPool {
    /// Input, and where in it each maximum was.
    type Saved = [TchTensor; 2];

    fn forward(&self, [x]: [TchTensor; 1], _: [bool; 1]) -> (TchTensor, Self::Saved) {
        let pooled = x.tensor.f_max_pool2d_with_indices(self.kernel, self.stride, self.padding, [1, 1], false);
        let (y, indices) = computed("max_pool2d", pooled);
        (TchTensor::new(y), [x, TchTensor::new(indices)])
    }

    fn backward(&self, [x, indices]: Self::Saved, grad: TchTensor, _: [bool; 1]) -> [Option<TchTensor>; 1] {
        let Self { kernel, stride, padding } = *self;
        let grad =
            x.tensor.f_max_pool2d_with_indices_backward(&grad.tensor, kernel, stride, padding, [1, 1], false, &indices.tensor);
        [Some(TchTensor::new(computed("max_pool2d backward", grad)))]
    }
}

#[derive(Debug, Clone, Copy)]
struct AvgPool {
    kernel: [i64; 2],
    stride: [i64; 2],
    padding: [i64; 2],
    ceil_mode: bool,
    count_include_pad: bool,
}

impl Function<1> for AvgPool {
    type Saved = TchTensor;

    fn forward(&self, [x]: [TchTensor; 1], _: [bool; 1]) -> (TchTensor, TchTensor) {
        let Self { kernel, stride, padding, ceil_mode, count_include_pad } = *self;
        let y = x.tensor.f_avg_pool2d(kernel, stride, padding, ceil_mode, count_include_pad, None);
        (TchTensor::new(computed("avg_pool2d", y)), x)
    }

    fn backward(&self, x: TchTensor, grad: TchTensor, _: [bool; 1]) -> [Option<TchTensor>; 1] {
        let Self { kernel, stride, padding, ceil_mode, count_include_pad } = *self;
        let grad = x.tensor.f_avg_pool2d_backward(&grad.tensor, kernel, stride, padding, ceil_mode, count_include_pad, None);
        [Some(TchTensor::new(computed("avg_pool2d backward", grad)))]
    }
}

#[derive(Debug, Clone, Copy)]
struct AdaptiveAvgPool {
    size: [i64; 2],
}

impl Function<1> for AdaptiveAvgPool {
    type Saved = TchTensor;

    fn forward(&self, [x]: [TchTensor; 1], _: [bool; 1]) -> (TchTensor, TchTensor) {
        // A single cell is a plain mean, whose kernel is the faster one.
        let y = if self.size == [1, 1] {
            x.tensor.f_mean_dim([2, 3].as_slice(), true, None)
        } else {
            x.tensor.f_internal_adaptive_avg_pool2d(self.size)
        };
        (TchTensor::new(computed("adaptive_avg_pool2d", y)), x)
    }

    fn backward(&self, x: TchTensor, grad: TchTensor, _: [bool; 1]) -> [Option<TchTensor>; 1] {
        let grad = if self.size == [1, 1] {
            let size = x.tensor.size();
            let area = (size[2] * size[3]) as f64;
            grad.tensor.f_div_scalar(area).and_then(|it| it.f_expand(size.as_slice(), false))
        } else {
            x.tensor.f_internal_adaptive_avg_pool2d_backward(&grad.tensor)
        };
        [Some(TchTensor::new(computed("adaptive_avg_pool2d backward", grad)))]
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::module;
    use burn::tensor::ops::{AvgPoolOptions, MaxPoolOptions};

    use super::super::reference::{check, pooled_to, values};
    use super::*;

    const SHAPE: [usize; 4] = [2, 2, 5, 7];

    #[test]
    fn max_pool_matches() {
        for (kernel, stride, padding) in [([3, 3], [2, 2], [1, 1]), ([2, 3], [1, 2], [0, 1])] {
            check(
                &[values(140, 1)],
                |x| max_pool2d(x[0].clone().reshape(SHAPE), kernel, stride, padding),
                |x| {
                    let options = MaxPoolOptions::new(kernel).with_stride(stride).with_padding(padding);
                    module::max_pool2d(x[0].clone().reshape(SHAPE), options)
                },
            );
        }
    }

    #[test]
    fn avg_pool_matches() {
        for (ceil_mode, count_include_pad) in [(false, true), (true, false), (true, true)] {
            check(
                &[values(140, 1)],
                |x| avg_pool2d(x[0].clone().reshape(SHAPE), [2, 2], [2, 2], [1, 1], ceil_mode, count_include_pad),
                |x| {
                    let options = AvgPoolOptions::new([2, 2]).with_stride([2, 2]).with_padding([1, 1]);
                    let options = options.with_count_include_pad(count_include_pad).with_ceil_mode(ceil_mode);
                    module::avg_pool2d(x[0].clone().reshape(SHAPE), options)
                },
            );
        }
    }

    #[test]
    fn adaptive_avg_pool_matches() {
        for size in [[1, 1], [2, 3], [6, 6]] {
            check(
                &[values(140, 1)],
                |x| adaptive_avg_pool2d(x[0].clone().reshape(SHAPE), size),
                |x| pooled_to(x[0].clone().reshape(SHAPE), size),
            );
        }
    }

    #[test]
    #[should_panic(expected = "padding [2, 0] at most half the kernel")]
    fn too_much_padding_is_named() {
        max_pool2d(Tensor::zeros([1, 1, 4, 4], &burn::tensor::Device::libtorch()), [3, 3], [1, 1], [2, 0]);
    }
}
