//! The head of DeepLabV3+ (Chen et al. 2018): a pyramid of separable convolutions, joined with an
//! early map of the backbone.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

use super::{Decode, DecodeConfig, Head};
use crate::config::Both;
use crate::models::contract::{Feature, HeadSpec, RunHead, Seen};
use crate::models::layer::{
    AtrousConfig, AtrousPyramid, Conv2d, ConvModule, Inline, SeparableConvModule, square,
};
use crate::models::{Builder, Forward, ModelError};
use crate::ops;

/// The keys of `type: DepthwiseSeparableASPPHead`.
pub type DepthwiseSeparableASPPHeadConfig = Both<DecodeConfig, SeparableASPPKeys>;

/// Its own keys.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct SeparableASPPKeys {
    /// The dilation of each branch.
    #[serde(default = "AtrousPyramid::default_dilations")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub dilations: Vec<usize>,
    /// Channels of the backbone's first map; 0 to leave it out.
    pub c1_in_channels: usize,
    /// Channels that it is brought to.
    pub c1_channels: usize,
}

impl HeadSpec for DepthwiseSeparableASPPHeadConfig {
    fn check(&self, inputs: &[Feature]) -> Result<(), ModelError> {
        self.shared.one_map()?;
        let first = inputs.first().map_or(0, |it| it.channels);
        match (self.c1_in_channels, self.c1_channels) {
            (0, 0) => Ok(()),
            (0, channels) => {
                let problem = format!(
                    "is {channels}, but without the first map (c1_in_channels: 0) it must be 0"
                );
                Err(ModelError::config("c1_channels", problem))
            }
            (_, 0) => Err(ModelError::config("c1_channels", "expected at least 1, got 0")),
            (expected, _) if expected != first => {
                let problem = format!(
                    "expects {expected} channels, but the first feature map of the backbone has \
                     {first}"
                );
                Err(ModelError::config("c1_in_channels", problem))
            }
            _ => Ok(()),
        }
    }

    fn build(&self, inputs: &[Feature], builder: &Builder) -> Result<Head, ModelError> {
        let (conv_seg, decode) = self.shared.build(inputs, builder)?;
        let channels = self.shared.channels;
        let module = &self.shared.conv_module();
        let config = AtrousConfig {
            dilations: &self.dilations,
            channels: [self.shared.input_channels(), channels],
            separable: true,
            module,
        };
        let pyramid = Inline::Here(AtrousPyramid::new(config, builder));
        let first = [self.c1_in_channels, self.c1_channels];
        let c1_bottleneck =
            (self.c1_in_channels > 0).then(|| module.init(first, 1, square(1, 0, 1), builder));
        let sep = |input| module.separable([input, channels], 3, square(1, 1, 1), builder);
        let sep_bottleneck = (sep(channels + self.c1_channels), sep(channels));
        Ok(DepthwiseSeparableASPPHead { conv_seg, pyramid, c1_bottleneck, sep_bottleneck, decode }
            .into())
    }
}

/// A pyramid at the last map's size, enlarged to the first's, joined with it and convolved twice.
#[derive(Module, Debug)]
pub struct DepthwiseSeparableASPPHead {
    conv_seg: Conv2d,
    pyramid: Inline<AtrousPyramid>,
    c1_bottleneck: Option<ConvModule>,
    sep_bottleneck: (SeparableConvModule, SeparableConvModule),
    #[module(skip)]
    decode: Decode,
}

impl RunHead for DepthwiseSeparableASPPHead {
    fn forward(&self, seen: Seen, ctx: &Forward) -> Tensor<4> {
        let x = self.decode.select(seen.features); // [n, c, h, w]
        let mut x = self.pyramid.forward(x, self.decode.align_corners(), ctx);
        if let Some(conv) = &self.c1_bottleneck {
            let first = conv.forward(seen.features[0].clone(), ctx);
            let [.., height, width] = first.dims();
            x = ops::concat(vec![self.decode.resize(x, [height, width]), first]);
        }
        let x = self.sep_bottleneck.1.forward(self.sep_bottleneck.0.forward(x, ctx), ctx);
        self.decode.classify(&self.conv_seg, x, ctx)
    }

    fn decode(&self) -> &Decode {
        &self.decode
    }
}
