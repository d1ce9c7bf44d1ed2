//! Online hard example mining: only the pixels that the model gets most wrong count.

use burn::tensor::Tensor;
use serde::Deserialize;
use tch::Kind;

use super::PixelSampler;
use crate::models::ModelError;
use crate::models::loss::{Compared, LossConfig};
use crate::ops;

/// The keys of `type: OHEMPixelSampler`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct OHEMPixelSamplerConfig {
    /// Pixels whose label has a probability below this count; without it, those with the largest losses.
    #[serde(deserialize_with = "crate::config::share")]
    pub thresh: Option<f64>,
    /// At least this many pixels per image count.
    pub min_kept: usize,
}

impl Default for OHEMPixelSamplerConfig {
    fn default() -> Self {
        Self { thresh: None, min_kept: 100_000 }
    }
}

impl PixelSampler for OHEMPixelSamplerConfig {
    fn check(&self, out_channels: usize) -> Result<(), ModelError> {
        if self.min_kept < 2 {
            return Err(ModelError::config("min_kept", format!("expected at least 2, got {}", self.min_kept)));
        }
        if self.thresh.is_some() && out_channels == 1 {
            let problem = "needs the probability of each class, which one output channel does not give; leave it out";
            return Err(ModelError::config("thresh", problem));
        }
        Ok(())
    }

    /// The threshold stays on the device; ignored pixels are sorted to the end and never counted.
    fn sample(&self, compared: Compared, losses: &[LossConfig]) -> Tensor<3> {
        let Compared { logits, labels, ignore_index } = compared;
        let logits = logits.clone().without_autodiff();
        let target = ops::to_tch(labels).to_kind(Kind::Int64);
        let valid = target.not_equal(ignore_index);
        let kept = (self.min_kept * logits.dims()[0]) as i64;
        let chosen = match self.thresh {
            Some(thresh) => {
                let known = target.where_scalarother(&valid, 0).unsqueeze(1);
                let probability = ops::to_tch(&logits).softmax(1, Kind::Float).gather(1, &known, false).squeeze_dim(1);
                let ranked = probability.where_scalarother(&valid, f64::INFINITY).flatten(0, -1).sort(0, false).0;
                let last = (valid.sum(Kind::Int64) - 1).clamp_max(kept).clamp_min(0).view([1]);
                let threshold = ranked.index_select(0, &last).clamp_min(thresh);
                probability.lt_tensor(&threshold)
            }
            None => {
                let compared = Compared { logits: &logits, ..compared };
                let loss = losses
                    .iter()
                    .filter_map(|it| it.per_pixel(compared))
                    .reduce(|a, b| a + b)
                    .expect("a sampled head has a loss of pixels");
                let ranked = ops::to_tch(&loss).where_scalarother(&valid, f64::NEG_INFINITY).flatten(0, -1);
                let hardest = ranked.topk(kept.min(ranked.numel() as i64), 0, true, false).1;
                ranked.zeros_like().index_fill(0, &hardest, 1.0).view_as(&valid).to_kind(Kind::Bool)
            }
        };
        let weight = chosen.logical_and(&valid).to_kind(Kind::Float);
        ops::from_tch(weight, &labels.device())
    }
}
