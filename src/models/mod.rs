//! Segmentation models: mmseg's encoder-decoders, built from the `model:` section of a config.
//!
//! A component's config, its defaults, its checks and its forward pass are in one file, and one
//! line in its slot makes it known ([`contract`]). Modules are Burn modules whose field paths are
//! mmseg's state-dict names to the letter, so that its checkpoints load as they are; the arithmetic
//! is all in [`ops`](crate::ops).

pub mod backbone;
mod builder;
pub mod contract;
mod error;
mod forward;
pub mod head;
mod init;
pub mod layer;
pub mod loss;
pub mod neck;
mod own;
pub mod preprocess;
mod pretrained;
pub mod sampler;
mod segmentor;
mod state;
#[cfg(test)]
mod tests;

pub use builder::Builder;
pub use error::ModelError;
pub use forward::{Forward, Losses, Scalar, Scalars};
pub use init::{Fill, InitConfig};
pub use loss::{Compared, Loss};
pub use own::OwnModule;
pub use preprocess::{Pixels, SegDataPreProcessor, SegDataPreProcessorConfig};
pub use pretrained::PretrainedSource;
pub use segmentor::{
    CascadeConfig, EncoderDecoderConfig, Geometry, HeadsConfig, InferenceConfig, Part,
    Segmentation, Segmentor, SegmentorConfig, SegmentorSpec, TrainConfig,
};
