//! Backbones: from images to feature maps at several strides.

mod arch;
mod block;
mod convnext;
mod hrnet;
mod mit;
mod mscan;
mod poolformer;
mod resnet;
mod swin;
mod twins;
mod unet;

pub use arch::{Arch, ArchTable};
pub use convnext::{ConvNeXt, ConvNeXtArch, ConvNeXtConfig, MapNormConfig};
pub use hrnet::{HRNet, HRNetBlock, HRNetConfig, HRNetStage, HRNetStages};
pub use mit::{MixVisionTransformer, MixVisionTransformerConfig};
pub use mscan::{MSCAN, MSCANConfig};
pub use poolformer::{PoolFormer, PoolFormerArch, PoolFormerConfig};
pub use resnet::{ResNet, ResNetConfig, ResNetV1cConfig, ResNetV1dConfig, Style};
pub use swin::{SwinTransformer, SwinTransformerConfig};
pub use twins::{PCPVTConfig, SVTConfig, TwinsConfig, TwinsTransformer};
pub use unet::{UNet, UNetConfig};

use super::ModelError;
use super::contract::{BackboneSpec, RunBackbone, modules, slot};

slot! {
    /// `backbone`.
    BackboneConfig: BackboneSpec, own mut {
        #[serde(rename = "mmpretrain.ConvNeXt")]
        ConvNeXt(ConvNeXtConfig),
        HRNet(HRNetConfig),
        /// The backbone of SegNeXt.
        MSCAN(MSCANConfig),
        /// The backbone of SegFormer.
        MixVisionTransformer(MixVisionTransformerConfig),
        PCPVT(PCPVTConfig),
        #[serde(rename = "mmpretrain.PoolFormer")]
        PoolFormer(PoolFormerConfig),
        ResNet(ResNetConfig),
        /// ResNet with three 3×3 convolutions as its stem.
        ResNetV1c(ResNetV1cConfig),
        /// V1c that averages before the 1×1 convolution of a downsampling shortcut.
        ResNetV1d(ResNetV1dConfig),
        SVT(SVTConfig),
        SwinTransformer(SwinTransformerConfig),
        UNet(UNetConfig),
    }
}

modules! {
    /// A backbone, ready to run.
    Backbone: RunBackbone {
        ConvNeXt,
        HRNet,
        MSCAN,
        MixVisionTransformer,
        PoolFormer,
        ResNet,
        SwinTransformer,
        TwinsTransformer,
        UNet,
    }
}

/// An error where a key has not a value for each stage.
fn one_for_each_stage<T>(key: &str, found: &[T], stages: usize) -> Result<(), ModelError> {
    if found.len() == stages {
        return Ok(());
    }
    let problem = format!("expected one value for each of the {stages} stages, got {}", found.len());
    Err(ModelError::config(key, problem))
}

/// An error where a key names no stage, or one that there is not.
fn stages_that_are(key: &str, found: &[usize], stages: usize) -> Result<(), ModelError> {
    if found.is_empty() {
        return Err(ModelError::config(key, "expected at least one stage, got none"));
    }
    let Some(index) = found.iter().find(|&&it| it >= stages) else { return Ok(()) };
    let problem = format!("there is no stage {index}: there are {stages}, and the first is 0");
    Err(ModelError::config(key, problem))
}

/// What the stages in `out_indices` give, in the order of the stages.
fn chosen<T>(stages: Vec<T>, out_indices: &[usize]) -> Vec<T> {
    let stages = stages.into_iter().enumerate();
    stages.filter(|(stage, _)| out_indices.contains(stage)).map(|(_, it)| it).collect()
}

/// Places among `count`, where negative numbers count from the last.
fn counted_from_either_end(
    key: &str,
    found: &[i64],
    count: usize,
) -> Result<Vec<usize>, ModelError> {
    let place = |&index: &i64| {
        let at = if index < 0 { index + count as i64 } else { index };
        usize::try_from(at).ok().filter(|it| *it < count).ok_or_else(|| {
            ModelError::config(key, format!("there is no {index}: there are {count}"))
        })
    };
    if found.is_empty() {
        return Err(ModelError::config(key, "expected at least one, got none"));
    }
    found.iter().map(place).collect()
}
