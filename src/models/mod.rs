//! Segmentation models: mmseg's encoder-decoders, built from the `model:` section of a config.
//!
//! A component's config, its defaults, its checks and its forward pass are in one file. Modules are Burn modules whose
//! field paths are mmseg's state-dict names to the letter, so that its checkpoints load as they are; the arithmetic is all
//! in [`ops`](crate::ops). A new backbone, head or loss is one file, one enum variant and one match arm.

pub mod backbone;
mod error;
mod forward;
pub mod head;
mod inference;
mod init;
pub mod layer;
pub mod loss;
mod named;
pub mod preprocess;
mod pretrained;
mod segmentor;
#[cfg(test)]
mod tests;

pub use error::ModelError;
pub use forward::{Forward, Losses};
pub use inference::{FlipDirection, Geometry, InferenceConfig, Segmentation};
pub use init::InitConfig;
pub use named::{LayerKind, NamedTensor, TensorKind, arrange, named_tensors};
pub use preprocess::{Pixels, SegDataPreProcessor, SegDataPreProcessorConfig};
pub use pretrained::PretrainedSource;
pub use segmentor::{EncoderDecoderConfig, PreprocessorConfig, Segmentor, SegmentorConfig};
