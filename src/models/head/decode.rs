//! What all heads share: which feature maps they see, the last layer, and the losses.

use burn::tensor::{Int, Tensor};
use serde::Deserialize;

use crate::config::{OneOrMany, default};
use crate::models::contract::Feature;
use crate::models::forward::Scalars;
use crate::models::layer::{ActConfig, Conv2d, ConvConfig, ConvModuleConfig, NormConfig, square};
use crate::models::loss::{Compared, CrossEntropyLossConfig, LossConfig};
use crate::models::sampler::SamplerConfig;
use crate::models::{Builder, Forward, InitConfig, ModelError};
use crate::ops;

/// `in_index`: the feature maps that a head sees, counted from the first, or with negative numbers
/// from the last.
pub type InIndex = OneOrMany<i64>;

/// `input_transform`: what becomes of several feature maps.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum InputTransform {
    /// Resize all to the first one's size and join their channels.
    ResizeConcat,
    /// The head takes them as they are.
    MultipleSelect,
}

/// The keys that every head has.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct DecodeConfig {
    /// Channels of the feature map, or of each one in `in_index`.
    #[serde(deserialize_with = "crate::config::positive")]
    pub in_channels: OneOrMany<usize>,
    /// Channels before the classifier.
    #[serde(deserialize_with = "crate::config::positive")]
    pub channels: usize,
    #[serde(deserialize_with = "crate::config::positive")]
    pub num_classes: usize,
    /// `num_classes`, or 1 for two classes told apart by `threshold`.
    #[serde(default)]
    #[serde(deserialize_with = "crate::config::positive")]
    pub out_channels: Option<usize>,
    /// With one output channel, the probability above which a pixel is foreground; 0.3 if it is not
    /// given.
    #[serde(default)]
    #[serde(deserialize_with = "crate::config::share")]
    pub threshold: Option<f64>,
    /// The probability with which a channel is dropped before the classifier; 0 or less for none.
    #[serde(default = "default::ratio::<1, 10>")]
    #[serde(deserialize_with = "crate::config::share_or_none")]
    pub dropout_ratio: f64,
    #[serde(default)]
    pub conv_cfg: Option<ConvConfig>,
    #[serde(default)]
    pub norm_cfg: Option<NormConfig>,
    #[serde(default = "default_act")]
    pub act_cfg: Option<ActConfig>,
    #[serde(default = "default_in_index")]
    pub in_index: InIndex,
    #[serde(default)]
    pub input_transform: Option<InputTransform>,
    #[serde(default = "default_loss")]
    pub loss_decode: OneOrMany<LossConfig>,
    /// The label that counts nothing.
    #[serde(default = "default::i::<255>")]
    pub ignore_index: i64,
    #[serde(default)]
    pub sampler: Option<SamplerConfig>,
    /// Whether resizing keeps the corner pixels' centres at the corners.
    #[serde(default)]
    pub align_corners: bool,
    /// A classifier that is normal with a deviation of 0.01, unless given.
    #[serde(default)]
    pub init_cfg: Option<OneOrMany<InitConfig>>,
}

#[expect(clippy::unnecessary_wraps, reason = "the default of an optional key")]
fn default_act() -> Option<ActConfig> {
    Some(ActConfig::default())
}
fn default_in_index() -> InIndex {
    OneOrMany(vec![-1])
}
fn default_loss() -> OneOrMany<LossConfig> {
    OneOrMany(vec![LossConfig::CrossEntropyLoss(CrossEntropyLossConfig::default())])
}

impl DecodeConfig {
    /// Channels of the logits.
    pub fn outputs(&self) -> usize {
        self.out_channels.unwrap_or(self.num_classes)
    }

