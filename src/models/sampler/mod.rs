//! Samplers: which pixels a head's losses count.

mod ohem;

use std::fmt::Debug;

use burn::tensor::Tensor;

pub use ohem::OHEMPixelSamplerConfig;

use super::ModelError;
use super::contract::slot;
use super::loss::{Compared, LossConfig};

slot! {
    /// `sampler`.
    SamplerConfig: PixelSampler {
        OHEMPixelSampler(OHEMPixelSamplerConfig),
    }
}

/// Picks pixels. Errors name keys below it.
pub trait PixelSampler: Debug {
    fn check(&self, out_channels: usize) -> Result<(), ModelError>;

    /// 1 for each pixel `[n, h, w]` that counts, else 0; not differentiable.
    fn sample(&self, compared: Compared, losses: &[LossConfig]) -> Tensor<3>;
}
