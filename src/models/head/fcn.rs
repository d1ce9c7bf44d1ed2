//! The fully convolutional head (Long et al. 2015), which is also the usual auxiliary head.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

use super::{Decode, DecodeConfig, Head};
use crate::config::{Both, default};
use crate::models::contract::{Feature, HeadSpec, RunHead, Seen};
use crate::models::layer::{Conv2d, ConvModule, square};
use crate::models::{Builder, Forward, ModelError};
use crate::ops;

/// The keys of `type: FCNHead`.
pub type FCNHeadConfig = Both<DecodeConfig, FCNKeys>;

/// Its own keys.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct FCNKeys {
    #[serde(default = "default::n::<2>")]
    pub num_convs: usize,
    #[serde(default = "default::n::<3>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub kernel_size: usize,
    /// Join the input with the convolutions' output before the classifier.
    #[serde(default = "default::yes")]
    pub concat_input: bool,
    #[serde(default = "default::n::<1>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub dilation: usize,
}

impl HeadSpec for FCNHeadConfig {
    fn check(&self, _: &[Feature]) -> Result<(), ModelError> {
        self.shared.one_map()?;
        if self.kernel_size.is_multiple_of(2) {
            let problem =
                format!("expected an odd number, so that sizes stay, got {}", self.kernel_size);
            return Err(ModelError::config("kernel_size", problem));
        }
        let (input, channels) = (self.shared.input_channels(), self.shared.channels);
        if self.num_convs == 0 && input != channels {
            let problem = format!(
                "is {channels}, but without convolutions (num_convs: 0) it must be in_channels, \
                 {input}"
            );
            return Err(ModelError::config("channels", problem));
        }
        Ok(())
    }

    fn build(&self, inputs: &[Feature], builder: &Builder) -> Result<Head, ModelError> {
        let (conv_seg, decode) = self.shared.build(inputs, builder)?;
        let (input, channels) = (self.shared.input_channels(), self.shared.channels);
        let module = self.shared.conv_module();
        let padding = self.kernel_size / 2;
        let dilated = square(1, padding * self.dilation, self.dilation);
        let conv = |position| {
            let input = if position == 0 { input } else { channels };
            module.init([input, channels], self.kernel_size, dilated, builder)
        };
        let convs: Vec<_> = (0..self.num_convs).map(conv).collect();
        let joined = [input + channels, channels];
        let conv_cat = self
            .concat_input
            .then(|| module.init(joined, self.kernel_size, square(1, padding, 1), builder));
        Ok(FCNHead { conv_seg, convs, conv_cat, decode }.into())
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

impl RunHead for FCNHead {
    fn forward(&self, seen: Seen, ctx: &Forward) -> Tensor<4> {
        let input = self.decode.select(seen.features); // [n, c, h, w]
        let kept = self.conv_cat.as_ref().map(|conv| (conv, input.clone()));
        let x = self.convs.iter().fold(input, |x, conv| conv.forward(x, ctx));
        let x = match kept {
            Some((conv, input)) => conv.forward(ops::concat(vec![input, x]), ctx),
            None => x,
        };
        self.decode.classify(&self.conv_seg, x, ctx)
    }

    fn decode(&self) -> &Decode {
        &self.decode
    }
}
