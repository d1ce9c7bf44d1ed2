//! The layers that backbones and heads share, named and nested as mmcv's.

mod conv;
mod conv_module;
mod norm;
mod unit;

pub(crate) use conv::square;
pub use conv::{Conv2d, ConvConfig, PlainConvConfig};
pub use conv_module::{ActConfig, ConvModule, ConvModuleConfig, ReLUConfig};
pub use norm::{BatchNorm, BatchNormConfig, NormConfig};
pub use unit::{AdaptiveAvgPool, AvgPool, ReLU};
