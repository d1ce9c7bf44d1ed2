//! Max and average pooling.

use burn::tensor::Tensor;
use tch::TchError;

use super::axis::{grid, is_channels_last};
use super::border::Handle;
use super::count;
use super::error::computed;
use super::function::{Function, apply};

fn int(pair: [usize; 2]) -> [i64; 2] {
    pair.map(|it| it as i64)
}

fn check_window(operation: &str, kernel: [usize; 2], stride: [usize; 2], padding: [usize; 2]) {
    let fits =
        |axis: usize| kernel[axis] > 0 && stride[axis] > 0 && 2 * padding[axis] <= kernel[axis];
    assert!(
        fits(0) && fits(1),
        "{operation}: kernel {kernel:?} and stride {stride:?} must be positive, and padding \
         {padding:?} at most half the kernel"
    );
}

/// The maximum of every window of `x` `[n, c, h, w]`; sizes are (height, width), output sizes are
/// rounded down.
pub fn max_pool2d(
    x: Tensor<4>,
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
) -> Tensor<4> {
    max_pool2d_with(x, kernel, stride, padding, false)
}

/// [`max_pool2d`] whose output sizes are rounded up, with `ceil_mode`.
pub fn max_pool2d_with(
    x: Tensor<4>,
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    ceil_mode: bool,
) -> Tensor<4> {
    check_window("max_pool2d", kernel, stride, padding);
    apply(
        [x.into()],
        MaxPool { kernel: int(kernel), stride: int(stride), padding: int(padding), ceil_mode },
    )
}

/// The mean of every window of `x` `[n, c, h, w]`; sizes are (height, width). `ceil_mode` rounds
/// output sizes up, `count_include_pad` counts padding as zeros.
pub fn avg_pool2d(
    x: Tensor<4>,
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    ceil_mode: bool,
    count_include_pad: bool,
) -> Tensor<4> {
    check_window("avg_pool2d", kernel, stride, padding);
    apply(
        [x.into()],
        AvgPool {
            kernel: int(kernel),
            stride: int(stride),
            padding: int(padding),
            ceil_mode,
            count_include_pad,
        },
    )
}

/// The means of `x` `[n, c, h, w]` over a grid of `size` (height, width) cells that cover it: `[n,
/// c, size…]`.
pub fn adaptive_avg_pool2d(x: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
    assert!(
        size[0] > 0 && size[1] > 0,
        "adaptive_avg_pool2d: expected a positive output size, got {size:?}"
    );
    apply([x.into()], AdaptiveAvgPool { size: int(size) })
}

#[derive(Debug, Clone, Copy)]
struct MaxPool {
    kernel: [i64; 2],
    stride: [i64; 2],
    padding: [i64; 2],
    ceil_mode: bool,
}

impl Function<1> for MaxPool {
    const NAME: &'static str = "max_pool2d";

    /// Input, and where in it each maximum was.
    type Saved = [Handle; 2];

    fn forward(&self, [x]: [Handle; 1], _: [bool; 1]) -> (Handle, Self::Saved) {
        let pooled = x.f_max_pool2d_with_indices(
            self.kernel,
            self.stride,
            self.padding,
            [1, 1],
            self.ceil_mode,
        );
        let (y, indices) = computed("max_pool2d", [&x], pooled);
        (Handle::new(y), [x, Handle::new(indices)])
    }

    fn backward(
        &self,
        [x, indices]: Self::Saved,
        grad: Handle,
        _: [bool; 1],
    ) -> [Option<Handle>; 1] {
        let Self { kernel, stride, padding, ceil_mode } = *self;
        let grad = x.f_max_pool2d_with_indices_backward(
            &grad,
            kernel,
            stride,
            padding,
            [1, 1],
            ceil_mode,
            &indices,
        );
        [Some(Handle::new(computed("max_pool2d backward", [&x], grad)))]
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
    const NAME: &'static str = "avg_pool2d";

    type Saved = Handle;

    fn forward(&self, [x]: [Handle; 1], _: [bool; 1]) -> (Handle, Handle) {
        let Self { kernel, stride, padding, ceil_mode, count_include_pad } = *self;
        let y = x.f_avg_pool2d(kernel, stride, padding, ceil_mode, count_include_pad, None);
        (Handle::new(computed("avg_pool2d", [&x], y)), x)
    }

    fn backward(&self, x: Handle, grad: Handle, _: [bool; 1]) -> [Option<Handle>; 1] {
        let Self { kernel, stride, padding, ceil_mode, count_include_pad } = *self;
        let grad = x.f_avg_pool2d_backward(
            &grad,
            kernel,
            stride,
            padding,
            ceil_mode,
            count_include_pad,
            None,
        );
        [Some(Handle::new(computed("avg_pool2d backward", [&x], grad)))]
    }
}

#[derive(Debug, Clone, Copy)]
struct AdaptiveAvgPool {
    size: [i64; 2],
}

impl AdaptiveAvgPool {
    fn run(&self, x: &tch::Tensor) -> Result<tch::Tensor, TchError> {
        match self.size {
            // A single cell is a plain mean, whose kernel is the faster one.
            [1, 1] => x.f_mean_dim([2, 3].as_slice(), true, None),
            _ if x.device().is_cuda() => self.product(x),
            _ => x.f_internal_adaptive_avg_pool2d(self.size),
        }
    }

