//! Online hard example mining: only the pixels that the model gets most wrong count.

use burn::tensor::Tensor;
use serde::Deserialize;

use super::PixelSampler;
use crate::models::ModelError;
use crate::models::loss::{Compared, LossConfig};
use crate::ops;

/// The keys of `type: OHEMPixelSampler`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct OHEMPixelSamplerConfig {
    /// Pixels whose label has a probability below this count; without it, those with the largest
    /// losses.
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
            return Err(ModelError::config(
                "min_kept",
                format!("expected at least 2, got {}", self.min_kept),
            ));
        }
        if self.thresh.is_some() && out_channels == 1 {
            let problem = "needs the probability of each class, which one output channel does not \
                           give; leave it out";
            return Err(ModelError::config("thresh", problem));
        }
        Ok(())
    }

    fn sample(&self, compared: Compared, losses: &[LossConfig]) -> Tensor<3> {
        let Compared { logits, labels, ignore_index } = compared;
        let logits = logits.clone().without_autodiff();
        let kept = self.min_kept * logits.dims()[0];
        if let Some(thresh) = self.thresh {
            return ops::least_probable(&logits, labels, ignore_index, thresh, kept);
        }
        let compared = Compared { logits: &logits, ..compared };
        let losses = losses.iter().filter_map(|it| it.per_pixel(compared));
        let loss = losses.reduce(|a, b| a + b).expect("a sampled head has a loss of pixels");
        ops::largest(&loss, labels, ignore_index, kept)
    }
}
