//! Dice loss (V-Net, Milletari et al. 2016), over each image as a whole.

use burn::tensor::{Tensor, activation};
use serde::Deserialize;
use tch::Kind;

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

impl DiceLossConfig {
    /// One-hot planes `[n, c, h, w]` of labels `[n, h, w]`; a label that is no class is in none.
    fn planes(logits: &Tensor<4>, labels: &tch::Tensor) -> tch::Tensor {
        let [_, classes, ..] = logits.dims();
        let labels = labels.unsqueeze(1);
        if classes == 1 {
            // One channel is the foreground's: mmseg's expansion would score the background.
            return labels.eq(1).to_kind(Kind::Float);
        }
        let values = tch::Tensor::arange(classes as i64, (Kind::Int64, labels.device())).view([1, -1, 1, 1]);
        labels.eq_tensor(&values).to_kind(Kind::Float)
    }
}

impl Loss for DiceLossConfig {
    fn loss_name(&self) -> &str {
        &self.loss_name
    }

    fn verify(&self, out_channels: usize, sampled: bool) -> Result<(), ModelError> {
        if sampled {
            let problem = "DiceLoss is a ratio over whole images and cannot be combined with a sampler";
            return Err(ModelError::config("", problem));
        }
        if out_channels == 1 && self.ignore_index == Some(0) {
            return Err(ModelError::config("ignore_index", "leaves out the only output channel"));
        }
        Ok(())
    }

    fn forward(&self, compared: Compared, _: Option<&Tensor<3>>) -> Tensor<1> {
        let Compared { logits, labels, .. } = compared;
        let device = logits.device();
        let [n, classes, ..] = logits.dims();
        let mut planes = Self::planes(logits, &ops::to_tch(labels));
        let mut predicted = logits.clone();
        if self.activate {
            predicted = match (self.use_sigmoid, classes) {
                (true, _) => activation::sigmoid(predicted),
                (false, 1) => predicted,
                (false, _) => activation::softmax(predicted, 1),
            };
        }
        if let Some(ignored) = self.ignore_index.and_then(|it| usize::try_from(it).ok()).filter(|&it| it < classes) {
            let classes = tch::Tensor::arange(classes as i64 - 1, (Kind::Int64, planes.device()));
            let kept = &classes + classes.ge(ignored as i64).to_kind(Kind::Int64);
            planes = planes.index_select(1, &kept);
            predicted = predicted.select(1, ops::from_tch::<1, burn::tensor::Int>(kept, &device));
        }
        let predicted = predicted.reshape([n as i32, -1]);
        let target: Tensor<2> = ops::from_tch(planes.reshape([n as i64, -1]), &device);
        let total = |x: Tensor<2>| x.sum_dim(1);
        let overlap = total(predicted.clone() * target.clone()) * 2.0;
        let similarity = if self.naive_dice {
            (overlap + self.eps) / (total(predicted) + total(target) + self.eps)
        } else {
            overlap / (total(predicted.clone() * predicted) + total(target.clone() * target) + 2.0 * self.eps)
        };
        let loss = -similarity + 1.0;
        let loss = match self.reduction {
            LossReduction::Mean => loss.mean(),
            LossReduction::Sum => loss.sum(),
        };
        loss * self.loss_weight
    }
}