    /// Whether its settings go together. Errors name keys below the head.
    pub fn verify(&self) -> Result<(), ModelError> {
        let out_channels = self.outputs();
        if self.channels == 0 || self.num_classes == 0 {
            let key = if self.channels == 0 { "channels" } else { "num_classes" };
            return Err(ModelError::config(key, "expected at least 1, got 0"));
        }
        if out_channels > 256 {
            let problem =
                format!("label maps are bytes, so expected at most 256, got {out_channels}");
            return Err(ModelError::config("num_classes", problem));
        }
        if out_channels != self.num_classes && !(out_channels == 1 && self.num_classes == 2) {
            let problem = format!(
                "expected num_classes ({}), or 1 to tell two classes apart by a threshold, got \
                 {out_channels}",
                self.num_classes
            );
            return Err(ModelError::config("out_channels", problem));
        }
        if self.dropout_ratio >= 1.0 {
            let problem =
                format!("expected a probability from 0 to below 1, got {}", self.dropout_ratio);
            return Err(ModelError::config("dropout_ratio", problem));
        }
        if self.threshold.is_some_and(|it| it <= 0.0 || it >= 1.0) {
            return Err(ModelError::config("threshold", "expected a probability between 0 and 1"));
        }
        if self.loss_decode.is_empty() {
            return Err(ModelError::config("loss_decode", "expected at least one loss, got none"));
        }
        for (index, loss) in self.loss_decode.iter().enumerate() {
            let key = if self.loss_decode.len() == 1 {
                "loss_decode".to_owned()
            } else {
                format!("loss_decode.{index}")
            };
            loss.check(out_channels, self.sampler.is_some()).map_err(|it| it.within(&key))?;
        }
        if let Some(sampler) = &self.sampler {
            sampler.check(out_channels).map_err(|it| it.within("sampler"))?;
        }
        if let Some(norm) = &self.norm_cfg {
            norm.check(self.channels)?;
        }
        if self
            .init_cfg
            .iter()
            .flat_map(|it| it.iter())
            .any(|it| matches!(it, InitConfig::Pretrained(_)))
        {
            return Err(ModelError::config(
                "init_cfg",
                "weights for one head alone are not read; use load_from",
            ));
        }
        Ok(())
    }

    /// Which of the feature maps the head sees, after comparing channels.
    pub(crate) fn select(
        &self,
        inputs: &[Feature],
        transform: Option<InputTransform>,
    ) -> Result<Vec<usize>, ModelError> {
        let count = inputs.len();
        if transform.is_none() && (self.in_index.len() != 1 || self.in_channels.len() != 1) {
            let problem = "several feature maps need `input_transform: resize_concat`, or \
                           `multiple_select` for heads that take them";
            return Err(ModelError::config("in_index", problem));
        }
        if self.in_index.is_empty() || self.in_index.len() != self.in_channels.len() {
            let problem = format!(
                "{} feature maps, but in_channels has {} numbers",
                self.in_index.len(),
                self.in_channels.len()
            );
            return Err(ModelError::config("in_index", problem));
        }
        let find = |(&index, &expected): (&i64, &usize)| {
            let position = if index < 0 { index + count as i64 } else { index };
            let Some((position, found)) =
                usize::try_from(position).ok().and_then(|it| Some((it, inputs.get(it)?.channels)))
            else {
                let problem = format!(
                    "there is no feature map {index}: the backbone gives {count} (out_indices)"
                );
                return Err(ModelError::config("in_index", problem));
            };
            if found != expected {
                let problem = format!(
                    "expects {expected} channels, but feature map {index} of the backbone has \
                     {found}"
                );
                return Err(ModelError::config("in_channels", problem));
            }
            Ok(position)
        };
        self.in_index.iter().zip(self.in_channels.iter()).map(find).collect()
    }

    /// An error for a head that sees one feature map, if the settings say that there are several of
    /// their own sizes.
    pub fn one_map(&self) -> Result<(), ModelError> {
        match self.input_transform {
            Some(InputTransform::MultipleSelect) => {
                let problem = "this head sees one feature map; expected resize_concat, or nothing \
                               for one map";
                Err(ModelError::config("input_transform", problem))
            }
            _ => Ok(()),
        }
    }

    /// An error for a head that sees several feature maps, if the settings say otherwise.
    pub fn maps_as_they_are(&self) -> Result<(), ModelError> {
        if self.input_transform.is_some_and(|it| it != InputTransform::MultipleSelect) {
            let problem = "this head takes its maps as they are; leave it out";
            return Err(ModelError::config("input_transform", problem));
        }
        Ok(())
    }

    /// Channels after `input_transform: resize_concat`.
    pub fn input_channels(&self) -> usize {
        self.in_channels.iter().sum()
    }

    pub fn conv_module(&self) -> ConvModuleConfig {
        ConvModuleConfig { norm_cfg: self.norm_cfg.clone(), act_cfg: self.act_cfg.clone() }
    }

    /// The last layer, and the rest of what heads share.
    pub fn build(
        &self,
        inputs: &[Feature],
        builder: &Builder,
    ) -> Result<(Conv2d, Decode), ModelError> {
        self.build_with(self.input_transform, inputs, builder)
    }

    /// The same for a head that has a transform of its own.
    pub fn build_with(
        &self,
        transform: Option<InputTransform>,
        inputs: &[Feature],
        builder: &Builder,
    ) -> Result<(Conv2d, Decode), ModelError> {
        let conv_seg = Conv2d::new([self.channels, self.outputs()], 1, square(1, 0, 1), builder)
            .with_bias(builder);
        Ok((conv_seg, Decode { config: self.clone(), inputs: self.select(inputs, transform)? }))
    }
}

