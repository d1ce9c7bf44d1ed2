//! Dice loss (V-Net, Milletari et al. 2016), over each image as a whole.

use burn::tensor::{Tensor, activation};
use serde::Deserialize;

use super::{Compared, Loss, LossReduction};
use crate::models::ModelError;
use crate::ops;

/// The keys of `type: DiceLoss`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct DiceLossConfig {
    /// Sigmoid in place of softmax.
    pub use_sigmoid: bool,
    /// Apply the sigmoid or softmax; else the logits are probabilities already.
    pub activate: bool,
    pub reduction: LossReduction,
    /// First powers in the denominator in place of squares.
    pub naive_dice: bool,
    #[serde(deserialize_with = "crate::config::not_negative")]
    pub loss_weight: f64,
    /// The class that is left out, if there is one of this number.
    pub ignore_index: Option<i64>,
    #[serde(deserialize_with = "crate::config::not_negative")]
    pub eps: f64,
    pub loss_name: String,
}

impl Default for DiceLossConfig {
    fn default() -> Self {
        Self {
            use_sigmoid: true,
            activate: true,
            reduction: LossReduction::Mean,
            naive_dice: false,
            loss_weight: 1.0,
            ignore_index: Some(255),
            eps: 1e-3,
            loss_name: "loss_dice".to_owned(),
        }
    }
}

impl Loss for DiceLossConfig {
    fn loss_name(&self) -> &str {
        &self.loss_name
    }

    fn verify(&self, out_channels: usize, sampled: bool) -> Result<(), ModelError> {
        if sampled {
            let problem =
                "DiceLoss is a ratio over whole images and cannot be combined with a sampler";
            return Err(ModelError::config("", problem));
        }
        if out_channels == 1 && self.ignore_index == Some(0) {
            return Err(ModelError::config("ignore_index", "leaves out the only output channel"));
        }
        Ok(())
    }

    fn forward(&self, compared: Compared, _: Option<&Tensor<3>>) -> Tensor<1> {
        let Compared { logits, labels, .. } = compared;
        let [n, classes, ..] = logits.dims();
        // One channel is the foreground's: mmseg's expansion would score the background.
        let mut planes = ops::class_planes(labels, classes, &logits.device());
        let mut predicted = logits.clone();
        if self.activate {
            predicted = match (self.use_sigmoid, classes) {
                (true, _) => activation::sigmoid(predicted),
                (false, 1) => predicted,
                (false, _) => activation::softmax(predicted, 1),
            };
        }
        if let Some(ignored) =
            self.ignore_index.and_then(|it| usize::try_from(it).ok()).filter(|&it| it < classes)
        {
            (planes, predicted) = (without(planes, ignored), without(predicted, ignored));
        }
        let predicted = predicted.reshape([n as i32, -1]);
        let target = planes.reshape([n as i32, -1]);
        let total = |x: Tensor<2>| x.sum_dim(1);
        let overlap = total(predicted.clone() * target.clone()) * 2.0;
        let similarity = if self.naive_dice {
            (overlap + self.eps) / (total(predicted) + total(target) + self.eps)
        } else {
            overlap
                / (total(predicted.clone() * predicted)
                    + total(target.clone() * target)
                    + 2.0 * self.eps)
        };
        let loss = -similarity + 1.0;
        let loss = match self.reduction {
            LossReduction::Mean => loss.mean(),
            LossReduction::Sum => loss.sum(),
        };
        loss * self.loss_weight
    }
}

/// `x` `[n, c, h, w]` with all channels but one.
fn without(x: Tensor<4>, channel: usize) -> Tensor<4> {
    let [n, channels, height, width] = x.dims();
    let part = |from: usize, to: usize| x.clone().slice([0..n, from..to, 0..height, 0..width]);
    match channel {
        0 => part(1, channels),
        _ if channel + 1 == channels => part(0, channel),
        _ => ops::concat(vec![part(0, channel), part(channel + 1, channels)]),
    }
}
