//! Lite R-ASPP, the head of MobileNetV3 (Howard et al. 2019).

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

use super::{Decode, DecodeConfig, Head, InputTransform};
use crate::config::Both;
use crate::models::contract::{Feature, HeadKeys, RunHead, Seen};
use crate::models::layer::{
    ActConfig, Conv2d, ConvModule, ConvModuleConfig, NoKeys, Window, square,
};
use crate::models::{Builder, Forward, ModelError};
use crate::ops;

/// The keys of `type: LRASPPHead`.
pub type LRASPPHeadConfig = Both<DecodeConfig, LRASPPKeys>;

/// Its own keys.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct LRASPPKeys {
    /// Channels that all maps but the last are brought to.
    #[serde(default = "default_branches")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub branch_channels: Vec<usize>,
}

fn default_branches() -> Vec<usize> {
    vec![32, 64]
}

/// The side of the windows whose means weigh the channels, and their stride.
const POOLED: ([usize; 2], [usize; 2]) = ([49, 49], [16, 20]);

impl HeadKeys for LRASPPKeys {
    fn check(&self, shared: &DecodeConfig, _: &[Feature]) -> Result<(), ModelError> {
        if shared.input_transform != Some(InputTransform::MultipleSelect) {
            let problem = "this head takes its maps as they are: write multiple_select";
            return Err(ModelError::config("input_transform", problem));
        }
        let (maps, branches) = (shared.in_channels.len(), self.branch_channels.len());
        if maps != 3 || branches != 2 {
            let problem =
                format!("expected two numbers and three feature maps, got {branches} and {maps}");
            return Err(ModelError::config("branch_channels", problem));
        }
        Ok(())
    }

    fn build(
        &self,
        shared: &DecodeConfig,
        inputs: &[Feature],
        builder: &Builder,
    ) -> Result<Head, ModelError> {
        let (conv_seg, decode) = shared.build(inputs, builder)?;
        let (channels, module) = (shared.channels, shared.conv_module());
        let one = square(1, 0, 1);
        let last = shared.in_channels[2];
        let [first, second] = [0, 1].map(|it: usize| self.branch_channels[it]);
        let plain = |channels| Conv2d::new(channels, 1, one, builder);
        let joined =
            |branch| module.init_without_bias([channels + branch, channels], 1, one, builder);
        let gate =
            ConvModuleConfig { norm_cfg: None, act_cfg: Some(ActConfig::Sigmoid(NoKeys {})) };
        let (kernel, stride) = POOLED;
        Ok(LRASPPHead {
            conv_seg,
            convs: Branches {
                conv0: plain([shared.in_channels[0], first]),
                conv1: plain([shared.in_channels[1], second]),
            },
            conv_ups: Joined { conv_up0: joined(first), conv_up1: joined(second) },
            conv_up_input: plain([channels; 2]).with_bias(builder),
            aspp_conv: module.init_without_bias([last, channels], 1, one, builder),
            image_pool: (
                Window { kernel, stride },
                gate.init_without_bias([last, channels], 1, one, builder),
            ),
            decode,
        }
        .into())
    }
}

/// The last map, weighed and brought to the size of the others.
#[derive(Module, Debug)]
pub struct LRASPPHead {
    conv_seg: Conv2d,
    convs: Branches,
    conv_ups: Joined,
    conv_up_input: Conv2d,
    aspp_conv: ConvModule,
    image_pool: (Window, ConvModule),
    #[module(skip)]
    decode: Decode,
}

#[derive(Module, Debug)]
struct Branches {
    conv0: Conv2d,
    conv1: Conv2d,
}

#[derive(Module, Debug)]
struct Joined {
    conv_up0: ConvModule,
    conv_up1: ConvModule,
}

impl RunHead for LRASPPHead {
    fn forward(&self, seen: Seen, ctx: &Forward) -> Tensor<4> {
        let maps = self.decode.select_each(seen.features);
        let size = |x: &Tensor<4>| [x.dims()[2], x.dims()[3]];
        let last = &maps[2];
        let (window, gate) = &self.image_pool;
        let [height, width] = size(last);
        if height < window.kernel[0] || width < window.kernel[1] {
            let why = format!(
                "its mean is one over {}x{} pixels of the last map, as in mmseg: images have to \
                 be larger",
                window.kernel[0], window.kernel[1]
            );
            ops::refuse("LRASPPHead", &[last.dims().map(|it| it as i64).to_vec()], &why);
        }
        let weights = gate.forward(window.forward(last.clone()), ctx);
        let weights = self.decode.resize(weights, [height, width]);
        let x = self.conv_up_input.forward(self.aspp_conv.forward(last.clone(), ctx) * weights);
        let join = |x, map: &Tensor<4>, conv: &Conv2d, up: &ConvModule| {
            let x = self.decode.resize(x, size(map));
            up.forward(ops::concat(vec![x, conv.forward(map.clone())]), ctx)
        };
        let x = join(x, &maps[1], &self.convs.conv1, &self.conv_ups.conv_up1);
        let x = join(x, &maps[0], &self.convs.conv0, &self.conv_ups.conv_up0);
        self.decode.classify(&self.conv_seg, x, ctx)
    }

    fn decode(&self) -> &Decode {
        &self.decode
    }
}