/// What all heads share, at work.
#[derive(Debug, Clone)]
pub struct Decode {
    config: DecodeConfig,
    /// Positions of the feature maps.
    inputs: Vec<usize>,
}

impl Decode {
    pub fn out_channels(&self) -> usize {
        self.config.outputs()
    }

    /// How many labels the losses know.
    pub fn num_classes(&self) -> usize {
        self.config.num_classes
    }

    /// With one output channel, the probability above which a pixel is foreground.
    pub fn threshold(&self) -> f64 {
        self.config.threshold.unwrap_or(0.3)
    }

    pub fn align_corners(&self) -> bool {
        self.config.align_corners
    }

    pub fn ignore_index(&self) -> i64 {
        self.config.ignore_index
    }

    /// `x` at `size` (height, width), bilinearly.
    pub fn resize(&self, x: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
        ops::resize_bilinear(x, size, self.config.align_corners)
    }

    /// The feature maps that the head sees, each of its own size.
    pub fn select_each(&self, features: &[Tensor<4>]) -> Vec<Tensor<4>> {
        self.inputs.iter().map(|&it| features[it].clone()).collect()
    }

    /// The feature map, or maps as one, that the head sees.
    pub fn select(&self, features: &[Tensor<4>]) -> Tensor<4> {
        let first = features[self.inputs[0]].clone();
        if self.inputs.len() == 1 {
            return first;
        }
        let [.., height, width] = first.dims();
        let resized = self
            .inputs
            .iter()
            .map(|&it| self.resize(features[it].clone(), [height, width]))
            .collect();
        ops::concat(resized)
    }

    /// Dropout and the last layer.
    pub fn classify(&self, conv_seg: &Conv2d, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let ratio = self.config.dropout_ratio;
        conv_seg.forward(if ctx.training && ratio > 0.0 {
            ops::dropout2d(x, ratio, ctx.next_seed())
        } else {
            x
        })
    }

    /// Losses and accuracy of logits at any size against labels `[n, h, w]`; losses of one name are
    /// summed.
    pub fn losses(&self, logits: Tensor<4>, labels: &Tensor<3, Int>) -> Scalars {
        let DecodeConfig { loss_decode, sampler, ignore_index, align_corners, .. } = &self.config;
        let mut scalars = Scalars::default();
        if let (None, [loss]) = (sampler, &loss_decode[..])
            && let Some((value, accuracy)) =
                loss.resized(&logits, labels, *ignore_index, *align_corners)
        {
            scalars.loss(loss.loss_name(), value);
            scalars.look("acc_seg", accuracy);
            return scalars;
        }
        let [_, height, width] = labels.dims();
        let logits = self.resize(logits, [height, width]);
        let compared = Compared { logits: &logits, labels, ignore_index: *ignore_index };
        let pixel_weight = sampler.as_ref().map(|it| it.sample(compared, loss_decode));
        for loss in loss_decode.iter() {
            scalars.loss(loss.loss_name(), loss.forward(compared, pixel_weight.as_ref()));
        }
        scalars.look("acc_seg", self.accuracy(&logits, labels));
        scalars
    }

    /// Logits at the size of `labels` `[n, h, w]`.
    pub fn at_labels(&self, logits: Tensor<4>, labels: &Tensor<3, Int>) -> Tensor<4> {
        let [_, height, width] = labels.dims();
        self.resize(logits, [height, width])
    }

    /// The loss at `place` in `loss_decode`, of logits at the labels' size.
    pub fn loss_at(&self, place: usize, logits: &Tensor<4>, labels: &Tensor<3, Int>) -> Tensor<1> {
        let ignore_index = self.config.ignore_index;
        self.config.loss_decode[place].forward(Compared { logits, labels, ignore_index }, None)
    }

    /// In percent of the pixels that count. With one output channel a pixel is right where the
    /// threshold puts it on the side of its label (mmseg compares with 0 alone).
    pub fn accuracy(&self, logits: &Tensor<4>, labels: &Tensor<3, Int>) -> Tensor<1> {
        let ignore_index = Some(self.config.ignore_index);
        if self.out_channels() > 1 {
            return ops::accuracy(logits, labels, ignore_index);
        }
        let foreground = logits.clone().without_autodiff();
        let limit = (self.threshold() / (1.0 - self.threshold())).ln();
        let pair = Tensor::cat(
            vec![Tensor::full(foreground.shape(), limit, &foreground.device()), foreground],
            1,
        );
        ops::accuracy(&pair, labels, ignore_index)
    }
}
