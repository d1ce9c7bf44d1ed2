//! A residual branch with a learnt factor for each of its channels.

use burn::module::Param;
use burn::tensor::Tensor;

use super::DropPath;
use crate::models::init::Fill;
use crate::models::{Builder, Forward};
use crate::ops;
use crate::weights::Layer;

/// The factors of `channels` channels, all `value` at first.
pub(crate) fn layer_scale(channels: usize, value: f64, builder: &Builder) -> Param<Tensor<1>> {
    builder.parameter([channels], Layer::Own, Fill::Constant(value))
}

/// `x` `[n, c, h, w]` and the scaled `branch`, which a whole sample may lose in training.
pub(crate) fn add_scaled(
    x: Tensor<4>,
    branch: Tensor<4>,
    scale: &Param<Tensor<1>>,
    drop_path: &DropPath,
    ctx: &Forward,
) -> Tensor<4> {
    ops::scaled_sum(x, drop_path.forward(branch, ctx), scale.val(), 1)
}
