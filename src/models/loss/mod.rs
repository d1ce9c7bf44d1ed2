//! Losses of a head's logits.

mod class_weight;
mod cross_entropy;
mod dice;
mod ohem;

use std::fmt::Debug;

use burn::tensor::{Int, Tensor};
use serde::Deserialize;

pub use cross_entropy::CrossEntropyLossConfig;
pub use dice::DiceLossConfig;
pub use ohem::OhemCrossEntropyConfig;

use super::ModelError;
use super::contract::slot;

slot! {
    /// `loss_decode`, or one of its list.
    LossConfig: Loss, own {
        CrossEntropyLoss(CrossEntropyLossConfig),
        DiceLoss(DiceLossConfig),
        OhemCrossEntropy(OhemCrossEntropyConfig),
    }
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
pub struct Compared<'a> {
    /// `[n, c, h, w]`
    pub logits: &'a Tensor<4>,
    /// `[n, h, w]`
    pub labels: &'a Tensor<3, Int>,
    pub ignore_index: i64,
}

/// A loss of a head's logits at the labels' size. Errors name keys below it.
pub trait Loss: Debug + Send + Sync {
    /// The name under which it is logged.
    fn loss_name(&self) -> &str;

    /// Whether it can be had of so many channels of logits, and of a `sampler`'s choice of pixels.
    fn verify(&self, out_channels: usize, sampled: bool) -> Result<(), ModelError>;

    /// [`verify`](Self::verify), and that its name is a loss's: mmengine trains on what is called
    /// so.
    fn check(&self, out_channels: usize, sampled: bool) -> Result<(), ModelError> {
        if !self.loss_name().contains("loss") {
            let problem = format!(
                "`{}` would be logged but not trained on; name it `loss_…`",
                self.loss_name()
            );
            return Err(ModelError::config("loss_name", problem));
        }
        self.verify(out_channels, sampled)
    }

    /// One number `[1]`; `pixel_weight` `[n, h, w]` is a sampler's choice.
    fn forward(&self, compared: Compared, pixel_weight: Option<&Tensor<3>>) -> Tensor<1>;

    /// The loss of each pixel `[n, h, w]`, by which samplers rank; none where it is a number of
    /// whole images.
    fn per_pixel(&self, _: Compared) -> Option<Tensor<3>> {
        None
    }

    /// The loss of logits of any size and their accuracy in percent, where both come in one pass
    /// that never has the logits at the labels' size.
    fn resized(
        &self,
        _: &Tensor<4>,
        _: &Tensor<3, Int>,
        _ignore_index: i64,
        _align_corners: bool,
    ) -> Option<(Tensor<1>, Tensor<1>)> {
        None
    }
}
