//! Backbones: from images to feature maps at several strides.

mod arch;
mod bisenetv1;
mod bisenetv2;
mod block;
mod cgnet;
mod convnext;
mod ddrnet;
mod erfnet;
mod fast_scnn;
mod hrnet;
mod icnet;
mod mit;
mod mobilenet_v2;
mod mobilenet_v3;
mod mscan;
mod poolformer;
mod resnet;
mod split_attention;
mod stdc;
mod swin;
mod twins;
mod unet;

pub use arch::{Arch, ArchTable};
pub use bisenetv1::{BiSeNetV1, BiSeNetV1Config};
pub use bisenetv2::{BiSeNetV2, BiSeNetV2Config};
pub use cgnet::{CGNet, CGNetConfig};
pub use convnext::{ConvNeXt, ConvNeXtArch, ConvNeXtConfig, MapNormConfig};
pub use ddrnet::{DDRNet, DDRNetConfig};
pub use erfnet::{ERFNet, ERFNetConfig};
pub use fast_scnn::{FastSCNN, FastSCNNConfig};
pub use hrnet::{HRNet, HRNetBlock, HRNetConfig, HRNetStage, HRNetStages};
pub use icnet::{ICNet, ICNetConfig};
pub use mit::{MixVisionTransformer, MixVisionTransformerConfig};
pub use mobilenet_v2::{MobileNetV2, MobileNetV2Config};
pub use mobilenet_v3::{MobileNetV3, MobileNetV3Arch, MobileNetV3Config};
pub use mscan::{MSCAN, MSCANConfig};
pub use poolformer::{PoolFormer, PoolFormerArch, PoolFormerConfig};
pub use resnet::{
    AnyResNetConfig, ResNeStConfig, ResNeStKeys, ResNeXtConfig, ResNeXtKeys, ResNet, ResNetConfig,
    ResNetV1cConfig, ResNetV1dConfig, Style,
};
pub use stdc::{
    BottleneckType, FeatureFusionConfig, STDCContextPathNet, STDCContextPathNetConfig, STDCNet,
    STDCNetConfig, STDCType,
};
pub use swin::{SwinTransformer, SwinTransformerConfig};
pub use twins::{PCPVTConfig, SVTConfig, TwinsConfig, TwinsTransformer};
pub use unet::{UNet, UNetConfig};

use super::ModelError;
use super::contract::{BackboneSpec, RunBackbone, modules, slot};

slot! {
    /// `backbone`.
    BackboneConfig: BackboneSpec, own {
        BiSeNetV1(BiSeNetV1Config),
        BiSeNetV2(BiSeNetV2Config),
        CGNet(CGNetConfig),
        #[serde(rename = "mmpretrain.ConvNeXt")]
        ConvNeXt(ConvNeXtConfig),
        DDRNet(DDRNetConfig),
        ERFNet(ERFNetConfig),
        FastSCNN(FastSCNNConfig),
        HRNet(HRNetConfig),
        ICNet(ICNetConfig),
        /// The backbone of SegNeXt.
        MSCAN(MSCANConfig),
        /// The backbone of SegFormer.
        MixVisionTransformer(MixVisionTransformerConfig),
        MobileNetV2(MobileNetV2Config),
        MobileNetV3(MobileNetV3Config),
        PCPVT(PCPVTConfig),
        ResNeSt(ResNeStConfig),
        ResNeXt(ResNeXtConfig),
        #[serde(rename = "mmpretrain.PoolFormer")]
        PoolFormer(PoolFormerConfig),
        ResNet(ResNetConfig),
        /// ResNet with three 3×3 convolutions as its stem.
        ResNetV1c(ResNetV1cConfig),
        /// V1c that averages before the 1×1 convolution of a downsampling shortcut.
        ResNetV1d(ResNetV1dConfig),
        STDCContextPathNet(STDCContextPathNetConfig),
        STDCNet(STDCNetConfig),
        SVT(SVTConfig),
        SwinTransformer(SwinTransformerConfig),
        UNet(UNetConfig),
    }
}

modules! {
    /// A backbone, ready to run.
    Backbone: RunBackbone {
        BiSeNetV1,
        BiSeNetV2,
        CGNet,
        ConvNeXt,
        DDRNet,
        ERFNet,
        FastSCNN,
        HRNet,
        ICNet,
        MSCAN,
        MixVisionTransformer,
        MobileNetV2,
        MobileNetV3,
        PoolFormer,
        ResNet,
        STDCContextPathNet,
        STDCNet,
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
    let problem =
        format!("expected one value for each of the {stages} stages, got {}", found.len());
    Err(ModelError::config(key, problem))
}

/// An error where a list has another length.
fn one_for_each_layer<T>(key: &str, found: &[T], count: usize) -> Result<(), ModelError> {
    if found.len() == count {
        return Ok(());
    }
    Err(ModelError::config(key, format!("expected a list of {count}, got {}", found.len())))
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
