//! Backbones: from images to feature maps at several strides.

mod block;
mod resnet;
mod unet;

pub use resnet::{ResNet, ResNetConfig, ResNetV1cConfig, ResNetV1dConfig, Style};
pub use unet::{UNet, UNetConfig};

use super::contract::{BackboneSpec, RunBackbone, modules, slot};

slot! {
    /// `backbone`.
    BackboneConfig: BackboneSpec, own mut {
        ResNet(ResNetConfig),
        /// ResNet with three 3×3 convolutions as its stem.
        ResNetV1c(ResNetV1cConfig),
        /// V1c that averages before the 1×1 convolution of a downsampling shortcut.
        ResNetV1d(ResNetV1dConfig),
        UNet(UNetConfig),
    }
}

modules! {
    /// A backbone, ready to run.
    Backbone: RunBackbone {
        ResNet,
        UNet,
    }
}
