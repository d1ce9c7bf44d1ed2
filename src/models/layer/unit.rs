//! Layers without parameters. Some hold a place in a sequence, so that the layers after them keep
//! their numbers.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::ops;

/// A place in a sequence; the norm before it applies the ReLU itself.
#[derive(Module, Debug)]
pub struct ReLU {}

/// The mean over windows of `kernel` × `kernel` at a stride of `kernel`; the last window may be
/// smaller.
#[derive(Module, Debug)]
pub struct AvgPool {
    pub kernel: usize,
}

impl AvgPool {
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        ops::avg_pool2d(x, [self.kernel; 2], [self.kernel; 2], [0, 0], true, false)
    }
}

/// The largest value of windows of `kernel` × `kernel` at a stride of `kernel`.
#[derive(Module, Debug)]
pub struct MaxPool {
    pub kernel: usize,
}

impl MaxPool {
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        ops::max_pool2d(x, [self.kernel; 2], [self.kernel; 2], [0, 0])
    }
}

/// The means over a grid of `size` × `size` cells.
#[derive(Module, Debug)]
pub struct AdaptiveAvgPool {
    pub size: usize,
}

impl AdaptiveAvgPool {
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        ops::adaptive_avg_pool2d(x, [self.size; 2])
    }
}

/// The mean over windows of any shape (height, width), all of them whole.
#[derive(Module, Debug)]
pub struct Window {
    #[module(skip)]
    pub kernel: [usize; 2],
    #[module(skip)]
    pub stride: [usize; 2],
}

impl Window {
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        ops::avg_pool2d(x, self.kernel, self.stride, [0, 0], false, true)
    }
}