    fn back(&self, x: &tch::Tensor, grad: &tch::Tensor) -> Result<tch::Tensor, TchError> {
        match self.size {
            [1, 1] => {
                let size = x.size();
                grad.f_div_scalar((size[2] * size[3]) as f64)?.f_expand(size.as_slice(), false)
            }
            _ if x.device().is_cuda() => self.product_back(x, grad),
            _ => x.f_internal_adaptive_avg_pool2d_backward(grad),
        }
    }

    /// `[cells, pixels]`.
    fn matrix(&self, x: &tch::Tensor) -> Result<tch::Tensor, TchError> {
        let size = x.size();
        grid([size[2], size[3]], self.size, (x.kind(), x.device()))
    }

    /// The means as a product of matrices, which reads the image once.
    fn product(&self, x: &tch::Tensor) -> Result<tch::Tensor, TchError> {
        let ((n, c, ..), [rows, columns]) = (x.size4()?, self.size);
        if is_channels_last(x) {
            let pixels = x.f_permute([0, 2, 3, 1])?.f_flatten(1, 2)?;
            self.matrix(x)?
                .f_matmul(&pixels)?
                .f_view([n, rows, columns, c])?
                .f_permute([0, 3, 1, 2])
        } else {
            x.f_contiguous()?
                .f_flatten(2, 3)?
                .f_matmul(&self.matrix(x)?.f_transpose(0, 1)?)?
                .f_view([n, c, rows, columns])
        }
    }

    fn product_back(&self, x: &tch::Tensor, grad: &tch::Tensor) -> Result<tch::Tensor, TchError> {
        let (n, c, height, width) = x.size4()?;
        if is_channels_last(x) {
            let cells = grad.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_flatten(1, 2)?;
            let pixels = self.matrix(x)?.f_transpose(0, 1)?.f_matmul(&cells)?;
            pixels.f_view([n, height, width, c])?.f_permute([0, 3, 1, 2])
        } else {
            grad.f_contiguous()?
                .f_flatten(2, 3)?
                .f_matmul(&self.matrix(x)?)?
                .f_view([n, c, height, width])
        }
    }
}

impl Function<1> for AdaptiveAvgPool {
    const NAME: &'static str = "adaptive_avg_pool2d";

    fn multiply_adds(&self, [x]: [&[i64]; 1], _: &[i64]) -> u64 {
        count::values(x)
    }

    type Saved = Handle;

    fn forward(&self, [x]: [Handle; 1], _: [bool; 1]) -> (Handle, Handle) {
        (Handle::new(computed("adaptive_avg_pool2d", [&x], self.run(&x))), x)
    }

    fn backward(&self, x: Handle, grad: Handle, _: [bool; 1]) -> [Option<Handle>; 1] {
        [Some(Handle::new(computed("adaptive_avg_pool2d backward", [&x], self.back(&x, &grad))))]
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::module;
    use burn::tensor::ops::{AvgPoolOptions, MaxPoolOptions};

    use super::super::MemoryFormat;
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
                    let options =
                        MaxPoolOptions::new(kernel).with_stride(stride).with_padding(padding);
                    module::max_pool2d(x[0].clone().reshape(SHAPE), options)
                },
            );
            check(
                &[values(140, 1)],
                |x| max_pool2d_with(x[0].clone().reshape(SHAPE), kernel, stride, padding, true),
                |x| {
                    let options = MaxPoolOptions::new(kernel)
                        .with_stride(stride)
                        .with_padding(padding)
                        .with_ceil_mode(true);
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
                |x| {
                    avg_pool2d(
                        x[0].clone().reshape(SHAPE),
                        [2, 2],
                        [2, 2],
                        [1, 1],
                        ceil_mode,
                        count_include_pad,
                    )
                },
                |x| {
                    let options =
                        AvgPoolOptions::new([2, 2]).with_stride([2, 2]).with_padding([1, 1]);
                    let options =
                        options.with_count_include_pad(count_include_pad).with_ceil_mode(ceil_mode);
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
    fn pooling_by_a_product_of_matrices_is_libtorchs_in_both_formats() {
        for size in [[2, 3], [6, 6]] {
            let pool = AdaptiveAvgPool { size };
            let x = tch::Tensor::rand([2, 4, 5, 7], (tch::Kind::Double, tch::Device::Cpu));
            let grad =
                tch::Tensor::rand([2, 4, size[0], size[1]], (tch::Kind::Double, tch::Device::Cpu));
            for format in [MemoryFormat::Contiguous, MemoryFormat::ChannelsLast] {
                let x = format.copied(&x);
                let pairs = [
                    (pool.product(&x), x.f_internal_adaptive_avg_pool2d(size)),
                    (
                        pool.product_back(&x, &grad),
                        x.f_internal_adaptive_avg_pool2d_backward(&grad),
                    ),
                ];
                for (found, expected) in pairs {
                    let (found, expected) =
                        (found.expect("a product"), expected.expect("libtorch's"));
                    assert_eq!(is_channels_last(&found), format == MemoryFormat::ChannelsLast);
                    assert!((found - expected).abs().max().double_value(&[]) < 1e-6);
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "padding [2, 0] at most half the kernel")]
    fn too_much_padding_is_named() {
        max_pool2d(
            Tensor::zeros([1, 1, 4, 4], &burn::tensor::Device::libtorch()),
            [3, 3],
            [1, 1],
            [2, 0],
        );
    }
}
