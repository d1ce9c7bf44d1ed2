//! What all heads share: which feature maps they see, the last layer, and the losses.

use burn::tensor::{Device, Int, Tensor};
use serde::Deserialize;

use crate::config::OneOrMany;
use crate::models::layer::{ActConfig, Conv2d, ConvModuleConfig, NormConfig, square};
use crate::models::loss::{Compared, CrossEntropyLossConfig, LossConfig, SamplerConfig};
use crate::models::{Forward, InitConfig, ModelError};
use crate::ops;

/// `in_index`: the feature maps that a head sees, counted from the first, or with negative numbers from the last.
pub type InIndex = OneOrMany<i64>;

/// `input_transform`: what becomes of several feature maps.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum InputTransform {
    /// Resize all to the first one's size and join their channels.
    ResizeConcat,
}

/// The keys that every head has, as its own config hands them over.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodeConfig {
    pub in_channels: OneOrMany<usize>,
    pub channels: usize,
    pub num_classes: usize,
    pub out_channels: Option<usize>,
    pub threshold: Option<f64>,
    pub dropout_ratio: f64,
    pub norm_cfg: Option<NormConfig>,
    pub act_cfg: Option<ActConfig>,
    pub in_index: InIndex,
    pub input_transform: Option<InputTransform>,
    pub loss_decode: OneOrMany<LossConfig>,
    pub ignore_index: i64,
    pub sampler: Option<SamplerConfig>,
    pub align_corners: bool,
    pub init_cfg: Option<OneOrMany<InitConfig>>,
}

/// Declares a head's config: mmseg's keys for every head, and the head's own after them.
macro_rules! head_config {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident : $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, serde::Deserialize, PartialEq)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// Channels of the feature map, or of each one in `in_index`.
            #[serde(deserialize_with = "crate::config::positive")]
            pub in_channels: $crate::config::OneOrMany<usize>,
            /// Channels before the classifier.
            #[serde(deserialize_with = "crate::config::positive")]
            pub channels: usize,
            #[serde(deserialize_with = "crate::config::positive")]
            pub num_classes: usize,
            /// `num_classes`, or 1 for two classes told apart by `threshold`.
            #[serde(default)]
            #[serde(deserialize_with = "crate::config::positive")]
            pub out_channels: Option<usize>,
            /// With one output channel, the probability above which a pixel is foreground; 0.3 if it is not given.
            #[serde(default)]
            #[serde(deserialize_with = "crate::config::share")]
            pub threshold: Option<f64>,
            /// The probability with which a channel is dropped before the classifier; 0 or less for none.
            #[serde(default = "crate::models::head::decode::default_dropout")]
            #[serde(deserialize_with = "crate::config::share_or_none")]
            pub dropout_ratio: f64,
            #[serde(default)]
            pub conv_cfg: Option<$crate::models::layer::ConvConfig>,
            #[serde(default)]
            pub norm_cfg: Option<$crate::models::layer::NormConfig>,
            #[serde(default = "crate::models::head::decode::default_act")]
            pub act_cfg: Option<$crate::models::layer::ActConfig>,
            #[serde(default = "crate::models::head::decode::default_in_index")]
            pub in_index: $crate::models::head::InIndex,
            #[serde(default)]
            pub input_transform: Option<$crate::models::head::InputTransform>,
            #[serde(default = "crate::models::head::decode::default_loss")]
            pub loss_decode: $crate::config::OneOrMany<$crate::models::loss::LossConfig>,
            /// The label that counts nothing.
            #[serde(default = "crate::models::head::decode::default_ignore_index")]
            pub ignore_index: i64,
            #[serde(default)]
            pub sampler: Option<$crate::models::loss::SamplerConfig>,
            /// Whether resizing keeps the corner pixels' centres at the corners.
            #[serde(default)]
            pub align_corners: bool,
            /// A classifier that is normal with a deviation of 0.01, unless given.
            #[serde(default)]
            pub init_cfg: Option<$crate::config::OneOrMany<$crate::models::InitConfig>>,
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl $name {
            /// What every head has.
            pub fn decode(&self) -> $crate::models::head::DecodeConfig {
                $crate::models::head::DecodeConfig {
                    in_channels: self.in_channels.clone(),
                    channels: self.channels,
                    num_classes: self.num_classes,
                    out_channels: self.out_channels,
                    threshold: self.threshold,
                    dropout_ratio: self.dropout_ratio.max(0.0),
                    norm_cfg: self.norm_cfg.clone(),
                    act_cfg: self.act_cfg.clone(),
                    in_index: self.in_index.clone(),
                    input_transform: self.input_transform,
                    loss_decode: self.loss_decode.clone(),
                    ignore_index: self.ignore_index,
                    sampler: self.sampler.clone(),
                    align_corners: self.align_corners,
                    init_cfg: self.init_cfg.clone(),
                }
            }
        }
    };
}
pub(super) use head_config;

