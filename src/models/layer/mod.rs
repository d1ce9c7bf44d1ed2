//! The layers that backbones and heads share, named and nested as mmcv's.

mod act;
mod atrous;
mod conv;
mod conv_module;
mod dappm;
mod dropout;
mod inline;
mod inverted_residual;
mod layer_scale;
mod linear;
mod multihead;
mod norm;
mod preact_conv;
mod pyramid;
mod reduced_attention;
mod refinement;
mod self_attention;
mod tokens;
mod unit;
mod upsample;
mod window;
mod window_mask;

pub use act::{Act, ActConfig, HSigmoidConfig, InplaceConfig, NoKeys, PReLUConfig};
pub use atrous::{AtrousConfig, AtrousPyramid};
pub(crate) use conv::square;
pub use conv::{Conv2d, ConvConfig, ConvTranspose2d, Kernel, PlainConvConfig};
pub(crate) use conv_module::normed;
pub use conv_module::{ConvModule, ConvModuleConfig, SeparableConvModule};
pub use dappm::DAPPM;
pub use dropout::{ChannelDropout, DropPath, Dropout};
pub use inline::Inline;
pub use inverted_residual::{
    AdaptiveConvModule, InvertedConfig, InvertedResidual, InvertedResidualV3, InvertedV3Config,
    SELayer, make_divisible,
};
pub(crate) use layer_scale::{add_scaled, layer_scale};
pub use linear::Linear;
pub(crate) use multihead::attend;
pub use multihead::{FeedForward, MultiheadAttention, drop_path_rates};
pub use norm::{
    BatchNorm, BatchNormConfig, GroupNorm, GroupNormConfig, InstanceNorm, InstanceNormConfig,
    LayerNorm, LayerNormConfig, Norm, NormConfig,
};
pub use preact_conv::{PreActConfig, PreActConv};
pub use pyramid::PyramidPooling;
pub use reduced_attention::{ReducedAttention, ReducedConfig};
pub use refinement::AttentionRefinement;
pub use self_attention::{SelfAttention, SelfAttentionConfig};
pub use tokens::{
    Padding, PatchConfig, PatchEmbed, PatchMerging, TokenNormConfig, to_map, to_tokens,
};
pub use unit::{AdaptiveAvgPool, AvgPool, MaxPool, ReLU, Window};
pub use upsample::{
    DeconvModule, DeconvModuleConfig, InterpConv, InterpConvConfig, InterpolationConfig,
    InterpolationMode, Larger, Upsample, UpsampleConfig,
};
pub use window::Windows;
pub use window_mask::WindowMasks;
