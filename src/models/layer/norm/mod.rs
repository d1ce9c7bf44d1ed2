//! Norms, as mmcv's `build_norm_layer` makes them.

mod batch;
mod sample;

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

pub use batch::{BatchNorm, BatchNormConfig};
pub use sample::{
    GroupNorm, GroupNormConfig, InstanceNorm, InstanceNormConfig, LayerNorm, LayerNormConfig,
};

use crate::models::{Builder, Forward, ModelError};
use crate::ops::Activation;

/// `norm_cfg`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub enum NormConfig {
    /// Statistics of this rank's batch.
    #[serde(alias = "BN2d")]
    BN(BatchNormConfig),
    /// Statistics of all ranks' batches.
    SyncBN(BatchNormConfig),
    /// Over the channels of each token.
    LN(LayerNormConfig),
    /// Over the channels of each pixel.
    LN2d(LayerNormConfig),
    /// Over groups of channels.
    GN(GroupNormConfig),
    /// Over each channel of each image.
    #[serde(alias = "IN2d")]
    IN(InstanceNormConfig),
}

impl NormConfig {
    /// The default of backbones.
    pub fn batch() -> Self {
        Self::BN(BatchNormConfig::default())
    }

    /// Whether a norm of feature maps with so many channels can be made of it. Errors name keys
    /// below `norm_cfg`.
    pub fn check(&self, channels: usize) -> Result<(), ModelError> {
        match self {
            Self::GN(it) if !channels.is_multiple_of(it.num_groups) => {
                let problem = format!("{} groups do not divide {channels} channels", it.num_groups);
                Err(ModelError::config("norm_cfg.num_groups", problem))
            }
            Self::LN(_) => {
                let problem = "LN normalises the last axis, which of feature maps is their width; \
                               take LN2d, GN or BN here";
                Err(ModelError::config("norm_cfg.type", problem))
            }
            _ => Ok(()),
        }
    }

    /// A norm of feature maps with `channels` channels.
    pub fn init(&self, channels: usize, builder: &Builder) -> Norm {
        match self {
            Self::BN(it) => Norm::Batch(it.init(channels, builder.is_sync_bn(), builder)),
            Self::SyncBN(it) => Norm::Batch(it.init(channels, true, builder)),
            Self::LN(it) | Self::LN2d(it) => Norm::Layer(it.init(channels, builder)),
            Self::GN(it) => Norm::Group(it.init(channels, builder)),
            Self::IN(it) => Norm::Instance(it.init(channels, builder)),
        }
    }
}

/// A norm of feature maps. The field that holds one is called `bn`: state dicts name it after what
/// stands there.
#[derive(Module, Debug)]
pub enum Norm {
    Batch(BatchNorm),
    Layer(LayerNorm),
    Group(GroupNorm),
    Instance(InstanceNorm),
}

impl Norm {
    /// Normalises `[n, c, h, w]`, then applies `activation`.
    pub fn forward(&self, x: Tensor<4>, activation: Activation, ctx: &Forward) -> Tensor<4> {
        match self {
            Self::Batch(it) => it.forward(x, activation, ctx),
            Self::Layer(it) => it.forward_maps(x, activation),
            Self::Group(it) => it.forward(x, activation),
            Self::Instance(it) => it.forward(x, activation),
        }
    }
}
