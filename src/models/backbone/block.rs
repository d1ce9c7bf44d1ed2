//! Residual blocks, and the shortcut of those that change resolution or width.

use burn::module::Module;
use burn::tensor::Tensor;

use super::Style;
use super::split_attention::{SplitAttention, SplitConfig};
use crate::models::layer::{AvgPool, Conv2d, Norm, NormConfig, square};
use crate::models::{Builder, Forward, ModelError};
use crate::ops::{self, Activation};

/// What a bottleneck has between its first and its last convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inner {
    /// A convolution.
    Plain,
    /// A convolution in groups (Xie et al. 2016).
    Grouped { groups: usize, base_width: usize },
    /// One whose splits are weighed (Zhang et al. 2020).
    Split(SplitConfig),
}

impl Inner {
    /// Groups, and channels of one for so many base channels.
    fn groups(self) -> Option<(usize, usize)> {
        match self {
            Self::Plain => None,
            Self::Grouped { groups, base_width }
            | Self::Split(SplitConfig { groups, base_width, .. }) => {
                (groups > 1).then_some((groups, base_width))
            }
        }
    }

    /// Channels inside a block of `planes`.
    fn width(self, planes: usize, base_channels: usize) -> usize {
        match self.groups() {
            None => planes,
            // As mmseg rounds it.
            Some((groups, width)) => {
                (planes as f64 * (width as f64 / base_channels as f64)) as usize * groups
            }
        }
    }

    /// An error where a group would have no channel; it names `base_width`.
    pub(super) fn check(self, base_channels: usize) -> Result<(), ModelError> {
        if self.width(base_channels, base_channels) == 0 {
            let problem = "leaves groups without channels";
            return Err(ModelError::config("base_width", problem));
        }
        Ok(())
    }
}

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
    pub(super) inner: Inner,
    /// Channels of the first stage's inner convolutions.
    pub(super) base_channels: usize,
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
        let width = self.inner.width(planes, self.base_channels);
        let (conv1, bn1) = self.conv_bn([input, width], 1, square(first, 0, 1), builder);
        let (conv2, bn2) = match self.inner {
            Inner::Plain | Inner::Grouped { .. } => {
                let groups = self.inner.groups().map_or(1, |(groups, _)| groups);
                let conv = ops::Conv { groups, ..square(second, dilation, dilation) };
                let (conv, bn) = self.conv_bn([width; 2], 3, conv, builder);
                (Middle::Plain(conv), Some(bn))
            }
            Inner::Split(split) => {
                let places = [second, dilation];
                let conv = SplitAttention::new(split, width, places, self.norm_cfg, builder);
                (Middle::Split(conv), None)
            }
        };
        let (conv3, bn3) = self.conv_bn([width, output], 1, square(1, 0, 1), builder);
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
    conv2: Middle,
    bn2: Option<Norm>,
    conv3: Conv2d,
    bn3: Norm,
    downsample: Option<Downsample>,
}

#[derive(Module, Debug)]
enum Middle {
    Plain(Conv2d),
    Split(SplitAttention),
}

impl Bottleneck {
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let y = self.bn1.forward(self.conv1.forward(x.clone()), Activation::ReLU, ctx);
        let y = match (&self.conv2, &self.bn2) {
            (Middle::Plain(conv), Some(bn)) => bn.forward(conv.forward(y), Activation::ReLU, ctx),
            (Middle::Plain(conv), None) => conv.forward(y),
            (Middle::Split(conv), _) => conv.forward(y, ctx),
        };
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
