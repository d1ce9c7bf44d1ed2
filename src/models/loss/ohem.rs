//! Cross entropy of the pixels that a model gets most wrong: mmseg's `OhemCrossEntropy`, the loss
//! of DDRNet and PIDNet.

use burn::tensor::Tensor;
use serde::Deserialize;

use super::class_weight;
use super::{Compared, Loss};
use crate::config::default;
use crate::models::ModelError;
use crate::ops::{self, Constant};

/// The keys of `type: OhemCrossEntropy`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct OhemCrossEntropyConfig {
    /// The label that counts nothing.
    #[serde(default = "default::i::<255>")]
    pub ignore_label: i64,
    /// Pixels whose label has a probability below this count.
    #[serde(default = "default::ratio::<7, 10>")]
    #[serde(deserialize_with = "crate::config::share")]
    pub thres: f64,
    /// At least this many pixels of a batch count.
    #[serde(default = "default::n::<100000>")]
    pub min_kept: usize,
    #[serde(default = "default::f::<1>")]
    #[serde(deserialize_with = "crate::config::not_negative")]
    pub loss_weight: f64,
    /// One for each class, or the path of a file with them.
    #[serde(default)]
    #[serde(deserialize_with = "class_weight::read")]
    pub class_weight: Option<Constant>,
    #[serde(default = "default_name")]
    pub loss_name: String,
}

fn default_name() -> String {
    "loss_ohem".to_owned()
}

impl Loss for OhemCrossEntropyConfig {
    fn loss_name(&self) -> &str {
        &self.loss_name
    }

    fn verify(&self, out_channels: usize, sampled: bool) -> Result<(), ModelError> {
        if sampled {
            let problem = "OhemCrossEntropy chooses pixels itself; leave the head's sampler out";
            return Err(ModelError::config("", problem));
        }
        if out_channels == 1 {
            let problem = "a softmax over one output channel is always 1; set out_channels: 2";
            return Err(ModelError::config("", problem));
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

    /// The mean over the pixels that count.
    fn forward(&self, compared: Compared, _: Option<&Tensor<3>>) -> Tensor<1> {
        let Compared { logits, labels, .. } = compared;
        let plain = logits.clone().without_autodiff();
        let kept = self.min_kept.max(1);
        let chosen = ops::least_probable(&plain, labels, self.ignore_label, self.thres, kept);
        let count = chosen.clone().sum().clamp_min(1.0);
        let options = ops::CrossEntropy {
            class_weight: self.class_weight.clone(),
            ignore_index: self.ignore_label,
            reduction: ops::Reduction::Sum,
        };
        let sum = ops::cross_entropy_weighted(logits.clone(), labels.clone(), &options, chosen);
        sum / count * self.loss_weight
    }
}