pub(super) fn default_dropout() -> f64 {
    0.1
}
#[expect(clippy::unnecessary_wraps, reason = "the default of an optional key")]
pub(super) fn default_act() -> Option<ActConfig> {
    Some(ActConfig::default())
}
pub(super) fn default_in_index() -> InIndex {
    OneOrMany(vec![-1])
}
pub(super) fn default_loss() -> OneOrMany<LossConfig> {
    OneOrMany(vec![LossConfig::CrossEntropyLoss(CrossEntropyLossConfig::default())])
}
pub(super) fn default_ignore_index() -> i64 {
    255
}

impl DecodeConfig {
    /// Whether its settings go together. Errors name keys below the head.
    pub fn verify(&self) -> Result<(), ModelError> {
        self.check(self.out_channels.unwrap_or(self.num_classes))
    }

    fn check(&self, out_channels: usize) -> Result<(), ModelError> {
        if self.channels == 0 || self.num_classes == 0 {
            let key = if self.channels == 0 { "channels" } else { "num_classes" };
            return Err(ModelError::config(key, "expected at least 1, got 0"));
        }
        if out_channels > 256 {
            let problem = format!("label maps are bytes, so expected at most 256, got {out_channels}");
            return Err(ModelError::config("num_classes", problem));
        }
        if out_channels != self.num_classes && !(out_channels == 1 && self.num_classes == 2) {
            let problem = format!(
                "expected num_classes ({}), or 1 to tell two classes apart by a threshold, got {out_channels}",
                self.num_classes
            );
            return Err(ModelError::config("out_channels", problem));
        }
        if !(0.0..1.0).contains(&self.dropout_ratio) {
            let problem = format!("expected a probability from 0 to below 1, got {}", self.dropout_ratio);
            return Err(ModelError::config("dropout_ratio", problem));
        }
        if self.threshold.is_some_and(|it| it <= 0.0 || it >= 1.0) {
            return Err(ModelError::config("threshold", "expected a probability between 0 and 1"));
        }
        if self.loss_decode.is_empty() {
            return Err(ModelError::config("loss_decode", "expected at least one loss, got none"));
        }
        for (index, loss) in self.loss_decode.iter().enumerate() {
            let key = if self.loss_decode.len() == 1 { "loss_decode".to_owned() } else { format!("loss_decode.{index}") };
            loss.check(out_channels, self.sampler.is_some()).map_err(|it| it.within(&key))?;
        }
        if let Some(SamplerConfig::OHEMPixelSampler(sampler)) = &self.sampler {
            sampler.check().map_err(|it| it.within("sampler"))?;
            if sampler.thresh.is_some() && out_channels == 1 {
                let problem = "needs the probability of each class, which one output channel does not give; leave it out";
                return Err(ModelError::config("sampler.thresh", problem));
            }
        }
        if self.init_cfg.iter().flat_map(|it| it.iter()).any(|it| matches!(it, InitConfig::Pretrained(_))) {
            return Err(ModelError::config("init_cfg", "weights for one head alone are not read; use load_from"));
        }
        Ok(())
    }

    /// Positions of the feature maps that the head sees, after comparing channels.
    fn inputs(&self, channels: &[usize]) -> Result<Vec<usize>, ModelError> {
        let count = channels.len();
        if self.input_transform.is_none() && (self.in_index.len() != 1 || self.in_channels.len() != 1) {
            return Err(ModelError::config("in_index", "several feature maps need `input_transform: resize_concat`"));
        }
        if self.in_index.is_empty() || self.in_index.len() != self.in_channels.len() {
            let problem = format!("{} feature maps, but in_channels has {} numbers", self.in_index.len(), self.in_channels.len());
            return Err(ModelError::config("in_index", problem));
        }
        let find = |(&index, &expected): (&i64, &usize)| {
            let position = if index < 0 { index + count as i64 } else { index };
            let Some((position, &found)) = usize::try_from(position).ok().and_then(|it| Some((it, channels.get(it)?))) else {
                let problem = format!("there is no feature map {index}: the backbone gives {count} (out_indices)");
                return Err(ModelError::config("in_index", problem));
            };
            if found != expected {
                let problem = format!("expects {expected} channels, but feature map {index} of the backbone has {found}");
                return Err(ModelError::config("in_channels", problem));
            }
            Ok(position)
        };
        self.in_index.iter().zip(self.in_channels.iter()).map(find).collect()
    }

    /// Channels after `input_transform`.
    pub(super) fn input_channels(&self) -> usize {
        self.in_channels.iter().sum()
    }

