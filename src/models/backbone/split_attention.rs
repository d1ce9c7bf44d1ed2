//! The split attention of ResNeSt (Zhang et al. 2020): a convolution into several maps, weighed
//! against each other by what the whole image has of them.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::models::layer::{Conv2d, Norm, NormConfig, square};
use crate::models::{Builder, Forward};
use crate::ops::{self, Activation};

/// What ResNeSt's blocks have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SplitConfig {
    pub(super) groups: usize,
    pub(super) base_width: usize,
    pub(super) radix: usize,
    pub(super) reduction_factor: usize,
    pub(super) avg_down_stride: bool,
}

/// mmseg's `SplitAttentionConv2d`, and the mean that may halve the size after it.
#[derive(Module, Debug)]
pub(super) struct SplitAttention {
    conv: Conv2d,
    bn0: Norm,
    fc1: Conv2d,
    bn1: Norm,
    fc2: Conv2d,
    radix: usize,
    groups: usize,
    /// Of the mean.
    stride: usize,
}

impl SplitAttention {
    /// Over `channels` channels, at a stride and a dilation.
    pub(super) fn new(
        config: SplitConfig,
        channels: usize,
        [stride, dilation]: [usize; 2],
        norm_cfg: &NormConfig,
        builder: &Builder,
    ) -> Self {
        let SplitConfig { groups, radix, reduction_factor, avg_down_stride, .. } = config;
        let inner = (channels * radix / reduction_factor).max(32);
        let mean = avg_down_stride && stride > 1;
        let strided = ops::Conv {
            groups: groups * radix,
            ..square(if mean { 1 } else { stride }, dilation, dilation)
        };
        let one = ops::Conv { groups, ..square(1, 0, 1) };
        let wide = channels * radix;
        Self {
            conv: Conv2d::new([channels, wide], 3, strided, builder),
            bn0: norm_cfg.init(wide, builder),
            fc1: Conv2d::new([channels, inner], 1, one, builder).with_bias(builder),
            bn1: norm_cfg.init(inner, builder),
            fc2: Conv2d::new([inner, wide], 1, one, builder).with_bias(builder),
            radix,
            groups,
            stride: if mean { stride } else { 1 },
        }
    }

    /// `[n, c, h, w]` to `[n, c, h', w']`.
    pub(super) fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let x = self.bn0.forward(self.conv.forward(x), Activation::ReLU, ctx);
        let ([n, wide, height, width], radix) = (x.dims(), self.radix);
        let channels = wide / radix;
        let splits = x.reshape([n, radix, channels, height, width]);
        let sum: Tensor<4> = splits.clone().sum_dim(1).reshape([n, channels, height, width]);
        let mean = self.fc1.forward(ops::adaptive_avg_pool2d(sum, [1, 1]));
        let mean = self.bn1.forward(mean, Activation::ReLU, ctx);
        let scores = self.fc2.forward(mean);
        let weights = if radix > 1 {
            let scores = scores.reshape([n, self.groups, radix, channels / self.groups]);
            ops::softmax(scores.swap_dims(1, 2), 1)
        } else {
            ops::activate(scores, Activation::Sigmoid)
        };
        let weights = weights.reshape([n, radix, channels, 1, 1]);
        let x: Tensor<4> = (splits * weights).sum_dim(1).reshape([n, channels, height, width]);
        if self.stride == 1 {
            return x;
        }
        ops::avg_pool2d(x, [3, 3], [self.stride; 2], [1, 1], false, true)
    }
}
