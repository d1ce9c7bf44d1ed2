//! Joint pyramid upsampling, the neck of FastFCN (Wu et al. 2019): the last maps of the backbone
//! become one of the first one's size, by convolutions of several dilations.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

use crate::config::{OneOrMany, default};
use crate::models::contract::{Feature, NeckSpec, RunNeck};
use crate::models::layer::{
    ActConfig, ConvConfig, ConvModule, ConvModuleConfig, NormConfig, SeparableConvModule, square,
};
use crate::models::{Builder, Forward, InitConfig, ModelError};
use crate::ops;

/// The keys of `type: JPU`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct JPUConfig {
    /// Channels of each feature map of the backbone.
    #[serde(default = "default_in_channels")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub in_channels: Vec<usize>,
    /// Channels that each map, and each dilation, is brought to.
    #[serde(default = "default::n::<512>")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub mid_channels: usize,
    /// The first of the backbone's maps that are joined.
    #[serde(default)]
    pub start_level: usize,
    /// The one that they end before; -1 for none.
    #[serde(default = "default::i::<-1>")]
    pub end_level: i64,
    #[serde(default = "default_dilations")]
    #[serde(deserialize_with = "crate::config::positive")]
    pub dilations: Vec<usize>,
    /// Whether resizing keeps the corner pixels' centres at the corners.
    #[serde(default)]
    pub align_corners: bool,
    #[serde(default)]
    pub conv_cfg: Option<ConvConfig>,
    #[serde(default = "NormConfig::batch")]
    pub norm_cfg: NormConfig,
    #[serde(default)]
    pub act_cfg: ActConfig,
    #[serde(default)]
    pub init_cfg: Option<OneOrMany<InitConfig>>,
}

fn default_in_channels() -> Vec<usize> {
    vec![512, 1024, 2048]
}
fn default_dilations() -> Vec<usize> {
    vec![1, 2, 4, 8]
}

impl JPUConfig {
    /// The maps that are joined.
    fn used(&self) -> Result<std::ops::Range<usize>, ModelError> {
        let count = self.in_channels.len();
        let end =
            if self.end_level == -1 { Some(count) } else { usize::try_from(self.end_level).ok() };
        match end.filter(|&it| it <= count && it > self.start_level) {
            Some(end) => Ok(self.start_level..end),
            None => {
                let problem = format!(
                    "expected -1, or a level after start_level ({}) and up to {count}",
                    self.start_level
                );
                Err(ModelError::config("end_level", problem))
            }
        }
    }
}

impl NeckSpec for JPUConfig {
    fn check(&self, inputs: &[Feature]) -> Result<Vec<Feature>, ModelError> {
        let found: Vec<usize> = inputs.iter().map(|it| it.channels).collect();
        if found != self.in_channels {
            let problem = format!(
                "is {:?}, but the backbone's maps have {found:?} channels",
                self.in_channels
            );
            return Err(ModelError::config("in_channels", problem));
        }
        if self.dilations.is_empty() {
            return Err(ModelError::config("dilations", "expected at least one, got none"));
        }
        self.norm_cfg.check(self.mid_channels)?;
        let used = self.used()?;
        let joined = Feature {
            channels: self.dilations.len() * self.mid_channels,
            stride: inputs[used.start].stride,
        };
        Ok(inputs[used.start..used.end - 1].iter().copied().chain([joined]).collect())
    }

    fn build(&self, _: &[Feature], builder: &Builder) -> Result<super::Neck, ModelError> {
        let used = self.used()?;
        let with = |act_cfg| ConvModuleConfig { norm_cfg: Some(self.norm_cfg.clone()), act_cfg };
        let (plain, depthwise) = (with(Some(self.act_cfg.clone())), with(None));
        let conv =
            |&input: &usize| [plain.init([input, self.mid_channels], 3, square(1, 1, 1), builder)];
        let channels = [used.len() * self.mid_channels, self.mid_channels];
        let dilated = |&dilation: &usize| {
            let conv = square(1, dilation, dilation);
            [plain.separable_with(&depthwise, channels, 3, conv, builder)]
        };
        Ok(JPU {
            conv_layers: self.in_channels[used.clone()].iter().map(conv).collect(),
            dilation_layers: self.dilations.iter().map(dilated).collect(),
            used: [used.start, used.end],
            align_corners: self.align_corners,
        }
        .into())
    }

    fn init_cfg(&self) -> Option<&[InitConfig]> {
        self.init_cfg.as_deref()
    }
}

/// The joined maps, in place of the last.
#[derive(Module, Debug)]
pub struct JPU {
    conv_layers: Vec<[ConvModule; 1]>,
    dilation_layers: Vec<[SeparableConvModule; 1]>,
    /// The first of the maps that are joined, and the one after the last.
    #[module(skip)]
    used: [usize; 2],
    align_corners: bool,
}

impl RunNeck for JPU {
    fn forward(&self, features: Vec<Tensor<4>>, ctx: &Forward) -> Vec<Tensor<4>> {
        let [start, end] = self.used;
        let [.., height, width] = features[start].dims();
        let convolved = self.conv_layers.iter().zip(&features[start..end]);
        let joined = convolved
            .map(|([conv], map)| {
                let x = conv.forward(map.clone(), ctx);
                ops::resize_bilinear(x, [height, width], self.align_corners)
            })
            .collect();
        let joined = ops::concat(joined);
        let dilated = self.dilation_layers.iter().map(|[it]| it.forward(joined.clone(), ctx));
        let last = ops::concat(dilated.collect());
        features.into_iter().take(end - 1).skip(start).chain([last]).collect()
    }
}
