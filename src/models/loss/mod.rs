//! Losses of a head's logits, and the sampler that picks the pixels that count.

mod class_weight;
mod cross_entropy;
mod dice;
mod ohem;

use burn::tensor::{Int, Tensor};
use serde::Deserialize;

pub use cross_entropy::CrossEntropyLossConfig;
pub use dice::DiceLossConfig;
pub use ohem::OHEMPixelSamplerConfig;

use super::ModelError;

/// `loss_decode`, or one of its list.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub enum LossConfig {
    CrossEntropyLoss(CrossEntropyLossConfig),
    DiceLoss(DiceLossConfig),
}

/// `sampler`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub enum SamplerConfig {
    OHEMPixelSampler(OHEMPixelSamplerConfig),
}

/// How the losses of elements become one number.
#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LossReduction {
    #[default]
    Mean,
    Sum,
}

/// What a loss compares.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Compared<'a> {
    /// `[n, c, h, w]`
    pub(crate) logits: &'a Tensor<4>,
    /// `[n, h, w]`
    pub(crate) labels: &'a Tensor<3, Int>,
    pub(crate) ignore_index: i64,
}

impl LossConfig {
    /// The name under which the loss is logged.
    pub fn loss_name(&self) -> &str {
        match self {
            Self::CrossEntropyLoss(it) => &it.loss_name,
            Self::DiceLoss(it) => &it.loss_name,
        }
    }

    /// Errors name keys below the loss.
    pub(crate) fn check(&self, out_channels: usize, sampled: bool) -> Result<(), ModelError> {
        if !self.loss_name().contains("loss") {
            let problem = format!("`{}` would be logged but not trained on; name it `loss_…`", self.loss_name());
            return Err(ModelError::config("loss_name", problem));
        }
        match self {
            Self::CrossEntropyLoss(it) => it.check(out_channels),
            Self::DiceLoss(_) if sampled => {
                Err(ModelError::config("", "DiceLoss is a ratio over whole images and cannot be combined with a sampler"))
            }
            Self::DiceLoss(it) => it.check(out_channels),
        }
    }

    /// One number `[1]`; `pixel_weight` `[n, h, w]` is a sampler's choice.
    pub(crate) fn forward(&self, compared: Compared, pixel_weight: Option<&Tensor<3>>) -> Tensor<1> {
        match self {
            Self::CrossEntropyLoss(it) => it.forward(compared, pixel_weight),
            Self::DiceLoss(it) => it.forward(compared),
        }
    }
}
