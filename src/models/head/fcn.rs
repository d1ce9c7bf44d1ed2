//! The fully convolutional head (Long et al. 2015), which is also the usual auxiliary head.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::decode::{Decode, head_config};
use crate::models::layer::{Conv2d, ConvModule, square};
use crate::models::{Forward, ModelError};
use crate::ops;

head_config! {
    /// The keys of `type: FCNHead`.
    FCNHeadConfig {
        #[serde(default = "two")]
        num_convs: usize,
        #[serde(default = "three")]
        #[serde(deserialize_with = "crate::config::positive")]
        kernel_size: usize,
        /// Join the input with the convolutions' output before the classifier.
        #[serde(default = "yes")]
        concat_input: bool,
        #[serde(default = "one")]
        #[serde(deserialize_with = "crate::config::positive")]
        dilation: usize,
    }
}

fn one() -> usize {
    1
}
fn two() -> usize {
    2
}
fn three() -> usize {
    3
}
fn yes() -> bool {
    true
}

impl FCNHeadConfig {
    fn check(&self) -> Result<(), ModelError> {
        if self.kernel_size.is_multiple_of(2) {
            let problem = format!("expected an odd number, so that sizes stay, got {}", self.kernel_size);
            return Err(ModelError::config("kernel_size", problem));
        }
        if self.dilation == 0 {
            return Err(ModelError::config("dilation", "expected at least 1, got 0"));
        }
        let (input, channels) = (self.decode().input_channels(), self.channels);
        if self.num_convs == 0 && input != channels {
            let problem = format!("is {channels}, but without convolutions (num_convs: 0) it must be in_channels, {input}");
            return Err(ModelError::config("channels", problem));
        }
        Ok(())
    }

    pub(super) fn init(&self, channels: &[usize], index: u64, device: &Device) -> Result<FCNHead, ModelError> {
        self.check()?;
        let (conv_seg, decode) = self.decode().init(channels, index, device)?;
        let (input, module) = (self.decode().input_channels(), self.decode().conv_module());
        let padding = self.kernel_size / 2;
        let dilated = square(1, padding * self.dilation, self.dilation);
        let conv = |position| {
            let input = if position == 0 { input } else { self.channels };
            module.init([input, self.channels], self.kernel_size, dilated, device)
        };
        let convs: Vec<_> = (0..self.num_convs).map(conv).collect();
        let joined = [input + self.channels, self.channels];
        let conv_cat = self.concat_input.then(|| module.init(joined, self.kernel_size, square(1, padding, 1), device));
        Ok(FCNHead { conv_seg, convs, conv_cat, decode })
    }
}

/// Convolutions at the feature map's size.
#[derive(Module, Debug)]
pub struct FCNHead {
    conv_seg: Conv2d,
    convs: Vec<ConvModule>,
    conv_cat: Option<ConvModule>,
    #[module(skip)]
    decode: Decode,
}

impl FCNHead {
    pub(super) fn forward(&self, features: &[Tensor<4>], ctx: &Forward) -> Tensor<4> {
        let input = self.decode.select(features); // [n, c, h, w]
        let kept = self.conv_cat.as_ref().map(|conv| (conv, input.clone()));
        let x = self.convs.iter().fold(input, |x, conv| conv.forward(x, ctx));
        let x = match kept {
            Some((conv, input)) => conv.forward(ops::concat(vec![input, x]), ctx),
            None => x,
        };
        self.decode.classify(&self.conv_seg, x, ctx)
    }

    pub(super) fn decode(&self) -> &Decode {
        &self.decode
    }
}
