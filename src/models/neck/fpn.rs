//! The feature pyramid (Lin et al. 2017).

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

use crate::config::{OneOrMany, default};
use crate::models::contract::{Feature, Initial, NeckSpec, RunNeck};
use crate::models::layer::{
    ActConfig, ConvConfig, ConvModule, ConvModuleConfig, NormConfig, square,
};
use crate::models::{Builder, Forward, InitConfig, ModelError};
use crate::ops;

/// The keys of `type: FPN`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct FPNConfig {
    /// Channels of each feature map of the backbone.
    #[serde(deserialize_with = "crate::config::positive")]
    pub in_channels: Vec<usize>,
    /// Channels of each level of the pyramid.
    #[serde(deserialize_with = "crate::config::positive")]
    pub out_channels: usize,
    /// How many levels come out: those above the backbone's are halved from its last.
    #[serde(deserialize_with = "crate::config::positive")]
    pub num_outs: usize,
    /// The first of the backbone's maps that the pyramid begins with.
    #[serde(default)]
    pub start_level: usize,
    /// The one that it ends before; -1 for none.
    #[serde(default = "default::i::<-1>")]
    pub end_level: i64,
    /// What further levels are convolved from: false for halving the last, true for `on_input`.
    #[serde(default)]
    pub add_extra_convs: ExtraConvs,
    /// Whether a further level has a ReLU before its convolution.
    #[serde(default)]
    pub relu_before_extra_convs: bool,
    /// Whether the lateral convolutions have no norm.
    #[serde(default)]
    pub no_norm_on_lateral: bool,
    #[serde(default)]
    pub conv_cfg: Option<ConvConfig>,
    #[serde(default)]
    pub norm_cfg: Option<NormConfig>,
    #[serde(default)]
    pub act_cfg: Option<ActConfig>,
    /// How a level is enlarged for the next.
    #[serde(default)]
    pub upsample_cfg: UpsampleConfig,
    #[serde(default)]
    pub init_cfg: Option<OneOrMany<InitConfig>>,
}

/// `add_extra_convs`. There is one kind of further level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExtraConvs;

impl<'de> Deserialize<'de> for ExtraConvs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if bool::deserialize(deserializer)? {
            return Err(serde::de::Error::custom(
                "further levels are halved from the last here; expected false",
            ));
        }
        Ok(Self)
    }
}

/// `upsample_cfg`.
#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct UpsampleConfig {
    pub mode: UpsampleMode,
}

/// How a map is enlarged.
#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum UpsampleMode {
    #[default]
    Nearest,
    Bilinear,
}

impl FPNConfig {
    /// The maps of the backbone that the pyramid uses.
    fn used(&self) -> Result<std::ops::Range<usize>, ModelError> {
        let count = self.in_channels.len();
        let end =
            if self.end_level == -1 { Some(count) } else { usize::try_from(self.end_level).ok() };
        let Some(end) = end.filter(|&it| it <= count && it > self.start_level) else {
            let problem = format!(
                "expected -1, or a level after start_level ({}) and up to {count}",
                self.start_level
            );
            return Err(ModelError::config("end_level", problem));
        };
        let used = end - self.start_level;
        if self.num_outs < used || self.end_level != -1 && self.num_outs != used {
            let problem = format!("{used} levels are used, and {} come out", self.num_outs);
            return Err(ModelError::config("num_outs", problem));
        }
        Ok(self.start_level..end)
    }
}

impl NeckSpec for FPNConfig {
    fn check(&self, inputs: &[Feature]) -> Result<Vec<Feature>, ModelError> {
        let found: Vec<usize> = inputs.iter().map(|it| it.channels).collect();
        if found != self.in_channels {
            let problem = format!(
                "is {:?}, but the backbone's maps have {found:?} channels",
                self.in_channels
            );
            return Err(ModelError::config("in_channels", problem));
        }
        if let Some(norm) = &self.norm_cfg {
            norm.check(self.out_channels)?;
        }
        let mut outputs: Vec<Feature> = inputs[self.used()?]
            .iter()
            .map(|it| Feature { channels: self.out_channels, ..*it })
            .collect();
        while let Some(last) = outputs.last().copied().filter(|_| outputs.len() < self.num_outs) {
            outputs.push(Feature { stride: last.stride * 2, ..last });
        }
        Ok(outputs)
    }

    fn build(&self, _: &[Feature], builder: &Builder) -> Result<super::Neck, ModelError> {
        let used = self.used()?;
        let act_cfg = self.act_cfg.clone();
        let plain = ConvModuleConfig { norm_cfg: self.norm_cfg.clone(), act_cfg: act_cfg.clone() };
        let lateral = ConvModuleConfig {
            norm_cfg: self.norm_cfg.clone().filter(|_| !self.no_norm_on_lateral),
            act_cfg,
        };
        let of = |config: &ConvModuleConfig, input, kernel: usize| {
            config.init([input, self.out_channels], kernel, square(1, kernel / 2, 1), builder)
        };
        let lateral_convs =
            self.in_channels[used.clone()].iter().map(|&input| of(&lateral, input, 1)).collect();
        let fpn_convs = used.clone().map(|_| of(&plain, self.out_channels, 3)).collect();
        let (start, further, mode) =
            (used.start, self.num_outs - used.len(), self.upsample_cfg.mode);
        Ok(FPN { lateral_convs, fpn_convs, start, further, mode }.into())
    }

    /// Glorot and Bengio 2010, uniform: mmseg's default.
    fn initial(&self) -> Initial {
        Initial { rules: vec![InitConfig::xavier_uniform()], zeros: None }
    }

    fn init_cfg(&self) -> Option<&[InitConfig]> {
        self.init_cfg.as_deref()
    }
}

/// Each level is the backbone's map and the enlarged level above it, convolved.
#[derive(Module, Debug)]
pub struct FPN {
    lateral_convs: Vec<ConvModule>,
    fpn_convs: Vec<ConvModule>,
    start: usize,
    /// Levels that are halved from the last.
    further: usize,
    #[module(skip)]
    mode: UpsampleMode,
}

impl RunNeck for FPN {
    fn forward(&self, features: Vec<Tensor<4>>, ctx: &Forward) -> Vec<Tensor<4>> {
        let used = features.into_iter().skip(self.start);
        let mut levels: Vec<Tensor<4>> =
            self.lateral_convs.iter().zip(used).map(|(conv, x)| conv.forward(x, ctx)).collect();
        for level in (1..levels.len()).rev() {
            let [.., height, width] = levels[level - 1].dims();
            let above = levels[level].clone();
            let enlarged = match self.mode {
                UpsampleMode::Nearest => ops::resize_nearest(above, [height, width]),
                UpsampleMode::Bilinear => ops::resize_bilinear(above, [height, width], false),
            };
            levels[level - 1] = levels[level - 1].clone() + enlarged;
        }
        let mut outputs: Vec<Tensor<4>> =
            self.fpn_convs.iter().zip(levels).map(|(conv, x)| conv.forward(x, ctx)).collect();
        for _ in 0..self.further {
            let last = outputs[outputs.len() - 1].clone();
            outputs.push(ops::max_pool2d(last, [1, 1], [2, 2], [0, 0]));
        }
        outputs
    }
}
