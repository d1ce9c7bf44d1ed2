//! Backbones: from images to feature maps at several strides.

mod block;
mod resnet;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::Deserialize;

pub use resnet::{ResNet, ResNetConfig, Style};

use super::layer::NormConfig;
use super::{Forward, InitConfig, ModelError};

/// `backbone`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub enum BackboneConfig {
    ResNet(ResNetConfig),
    /// ResNet with three 3×3 convolutions as its stem.
    ResNetV1c(ResNetConfig),
    /// V1c that averages before the 1×1 convolution of a downsampling shortcut.
    ResNetV1d(ResNetConfig),
}

impl BackboneConfig {
    fn resnet(&self) -> ResNetConfig {
        match self {
            Self::ResNet(config) => config.clone(),
            Self::ResNetV1c(config) => ResNetConfig { deep_stem: true, avg_down: false, ..config.clone() },
            Self::ResNetV1d(config) => ResNetConfig { deep_stem: true, avg_down: true, ..config.clone() },
        }
    }

    /// Its norms' settings.
    pub(super) fn norm_cfg(&mut self) -> &mut NormConfig {
        let (Self::ResNet(config) | Self::ResNetV1c(config) | Self::ResNetV1d(config)) = self;
        &mut config.norm_cfg
    }

    /// Errors name keys below `backbone`.
    pub fn init(&self, device: &Device) -> Result<Backbone, ModelError> {
        Ok(Backbone::ResNet(self.resnet().init(device)?))
    }

    pub(crate) fn pretrained(&self) -> Option<&str> {
        let (Self::ResNet(config) | Self::ResNetV1c(config) | Self::ResNetV1d(config)) = self;
        config.pretrained.as_deref()
    }

    pub(crate) fn init_cfg(&self) -> Option<&[InitConfig]> {
        let (Self::ResNet(config) | Self::ResNetV1c(config) | Self::ResNetV1d(config)) = self;
        config.init_cfg.as_deref()
    }

    /// The last norm of every residual block starts at zero, so that a block starts as the identity: the suffix of its
    /// name, unless the config says otherwise.
    pub(crate) fn zero_initialised(&self) -> Option<&'static str> {
        let config = self.resnet();
        config.zero_init_residual.then(|| if config.depth < 50 { ".bn2" } else { ".bn3" })
    }
}

/// A backbone, ready to run.
#[derive(Module, Debug)]
pub enum Backbone {
    ResNet(ResNet),
}

impl Backbone {
    /// `[n, 3, h, w]` to the feature maps that `out_indices` asks for, in its order of stages.
    pub fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Vec<Tensor<4>> {
        match self {
            Self::ResNet(it) => it.forward(x, ctx),
        }
    }

    /// The channels of each feature map.
    pub fn out_channels(&self) -> &[usize] {
        match self {
            Self::ResNet(it) => it.out_channels(),
        }
    }
}
