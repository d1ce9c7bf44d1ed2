//! The layers that backbones and heads share, named and nested as mmcv's.

mod act;
mod atrous;
mod conv;
mod conv_module;
mod dropout;
mod inline;
mod linear;
mod norm;
mod pyramid;
mod unit;
mod upsample;

pub use act::{Act, ActConfig, InplaceConfig};
pub use atrous::{AtrousConfig, AtrousPyramid};
pub(crate) use conv::square;
pub use conv::{Conv2d, ConvConfig, ConvTranspose2d, Kernel, PlainConvConfig};
pub use conv_module::{ConvModule, ConvModuleConfig, SeparableConvModule};
pub use dropout::{ChannelDropout, DropPath, Dropout};
pub use inline::Inline;
pub use linear::Linear;
pub use norm::{
    BatchNorm, BatchNormConfig, GroupNorm, GroupNormConfig, InstanceNorm, InstanceNormConfig,
    LayerNorm, LayerNormConfig, Norm, NormConfig,
};
pub use pyramid::PyramidPooling;
pub use unit::{AdaptiveAvgPool, AvgPool, MaxPool, ReLU};
pub use upsample::{
    DeconvModule, DeconvModuleConfig, InterpConv, InterpConvConfig, InterpolationConfig,
    InterpolationMode, Upsample, UpsampleConfig,
};
