//! Convolutions of images.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use serde::Deserialize;

use crate::models::Builder;
use crate::models::init::Fill;
use crate::ops;
use crate::weights::Layer;

/// `conv_cfg`: the kind of convolution. There is one.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub enum ConvConfig {
    Conv2d(PlainConvConfig),
    Conv(PlainConvConfig),
}

/// `type: Conv2d` has no keys of its own.
#[derive(Debug, Clone, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct PlainConvConfig {}

/// Height and width of a kernel; one number for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel(pub [usize; 2]);

impl From<usize> for Kernel {
    fn from(side: usize) -> Self {
        Self([side; 2])
    }
}

impl From<[usize; 2]> for Kernel {
    fn from(sides: [usize; 2]) -> Self {
        Self(sides)
    }
}

/// torch's `Conv2d`.
#[derive(Module, Debug)]
pub struct Conv2d {
    /// `[out, in / groups, kernel, kernel]`
    weight: Param<Tensor<4>>,
    /// `[out]`
    bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    conv: ops::Conv,
}

impl Conv2d {
    /// A convolution from `input` to `output` channels, without bias, with torch's initial values.
    pub fn new(
        [input, output]: [usize; 2],
        kernel: impl Into<Kernel>,
        conv: ops::Conv,
        builder: &Builder,
    ) -> Self {
        let Kernel([height, width]) = kernel.into();
        let input = input / conv.groups.max(1);
        let weight = builder.parameter(
            [output, input, height, width],
            Layer::Conv2d,
            Fill::torch_default(input * height * width),
        );
        Self { weight, bias: None, conv }
    }

    /// The same with initial values as He et al. 2015 draw them, for a leaky ReLU of this slope
    /// after it: mmcv's `ConvModule`.
    pub(super) fn kaiming(
        [input, output]: [usize; 2],
        kernel: Kernel,
        conv: ops::Conv,
        slope: f64,
        builder: &Builder,
    ) -> Self {
        let Kernel([height, width]) = kernel;
        let shape = [output, input / conv.groups.max(1), height, width];
        let fill = Fill::kaiming(output * height * width, slope);
        Self { weight: builder.parameter(shape, Layer::Conv2d, fill), bias: None, conv }
    }

    #[must_use]
    pub fn with_bias(mut self, builder: &Builder) -> Self {
        let [output, input, height, width] = self.weight.dims();
        self.bias =
            Some(builder.bias(&self.weight, output, Fill::torch_default(input * height * width)));
        self
    }

    /// With a bias that begins at zero.
    #[must_use]
    pub(super) fn with_zero_bias(mut self, builder: &Builder) -> Self {
        let [output, ..] = self.weight.dims();
        self.bias = Some(builder.bias(&self.weight, output, Fill::Constant(0.0)));
        self
    }

    /// `[n, in, h, w]` to `[n, out, h', w']`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        ops::conv2d(x, self.weight.val(), self.bias.as_ref().map(Param::val), self.conv)
    }
}

/// torch's `ConvTranspose2d`, with a bias.
#[derive(Module, Debug)]
pub struct ConvTranspose2d {
    /// `[in, out / groups, kernel, kernel]`
    weight: Param<Tensor<4>>,
    /// `[out]`
    bias: Param<Tensor<1>>,
    #[module(skip)]
    conv: ops::Conv,
    #[module(skip)]
    output_padding: [usize; 2],
}

impl ConvTranspose2d {
    pub fn new(
        [input, output]: [usize; 2],
        kernel: impl Into<Kernel>,
        conv: ops::Conv,
        builder: &Builder,
    ) -> Self {
        let Kernel([height, width]) = kernel.into();
        let per_group = output / conv.groups.max(1);
        let fill = Fill::torch_default(per_group * height * width);
        let weight =
            builder.parameter([input, per_group, height, width], Layer::ConvTranspose2d, fill);
        let bias = builder.bias(&weight, output, fill);
        Self { weight, bias, conv, output_padding: [0; 2] }
    }

    #[must_use]
    pub fn with_output_padding(mut self, output_padding: [usize; 2]) -> Self {
        self.output_padding = output_padding;
        self
    }

    /// `[n, in, h, w]` to `[n, out, h', w']`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        ops::conv_transpose2d(
            x,
            self.weight.val(),
            Some(self.bias.val()),
            self.conv,
            self.output_padding,
        )
    }
}

/// Stride, padding and dilation of a square convolution.
pub(crate) fn square(stride: usize, padding: usize, dilation: usize) -> ops::Conv {
    ops::Conv { stride: [stride; 2], padding: [padding; 2], dilation: [dilation; 2], groups: 1 }
}
