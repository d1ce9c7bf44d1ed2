//! Cross entropy, over the classes together (softmax) or each on its own (sigmoid).

use burn::tensor::{Int, Tensor};
use serde::Deserialize;

use super::{Compared, Loss, LossReduction};
use crate::models::ModelError;
use crate::ops::{self, BinaryCrossEntropy, Constant, CrossEntropy, Reduction};

/// The keys of `type: CrossEntropyLoss`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct CrossEntropyLossConfig {
    /// A sigmoid for each class in place of one softmax.
    pub use_sigmoid: bool,
    /// Only instance masks have such a loss; it is refused.
    pub use_mask: bool,
    pub reduction: LossReduction,
    /// A factor for each class: a list, or a file with one (`.npy`, `.json`, `.yaml`).
    #[serde(deserialize_with = "super::class_weight::read")]
    pub class_weight: Option<Constant>,
    #[serde(deserialize_with = "crate::config::not_negative")]
    pub loss_weight: f64,
    pub loss_name: String,
    /// Divide by the number of pixels that count, not by all.
    pub avg_non_ignore: bool,
}

impl Default for CrossEntropyLossConfig {
    fn default() -> Self {
        Self {
            use_sigmoid: false,
            use_mask: false,
            reduction: LossReduction::Mean,
            class_weight: None,
            loss_weight: 1.0,
            loss_name: "loss_ce".to_owned(),
            avg_non_ignore: false,
        }
    }
}

impl CrossEntropyLossConfig {
    fn reduction(&self) -> Reduction {
        match (self.reduction, self.avg_non_ignore) {
            (LossReduction::Sum, _) => Reduction::Sum,
            (LossReduction::Mean, true) => Reduction::MeanNonIgnored,
            (LossReduction::Mean, false) => Reduction::Mean,
        }
    }

    fn options(&self, ignore_index: i64) -> CrossEntropy {
        CrossEntropy {
            class_weight: self.class_weight.clone(),
            ignore_index,
            reduction: self.reduction(),
        }
    }

    fn binary_options(&self, ignore_index: i64) -> BinaryCrossEntropy {
        BinaryCrossEntropy {
            class_weight: self.class_weight.clone(),
            ignore_index,
            reduction: self.reduction(),
        }
    }
}

impl Loss for CrossEntropyLossConfig {
    fn loss_name(&self) -> &str {
        &self.loss_name
    }

    fn verify(&self, out_channels: usize, _: bool) -> Result<(), ModelError> {
        if self.use_mask {
            return Err(ModelError::config(
                "use_mask",
                "is for instance masks; a segmentor takes use_sigmoid or neither",
            ));
        }
        if !self.use_sigmoid && out_channels == 1 {
            let problem = "a softmax over one output channel is always 1; set use_sigmoid: true, \
                           or out_channels: 2";
            return Err(ModelError::config("use_sigmoid", problem));
        }
        match self.class_weight.as_ref().map(Constant::values) {
            Some(weights) if weights.len() != out_channels => {
                let problem = format!(
                    "expected {out_channels} weights, one for each output channel, got {}",
                    weights.len()
                );
                Err(ModelError::config("class_weight", problem))
            }
            _ => Ok(()),
        }
    }

    fn forward(&self, compared: Compared, pixel_weight: Option<&Tensor<3>>) -> Tensor<1> {
        let Compared { logits, labels, ignore_index } = compared;
        let (logits, labels) = (logits.clone(), labels.clone());
        let loss = match (self.use_sigmoid, pixel_weight) {
            (false, None) => ops::cross_entropy(logits, labels, &self.options(ignore_index)),
            (false, Some(weight)) => ops::cross_entropy_weighted(
                logits,
                labels,
                &self.options(ignore_index),
                weight.clone(),
            ),
            (true, None) => {
                ops::binary_cross_entropy(logits, labels, &self.binary_options(ignore_index))
            }
            (true, Some(weight)) => ops::binary_cross_entropy_weighted(
                logits,
                labels,
                &self.binary_options(ignore_index),
                weight.clone(),
            ),
        };
        loss * self.loss_weight
    }

    /// Summed over classes with `use_sigmoid`.
    fn per_pixel(&self, compared: Compared) -> Option<Tensor<3>> {
        let Compared { logits, labels, ignore_index } = compared;
        let (logits, labels) = (logits.clone(), labels.clone());
        let loss = if self.use_sigmoid {
            let options = self.binary_options(ignore_index);
            ops::binary_cross_entropy_per_element(logits, labels, &options)
                .sum_dim(1)
                .squeeze_dim::<3>(1)
        } else {
            ops::cross_entropy_per_pixel(logits, labels, &self.options(ignore_index))
        };
        Some(loss * self.loss_weight)
    }

    fn resized(
        &self,
        logits: &Tensor<4>,
        labels: &Tensor<3, Int>,
        ignore_index: i64,
        align_corners: bool,
    ) -> Option<(Tensor<1>, Tensor<1>)> {
        if self.use_sigmoid {
            return None;
        }
        let options = self.options(ignore_index);
        let (loss, accuracy) =
            ops::resized_cross_entropy(logits.clone(), labels.clone(), &options, align_corners);
        Some((loss * self.loss_weight, accuracy))
    }
}
