//! Pyramid pooling (Zhao et al. 2017), which PSPNet's head and UPerNet's share.

use burn::module::Module;
use burn::tensor::Tensor;

use super::{AdaptiveAvgPool, ConvModule, ConvModuleConfig, square};
use crate::models::{Builder, Forward};
use crate::ops;

/// Means over grids of several sizes, each convolved.
#[derive(Module, Debug)]
pub enum PyramidPooling {
    /// Grids and convolutions, numbered in the state dict.
    Levels(Vec<(AdaptiveAvgPool, ConvModule)>),
}

impl PyramidPooling {
    /// mmseg's `pool_scales`.
    pub(crate) fn default_scales() -> Vec<usize> {
        vec![1, 2, 3, 6]
    }

    /// Grids of these sides over a map of `input` channels, each to `output` channels.
    pub fn new(
        scales: &[usize],
        channels: [usize; 2],
        module: &ConvModuleConfig,
        builder: &Builder,
    ) -> Self {
        let level = |&size: &usize| {
            (AdaptiveAvgPool { size }, module.init(channels, 1, square(1, 0, 1), builder))
        };
        Self::Levels(scales.iter().map(level).collect())
    }

    /// `x` `[n, c, h, w]`, and the convolved means of each grid resized to it.
    pub fn forward(&self, x: Tensor<4>, align_corners: bool, ctx: &Forward) -> Vec<Tensor<4>> {
        let Self::Levels(levels) = self;
        let [.., height, width] = x.dims();
        let mut joined = vec![x.clone()];
        for (pool, conv) in levels {
            let pooled = conv.forward(pool.forward(x.clone()), ctx);
            joined.push(ops::resize_bilinear(pooled, [height, width], align_corners));
        }
        joined
    }
}
