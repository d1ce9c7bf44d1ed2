//! mmcv's `ConvModule` in the order norm, activation, convolution.

use burn::module::Module;
use burn::tensor::Tensor;

use super::{Act, ActConfig, Conv2d, Kernel, Norm, NormConfig, normed};
use crate::models::{Builder, Forward};
use crate::ops;

/// What such convolutions have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct PreActConfig {
    pub norm_cfg: NormConfig,
    pub act_cfg: Option<ActConfig>,
}

impl PreActConfig {
    /// A convolution from `input` to `output` channels, without bias.
    pub fn init(
        &self,
        channels: [usize; 2],
        kernel: usize,
        conv: ops::Conv,
        builder: &Builder,
    ) -> PreActConv {
        PreActConv {
            conv: Conv2d::kaiming(channels, Kernel::from(kernel), conv, 0.0, builder),
            bn: self.norm_cfg.init(channels[0], builder),
            activate: self.act_cfg.as_ref().map(|it| it.init(builder)),
        }
    }
}

/// Norm, activation and convolution.
#[derive(Module, Debug)]
pub struct PreActConv {
    conv: Conv2d,
    bn: Norm,
    activate: Option<Act>,
}

impl PreActConv {
    /// `[n, in, h, w]` to `[n, out, h', w']`.
    pub fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        self.conv.forward(normed(x, Some(&self.bn), self.activate.as_ref(), ctx))
    }
}
