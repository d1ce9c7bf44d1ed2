//! mmcv's `ConvModule`: convolution, norm, activation; and its depthwise separable kind.

use burn::module::Module;
use burn::tensor::Tensor;

use super::{Act, ActConfig, Conv2d, Kernel, Norm, NormConfig, square};
use crate::models::{Builder, Forward};
use crate::ops::{self, Activation};

/// What the convolutions of a head have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvModuleConfig {
    pub norm_cfg: Option<NormConfig>,
    pub act_cfg: Option<ActConfig>,
}

impl ConvModuleConfig {
    /// mmcv's usual kind: a plain batch norm and a ReLU.
    pub(crate) fn batch_relu() -> Self {
        Self { norm_cfg: Some(NormConfig::batch()), act_cfg: Some(ActConfig::default()) }
    }

    /// [`init`](Self::init) without a bias where no norm follows either.
    pub(crate) fn init_without_bias(
        &self,
        channels: [usize; 2],
        kernel: impl Into<Kernel>,
        conv: ops::Conv,
        builder: &Builder,
    ) -> ConvModule {
        let slope = self.act_cfg.as_ref().map_or(0.0, ActConfig::slope);
        ConvModule {
            conv: Conv2d::kaiming(channels, kernel.into(), conv, slope, builder),
            bn: self.norm_cfg.as_ref().map(|it| it.init(channels[1], builder)),
            activate: self.act_cfg.as_ref().map(|it| it.init(builder)),
        }
    }

    /// Convolution from `input` to `output` channels; it has a bias if no norm follows.
    pub fn init(
        &self,
        channels: [usize; 2],
        kernel: impl Into<Kernel>,
        conv: ops::Conv,
        builder: &Builder,
    ) -> ConvModule {
        let slope = self.act_cfg.as_ref().map_or(0.0, ActConfig::slope);
        let convolution = Conv2d::kaiming(channels, kernel.into(), conv, slope, builder);
        let (conv, bn) = match &self.norm_cfg {
            Some(norm) => (convolution, Some(norm.init(channels[1], builder))),
            None => (convolution.with_zero_bias(builder), None),
        };
        ConvModule { conv, bn, activate: self.act_cfg.as_ref().map(|it| it.init(builder)) }
    }

    /// A convolution of each channel by itself, then one of 1×1 over all channels (mmcv's
    /// `DepthwiseSeparableConvModule`).
    pub fn separable(
        &self,
        [input, output]: [usize; 2],
        kernel: usize,
        conv: ops::Conv,
        builder: &Builder,
    ) -> SeparableConvModule {
        self.separable_with(self, [input, output], kernel, conv, builder)
    }

    /// The same with another norm and activation after the depthwise convolution.
    pub fn separable_with(
        &self,
        depthwise: &Self,
        [input, output]: [usize; 2],
        kernel: usize,
        conv: ops::Conv,
        builder: &Builder,
    ) -> SeparableConvModule {
        let by_channel = ops::Conv { groups: input, ..conv };
        SeparableConvModule {
            depthwise_conv: depthwise.init([input, input], kernel, by_channel, builder),
            pointwise_conv: self.init([input, output], 1, square(1, 0, 1), builder),
        }
    }
}

/// Convolution, norm and activation, the latter two optional.
#[derive(Module, Debug)]
pub struct ConvModule {
    conv: Conv2d,
    bn: Option<Norm>,
    activate: Option<Act>,
}

impl ConvModule {
    /// `[n, in, h, w]` to `[n, out, h', w']`.
    pub fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        normed(self.conv.forward(x), self.bn.as_ref(), self.activate.as_ref(), ctx)
    }
}

/// A norm, and an activation in one pass with it where that can be.
pub(crate) fn normed(
    x: Tensor<4>,
    norm: Option<&Norm>,
    act: Option<&Act>,
    ctx: &Forward,
) -> Tensor<4> {
    match (norm, act, act.and_then(Act::plain)) {
        (None, act, _) => act.into_iter().fold(x, |x, act| act.forward(x)),
        (Some(norm), None, _) => norm.forward(x, Activation::None, ctx),
        (Some(norm), Some(_), Some(activation)) => norm.forward(x, activation, ctx),
        (Some(norm), Some(act), None) => act.forward(norm.forward(x, Activation::None, ctx)),
    }
}

/// A depthwise separable convolution.
#[derive(Module, Debug)]
pub struct SeparableConvModule {
    depthwise_conv: ConvModule,
    pointwise_conv: ConvModule,
}

impl SeparableConvModule {
    /// `[n, in, h, w]` to `[n, out, h', w']`.
    pub fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        self.pointwise_conv.forward(self.depthwise_conv.forward(x, ctx), ctx)
    }
}
