//! 2-d convolution.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use serde::Deserialize;

use crate::ops;

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

/// torch's `Conv2d`. Weights start at zero: [`init`](crate::models::InitConfig) fills a whole model at once.
#[derive(Module, Debug)]
pub struct Conv2d {
    /// `[out, in, kernel, kernel]`
    weight: Param<Tensor<4>>,
    /// `[out]`
    bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    conv: ops::Conv,
}

impl Conv2d {
    /// A square convolution from `input` to `output` channels, without bias.
    pub fn new([input, output]: [usize; 2], kernel: usize, conv: ops::Conv, device: &Device) -> Self {
        let weight = Param::from_tensor(Tensor::zeros([output, input, kernel, kernel], device));
        Self { weight, bias: None, conv }
    }

    #[must_use]
    pub fn with_bias(mut self, device: &Device) -> Self {
        let [output, ..] = self.weight.dims();
        self.bias = Some(Param::from_tensor(Tensor::zeros([output], device)));
        self
    }

    /// `[n, in, h, w]` to `[n, out, h', w']`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        ops::conv2d(x, self.weight.val(), self.bias.as_ref().map(Param::val), self.conv)
    }
}

/// Stride, padding and dilation of a square convolution.
pub(crate) fn square(stride: usize, padding: usize, dilation: usize) -> ops::Conv {
    ops::Conv { stride: [stride; 2], padding: [padding; 2], dilation: [dilation; 2], groups: 1 }
}
