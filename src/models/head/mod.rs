//! Heads: from a backbone's feature maps to logits, and to losses.

mod decode;
mod fcn;
mod psp;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use serde::Deserialize;

pub use decode::{Decode, DecodeConfig, InIndex, InputTransform};
pub use fcn::{FCNHead, FCNHeadConfig};
pub use psp::{PSPHead, PSPHeadConfig};

use super::layer::NormConfig;
use super::{Forward, ModelError};

/// `decode_head`, `auxiliary_head`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub enum HeadConfig {
    FCNHead(FCNHeadConfig),
    PSPHead(PSPHeadConfig),
}

impl HeadConfig {
    /// Builds the head for a backbone with feature maps of `channels`; `index` tells the heads of a model apart, for dropout.
    /// Errors name keys below the head.
    pub fn init(&self, channels: &[usize], index: u64, device: &Device) -> Result<Head, ModelError> {
        Ok(match self {
            Self::FCNHead(it) => Head::FCN(it.init(channels, index, device)?),
            Self::PSPHead(it) => Head::PSP(it.init(channels, index, device)?),
        })
    }

    /// Its norms' settings.
    pub(super) fn norm_cfg(&mut self) -> Option<&mut NormConfig> {
        match self {
            Self::FCNHead(it) => it.norm_cfg.as_mut(),
            Self::PSPHead(it) => it.norm_cfg.as_mut(),
        }
    }

    /// What every head has.
    pub fn decode(&self) -> DecodeConfig {
        match self {
            Self::FCNHead(it) => it.decode(),
            Self::PSPHead(it) => it.decode(),
        }
    }
}

/// A head, ready to run.
#[derive(Module, Debug)]
pub enum Head {
    FCN(FCNHead),
    PSP(PSPHead),
}

impl Head {
    /// The backbone's feature maps to logits `[n, out_channels, h, w]`, at the size of the feature map.
    pub fn forward(&self, features: &[Tensor<4>], ctx: &Forward) -> Tensor<4> {
        match self {
            Self::FCN(it) => it.forward(features, ctx),
            Self::PSP(it) => it.forward(features, ctx),
        }
    }

    /// The head's losses and accuracy against `labels` `[n, h, w]`, by name.
    pub fn loss(&self, features: &[Tensor<4>], labels: &Tensor<3, Int>, ctx: &Forward) -> Vec<(String, Tensor<1>)> {
        self.decode().losses(self.forward(features, ctx), labels)
    }

    pub fn decode(&self) -> &Decode {
        match self {
            Self::FCN(it) => it.decode(),
            Self::PSP(it) => it.decode(),
        }
    }
}