    pub(super) fn conv_module(&self) -> ConvModuleConfig {
        ConvModuleConfig { norm_cfg: self.norm_cfg.clone(), act_cfg: self.act_cfg.clone() }
    }

    /// The last layer, and the rest of what heads share.
    pub(super) fn init(self, channels: &[usize], index: u64, device: &Device) -> Result<(Conv2d, Decode), ModelError> {
        let out_channels = self.out_channels.unwrap_or(self.num_classes);
        self.check(out_channels)?;
        let inputs = self.inputs(channels)?;
        let conv_seg = Conv2d::new([self.channels, out_channels], 1, square(1, 0, 1), device).with_bias(device);
        let threshold = self.threshold.unwrap_or(0.3);
        Ok((conv_seg, Decode { config: self, inputs, out_channels, threshold, index }))
    }
}

/// What all heads share, at work.
#[derive(Debug, Clone)]
pub struct Decode {
    config: DecodeConfig,
    /// Positions of the feature maps.
    inputs: Vec<usize>,
    out_channels: usize,
    threshold: f64,
    /// Which of the model's heads this is.
    index: u64,
}

impl Decode {
    pub fn out_channels(&self) -> usize {
        self.out_channels
    }

    /// How many labels the losses know.
    pub fn num_classes(&self) -> usize {
        self.config.num_classes
    }

    /// With one output channel, the probability above which a pixel is foreground.
    pub fn threshold(&self) -> f64 {
        self.threshold
    }

    pub fn align_corners(&self) -> bool {
        self.config.align_corners
    }

    pub fn ignore_index(&self) -> i64 {
        self.config.ignore_index
    }

    pub(super) fn resize(&self, x: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
        ops::resize_bilinear(x, size, self.config.align_corners)
    }

    /// The feature map, or maps as one, that the head sees.
    pub(super) fn select(&self, features: &[Tensor<4>]) -> Tensor<4> {
        let first = features[self.inputs[0]].clone();
        if self.inputs.len() == 1 {
            return first;
        }
        let [.., height, width] = first.dims();
        let resized = self.inputs.iter().map(|&it| self.resize(features[it].clone(), [height, width])).collect();
        ops::concat(resized)
    }

    /// Dropout and the last layer.
    pub(super) fn classify(&self, conv_seg: &Conv2d, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let ratio = self.config.dropout_ratio;
        let x = if ctx.training && ratio > 0.0 { ops::dropout2d(x, ratio, ctx.layer_seed(self.index)) } else { x };
        conv_seg.forward(x)
    }

    /// Losses and accuracy of logits at any size against labels `[n, h, w]`; losses of one name are summed.
    pub(super) fn losses(&self, logits: Tensor<4>, labels: &Tensor<3, Int>) -> Vec<(String, Tensor<1>)> {
        let align_corners = self.config.align_corners;
        if let (None, [LossConfig::CrossEntropyLoss(loss)]) = (&self.config.sampler, &self.config.loss_decode[..])
            && !loss.use_sigmoid
        {
            let (value, accuracy) = loss.resized(logits, labels, self.config.ignore_index, align_corners);
            return vec![(loss.loss_name.clone(), value), ("acc_seg".to_owned(), accuracy)];
        }
        let [_, height, width] = labels.dims();
        let logits = self.resize(logits, [height, width]);
        let compared = Compared { logits: &logits, labels, ignore_index: self.config.ignore_index };
        let losses = &self.config.loss_decode;
        let pixel_weight = self.config.sampler.as_ref().map(|SamplerConfig::OHEMPixelSampler(it)| it.sample(compared, losses));
        let mut items: Vec<(String, Tensor<1>)> = Vec::new();
        for loss in losses.iter() {
            let value = loss.forward(compared, pixel_weight.as_ref());
            match items.iter_mut().find(|(name, _)| name == loss.loss_name()) {
                Some((_, sum)) => *sum = sum.clone() + value,
                None => items.push((loss.loss_name().to_owned(), value)),
            }
        }
        items.push(("acc_seg".to_owned(), self.accuracy(&logits, labels)));
        items
    }

    /// In percent of the pixels that count. With one output channel a pixel is right where the threshold puts it on the
    /// side of its label (mmseg compares with 0 alone).
    fn accuracy(&self, logits: &Tensor<4>, labels: &Tensor<3, Int>) -> Tensor<1> {
        let ignore_index = Some(self.config.ignore_index);
        if self.out_channels > 1 {
            return ops::accuracy(logits, labels, ignore_index);
        }
        let foreground = ops::to_tch(logits);
        let limit = (self.threshold / (1.0 - self.threshold)).ln();
        let pair = tch::Tensor::cat(&[foreground.full_like(limit), foreground], 1);
        ops::accuracy(&ops::from_tch(pair, &logits.device()), labels, ignore_index)
    }
}
