//! The blocks of MobileNetV2 (Sandler et al. 2018) and MobileNetV3 (Howard et al. 2019): wide
//! inside, where every channel is convolved by itself.

use burn::module::Module;
use burn::tensor::Tensor;

use super::{
    Act, ActConfig, AdaptiveAvgPool, Conv2d, ConvModule, ConvModuleConfig, HSigmoidConfig, Norm,
    normed, square,
};
use crate::models::{Builder, Forward};
use crate::ops;

/// What a block of MobileNetV2 is made of.
#[derive(Debug, Clone, Copy)]
pub struct InvertedConfig<'a> {
    pub channels: [usize; 2],
    pub stride: usize,
    /// How many times wider it is inside.
    pub expand_ratio: usize,
    pub dilation: usize,
    pub module: &'a ConvModuleConfig,
}

/// A block of MobileNetV2.
#[derive(Module, Debug)]
pub struct InvertedResidual {
    conv: Vec<ConvModule>,
    /// Whether its input is added.
    shortcut: bool,
}

impl InvertedResidual {
    pub fn new(config: InvertedConfig, builder: &Builder) -> Self {
        let InvertedConfig { channels: [input, output], stride, expand_ratio, dilation, module } =
            config;
        let inner = input * expand_ratio;
        let linear = ConvModuleConfig { act_cfg: None, ..module.clone() };
        let pointwise = square(1, 0, 1);
        let depthwise = ops::Conv { groups: inner, ..square(stride, dilation, dilation) };
        let mut conv = Vec::with_capacity(3);
        if expand_ratio != 1 {
            conv.push(module.init([input, inner], 1, pointwise, builder));
        }
        conv.push(module.init([inner; 2], 3, depthwise, builder));
        conv.push(linear.init([inner, output], 1, pointwise, builder));
        Self { conv, shortcut: stride == 1 && input == output }
    }

    /// `[n, in, h, w]` to `[n, out, h', w']`.
    pub fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let y = self.conv.iter().fold(x.clone(), |x, conv| conv.forward(x, ctx));
        if self.shortcut { x + y } else { y }
    }
}

/// `value`, rounded to a multiple of 8 that is not much smaller: mmseg's `make_divisible`.
pub fn make_divisible(value: f64) -> usize {
    let rounded = (((value + 4.0) as usize) / 8 * 8).max(8);
    if (rounded as f64) < 0.9 * value { rounded + 8 } else { rounded }
}

/// What a block of MobileNetV3 is made of.
#[derive(Debug, Clone, Copy)]
pub struct InvertedV3Config<'a> {
    pub channels: [usize; 2],
    /// Channels inside.
    pub inner: usize,
    pub kernel: usize,
    pub stride: usize,
    pub dilation: usize,
    /// Padding as TensorFlow has it, by the size of the input.
    pub adaptive: bool,
    /// Whether channels are weighed by what the whole image has of them.
    pub squeeze: bool,
    /// Whether the input is added.
    pub shortcut: bool,
    pub module: &'a ConvModuleConfig,
}

/// A block of MobileNetV3.
#[derive(Module, Debug)]
pub struct InvertedResidualV3 {
    expand_conv: Option<ConvModule>,
    depthwise_conv: AdaptiveConvModule,
    se: Option<SELayer>,
    linear_conv: ConvModule,
    shortcut: bool,
}

impl InvertedResidualV3 {
    pub fn new(config: InvertedV3Config, builder: &Builder) -> Self {
        let InvertedV3Config { channels: [input, output], inner, kernel, module, .. } = config;
        let (stride, dilation) = (config.stride, config.dilation);
        let linear = ConvModuleConfig { act_cfg: None, ..module.clone() };
        let pointwise = square(1, 0, 1);
        let padding = if config.adaptive { 0 } else { dilation * (kernel - 1) / 2 };
        let depthwise = ops::Conv { groups: inner, ..square(stride, padding, dilation) };
        Self {
            expand_conv: (input != inner)
                .then(|| module.init([input, inner], 1, pointwise, builder)),
            depthwise_conv: AdaptiveConvModule::new(
                module,
                [inner; 2],
                kernel,
                depthwise,
                config.adaptive,
                builder,
            ),
            se: config.squeeze.then(|| SELayer::new(inner, 4, builder)),
            linear_conv: linear.init([inner, output], 1, pointwise, builder),
            shortcut: config.shortcut,
        }
    }

