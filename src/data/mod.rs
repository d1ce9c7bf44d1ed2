//! Data: from files on disk to batches in memory, in a deterministic order and as fast as the
//! decoders allow.
//!
//! A dataset knows where the files are and what the classes mean; its pipeline turns one entry into
//! a sample; a sampler says which entry comes when; the loader runs the pipeline on worker threads.
//! Geometry is planned before pixels are touched (see [`View`]): a crop that follows a resize costs
//! only the pixels that the crop keeps. Nothing here knows tensors or devices.

pub mod dataset;
pub mod scene;
pub mod transform;

mod batch;
mod codec;
mod error;
mod image;
mod loader;
mod resample;
mod sampler;
mod scratch;
mod seed;
mod size;
mod view;

#[cfg(test)]
mod tests;

pub use crate::geometry::FlipDirection;
pub use batch::{Batch, Meta, Sample};
use codec::is_jpeg;
pub use codec::{read_image, read_label};
pub use dataset::{BaseSegDataset, Dataset, DatasetConfig, DatasetKind, MetaInfo, OwnDataset};
pub use error::DataError;
pub use image::{Image, LabelMap, Raster};
pub use loader::{DataloaderConfig, Loader, LoaderOptions, Position};
pub use rand_pcg::Pcg64;
pub use resample::{Interpolation, Rect};
pub use sampler::{Sampler, SamplerConfig};
pub use seed::sample_rng;
pub use size::rescaled;
pub use transform::{Frame, Pipeline, RunTransform, Transform};
pub use view::View;
