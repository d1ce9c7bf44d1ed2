//! Residual blocks, and the shortcut of those that change resolution or width.

use burn::module::Module;
use burn::tensor::Tensor;

use super::Style;
use crate::models::layer::{AvgPool, Conv2d, Norm, NormConfig, square};
use crate::models::{Builder, Forward};
use crate::ops::{self, Activation};

/// What a block is built from.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockConfig<'a> {
    pub(super) input: usize,
    /// Channels of the block's inner convolutions.
    pub(super) planes: usize,
    pub(super) stride: usize,
    pub(super) dilation: usize,
    pub(super) style: Style,
    pub(super) avg_down: bool,
    pub(super) norm_cfg: &'a NormConfig,
}

impl BlockConfig<'_> {
    pub(super) fn conv_bn(
        &self,
        channels: [usize; 2],
        kernel: usize,
        conv: ops::Conv,
        builder: &Builder,
    ) -> (Conv2d, Norm) {
        (Conv2d::new(channels, kernel, conv, builder), self.norm_cfg.init(channels[1], builder))
    }

    /// `downsample`: the shortcut's projection to `output` channels.
    fn projection(&self, output: usize, builder: &Builder) -> Downsample {
        let stride = if self.avg_down { 1 } else { self.stride };
        let (conv, bn) = self.conv_bn([self.input, output], 1, square(stride, 0, 1), builder);
        if self.avg_down {
            Downsample::Averaged((AvgPool { kernel: self.stride }, conv, bn))
        } else {
            Downsample::Strided((conv, bn))
        }
    }

    /// Two 3×3 convolutions; the second is not dilated.
    pub(super) fn basic(&self, downsample: bool, builder: &Builder) -> Block {
        let Self { input, planes, stride, dilation, .. } = *self;
        let (conv1, bn1) =
            self.conv_bn([input, planes], 3, square(stride, dilation, dilation), builder);
        let (conv2, bn2) = self.conv_bn([planes, planes], 3, square(1, 1, 1), builder);
        let downsample = downsample.then(|| self.projection(planes, builder));
        Block::Basic(BasicBlock { conv1, bn1, conv2, bn2, downsample })
    }

    /// 1×1, 3×3 and 1×1; the last has four times the channels.
    pub(super) fn bottleneck(&self, downsample: bool, builder: &Builder) -> Block {
        let Self { input, planes, stride, dilation, .. } = *self;
        let (first, second) = match self.style {
            Style::Pytorch => (1, stride),
            Style::Caffe => (stride, 1),
        };
        let output = planes * BOTTLENECK_EXPANSION;
        let (conv1, bn1) = self.conv_bn([input, planes], 1, square(first, 0, 1), builder);
        let (conv2, bn2) =
            self.conv_bn([planes, planes], 3, square(second, dilation, dilation), builder);
        let (conv3, bn3) = self.conv_bn([planes, output], 1, square(1, 0, 1), builder);
        let downsample = downsample.then(|| self.projection(output, builder));
        Block::Bottleneck(Bottleneck { conv1, bn1, conv2, bn2, conv3, bn3, downsample })
    }
}

/// How many times wider than its inner convolutions a bottleneck's output is.
pub(super) const BOTTLENECK_EXPANSION: usize = 4;

/// A residual block.
#[derive(Module, Debug)]
pub(super) enum Block {
    Basic(BasicBlock),
    Bottleneck(Bottleneck),
}

impl Block {
    pub(super) fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        match self {
            Self::Basic(it) => it.forward(x, ctx),
            Self::Bottleneck(it) => it.forward(x, ctx),
        }
    }
}

/// The block of depths 18 and 34.
#[derive(Module, Debug)]
pub(super) struct BasicBlock {
    conv1: Conv2d,
    bn1: Norm,
    conv2: Conv2d,
    bn2: Norm,
    downsample: Option<Downsample>,
}

impl BasicBlock {
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let y = self.bn1.forward(self.conv1.forward(x.clone()), Activation::ReLU, ctx);
        let y = self.bn2.forward(self.conv2.forward(y), Activation::None, ctx);
        ops::add_relu(y, shortcut(self.downsample.as_ref(), x, ctx))
    }
}

/// The block of depths 50 and more.
#[derive(Module, Debug)]
pub(super) struct Bottleneck {
    conv1: Conv2d,
    bn1: Norm,
    conv2: Conv2d,
    bn2: Norm,
    conv3: Conv2d,
    bn3: Norm,
    downsample: Option<Downsample>,
}

impl Bottleneck {
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let y = self.bn1.forward(self.conv1.forward(x.clone()), Activation::ReLU, ctx);
        let y = self.bn2.forward(self.conv2.forward(y), Activation::ReLU, ctx);
        let y = self.bn3.forward(self.conv3.forward(y), Activation::None, ctx);
        ops::add_relu(y, shortcut(self.downsample.as_ref(), x, ctx))
    }
}

fn shortcut(downsample: Option<&Downsample>, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
    match downsample {
        None => x,
        Some(Downsample::Strided((conv, bn))) => bn.forward(conv.forward(x), Activation::None, ctx),
        Some(Downsample::Averaged((pool, conv, bn))) => {
            let x = if pool.kernel == 1 { x } else { pool.forward(x) };
            bn.forward(conv.forward(x), Activation::None, ctx)
        }
    }
}

/// A shortcut that changes resolution or width.
#[derive(Module, Debug)]
pub(super) enum Downsample {
    Strided((Conv2d, Norm)),
    Averaged((AvgPool, Conv2d, Norm)),
}