    /// `[n, in, h, w]` to `[n, out, h', w']`.
    pub fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let y = self.expand_conv.iter().fold(x.clone(), |x, conv| conv.forward(x, ctx));
        let y = self.depthwise_conv.forward(y, ctx);
        let y = self.se.iter().fold(y, |y, se| se.forward(y, ctx));
        let y = self.linear_conv.forward(y, ctx);
        if self.shortcut { x + y } else { y }
    }
}

/// A `ConvModule` with mmcv's `Conv2dAdaptivePadding`: the input is surrounded by what an output of
/// `size / stride` needs, more at the right and at the bottom.
#[derive(Module, Debug)]
pub struct AdaptiveConvModule {
    conv: Conv2d,
    bn: Option<Norm>,
    activate: Option<Act>,
    #[module(skip)]
    window: Option<Window>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    kernel: usize,
    stride: usize,
    dilation: usize,
}

impl AdaptiveConvModule {
    pub fn new(
        module: &ConvModuleConfig,
        channels: [usize; 2],
        kernel: usize,
        conv: ops::Conv,
        adaptive: bool,
        builder: &Builder,
    ) -> Self {
        let window = Window { kernel, stride: conv.stride[0], dilation: conv.dilation[0] };
        Self {
            conv: Conv2d::kaiming(channels, kernel.into(), conv, 0.0, builder),
            bn: module.norm_cfg.as_ref().map(|it| it.init(channels[1], builder)),
            activate: module.act_cfg.as_ref().map(|it| it.init(builder)),
            window: adaptive.then_some(window),
        }
    }

    /// `[n, in, h, w]` to `[n, out, h', w']`.
    pub fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let x = match self.window {
            None => x,
            Some(Window { kernel, stride, dilation }) => {
                let [.., height, width] = x.dims();
                let around = |size: usize| {
                    let reach = (size.div_ceil(stride) - 1) * stride + (kernel - 1) * dilation + 1;
                    let lacking = reach.saturating_sub(size);
                    [lacking / 2, lacking - lacking / 2].map(|it| it as i64)
                };
                let ([top, bottom], [left, right]) = (around(height), around(width));
                ops::pad2d(x, [left, right, top, bottom], 0.0)
            }
        };
        normed(self.conv.forward(x), self.bn.as_ref(), self.activate.as_ref(), ctx)
    }
}

/// Squeeze and excitation (Hu et al. 2017), mmseg's `SELayer`.
#[derive(Module, Debug)]
pub struct SELayer {
    global_avgpool: AdaptiveAvgPool,
    conv1: ConvModule,
    conv2: ConvModule,
}

impl SELayer {
    pub fn new(channels: usize, ratio: usize, builder: &Builder) -> Self {
        let inner = make_divisible((channels / ratio) as f64);
        let with = |act_cfg| ConvModuleConfig { norm_cfg: None, act_cfg: Some(act_cfg) };
        let (rectified, gate) =
            (with(ActConfig::default()), with(ActConfig::HSigmoid(HSigmoidConfig::default())));
        Self {
            global_avgpool: AdaptiveAvgPool { size: 1 },
            conv1: rectified.init([channels, inner], 1, square(1, 0, 1), builder),
            conv2: gate.init([inner, channels], 1, square(1, 0, 1), builder),
        }
    }

    pub fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let mean = self.global_avgpool.forward(x.clone());
        let weights = self.conv2.forward(self.conv1.forward(mean, ctx), ctx);
        x * weights
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_rounded_as_mmseg_rounds_them() {
        let found = [1.0, 8.0, 11.9, 12.0, 18.0, 30.0, 67.0, 144.0].map(make_divisible);
        assert_eq!(found, [8, 8, 16, 16, 24, 32, 64, 144]);
    }
}
