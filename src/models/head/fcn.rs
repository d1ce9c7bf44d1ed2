//! The fully convolutional head (Long et al. 2015), which is also the usual auxiliary head; and
//! that of Fast-SCNN, whose convolutions are separable.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

use super::{Decode, DecodeConfig, Head};
use crate::config::{Both, default};
use crate::models::contract::{Feature, HeadKeys, RunHead, Seen};
use crate::models::layer::{
    ActConfig, Conv2d, ConvModule, ConvModuleConfig, SeparableConvModule, square,
};
use crate::models::{Builder, Forward, ModelError};
use crate::ops;

/// The keys of `type: FCNHead`.
pub type FCNHeadConfig = Both<DecodeConfig, FCNKeys>;

/// The keys of `type: DepthwiseSeparableFCNHead`.
pub type DepthwiseSeparableFCNHeadConfig = Both<DecodeConfig, Both<FCNKeys, SeparableFCNKeys>>;

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

/// The keys that the head of separable convolutions has besides.
#[derive(Debug, Clone, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct SeparableFCNKeys {
    /// After the depthwise convolutions.
    pub dw_act_cfg: Option<ActConfig>,
}

impl HeadKeys for FCNKeys {
    fn check(&self, shared: &DecodeConfig, _: &[Feature]) -> Result<(), ModelError> {
        shared.one_map()?;
        if self.kernel_size.is_multiple_of(2) {
            let problem =
                format!("expected an odd number, so that sizes stay, got {}", self.kernel_size);
            return Err(ModelError::config("kernel_size", problem));
        }
        let (input, channels) = (shared.input_channels(), shared.channels);
        if self.num_convs == 0 && input != channels {
            let problem = format!(
                "is {channels}, but without convolutions (num_convs: 0) it must be in_channels, \
                 {input}"
            );
            return Err(ModelError::config("channels", problem));
        }
        Ok(())
    }

    fn build(
        &self,
        shared: &DecodeConfig,
        inputs: &[Feature],
        builder: &Builder,
    ) -> Result<Head, ModelError> {
        Ok(self.plain_head(shared, inputs, builder)?.into())
    }
}

impl FCNKeys {
    /// The head of plain convolutions.
    pub(super) fn plain_head(
        &self,
        shared: &DecodeConfig,
        inputs: &[Feature],
        builder: &Builder,
    ) -> Result<FCNHead, ModelError> {
        let module = shared.conv_module();
        let conv = |channels, dilation| {
            let conv = square(1, self.kernel_size / 2 * dilation, dilation);
            Conv::Plain(module.init(channels, self.kernel_size, conv, builder))
        };
        self.head(shared, inputs, &conv, builder)
    }

    /// The head whose convolutions `conv` makes, of so many channels and a dilation.
    fn head(
        &self,
        shared: &DecodeConfig,
        inputs: &[Feature],
        conv: &dyn Fn([usize; 2], usize) -> Conv,
        builder: &Builder,
    ) -> Result<FCNHead, ModelError> {
        let (conv_seg, decode) = shared.build(inputs, builder)?;
        let (input, channels) = (shared.input_channels(), shared.channels);
        let one = |position| {
            conv([if position == 0 { input } else { channels }, channels], self.dilation)
        };
        let convs = (0..self.num_convs).map(one).collect();
        let conv_cat = self.concat_input.then(|| conv([input + channels, channels], 1));
        Ok(FCNHead { conv_seg, convs, conv_cat, decode })
    }
}

impl HeadKeys for Both<FCNKeys, SeparableFCNKeys> {
    fn check(&self, shared: &DecodeConfig, inputs: &[Feature]) -> Result<(), ModelError> {
        self.shared.check(shared, inputs)?;
        if self.shared.num_convs == 0 {
            return Err(ModelError::config("num_convs", "expected at least 1, got 0"));
        }
        Ok(())
    }

    /// As in mmseg, the pointwise convolutions have a ReLU, and none is dilated.
    fn build(
        &self,
        shared: &DecodeConfig,
        inputs: &[Feature],
        builder: &Builder,
    ) -> Result<Head, ModelError> {
        let with = |act_cfg| ConvModuleConfig { norm_cfg: shared.norm_cfg.clone(), act_cfg };
        let (pointwise, depthwise) =
            (with(Some(ActConfig::default())), with(self.dw_act_cfg.clone()));
        let kernel = self.shared.kernel_size;
        let conv = |channels, _| {
            let conv = square(1, kernel / 2, 1);
            Conv::Separable(pointwise.separable_with(&depthwise, channels, kernel, conv, builder))
        };
        Ok(self.shared.head(shared, inputs, &conv, builder)?.into())
    }
}

/// Convolutions at the feature map's size.
#[derive(Module, Debug)]
pub struct FCNHead {
    conv_seg: Conv2d,
    convs: Vec<Conv>,
    conv_cat: Option<Conv>,
    #[module(skip)]
    decode: Decode,
}

#[derive(Module, Debug)]
enum Conv {
    Plain(ConvModule),
    Separable(SeparableConvModule),
}

impl Conv {
    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        match self {
            Self::Plain(conv) => conv.forward(x, ctx),
            Self::Separable(conv) => conv.forward(x, ctx),
        }
    }
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
