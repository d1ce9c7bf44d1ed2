//! Segmentors: whole models.

mod encoder_decoder;
mod heads;
mod inference;
mod outline;

use burn::tensor::Device;

pub use encoder_decoder::{CascadeConfig, EncoderDecoderConfig, Segmentor, TrainConfig};
pub use heads::HeadsConfig;
pub use inference::{Geometry, InferenceConfig, Segmentation};
pub use outline::Part;

use super::ModelError;
use super::contract::{BackboneSpec, slot};
use super::head::DecodeConfig;
use super::preprocess::{SegDataPreProcessor, SegDataPreProcessorConfig};

slot! {
    /// `model`.
    SegmentorConfig: SegmentorSpec {
        EncoderDecoder(EncoderDecoderConfig),
        CascadeEncoderDecoder(CascadeConfig),
    }
}

/// The config of a whole model. Errors name keys below `model`.
pub trait SegmentorSpec: std::fmt::Debug {
    /// What is wrong with its parts and with how they go together, all of it; nothing is made for
    /// it.
    fn problems(&self) -> Vec<ModelError>;

    /// The first of them.
    fn check(&self) -> Result<(), ModelError> {
        self.problems().into_iter().next().map_or(Ok(()), Err)
    }

    /// Builds the model on `device` (an autodiff device to train it) and draws its weights from
    /// `seed`. Weights that [`Segmentor::pretrained`] names are still to be read.
    fn init(&self, device: &Device, seed: u64) -> Result<Segmentor, ModelError>;

    fn data_preprocessor(&self) -> Option<&SegDataPreProcessorConfig>;

    /// Every head that takes the dataset's labels, with the key at which it stands, the one that
    /// decodes first.
    fn heads(&self) -> Vec<(String, &DecodeConfig)>;

    /// Makes every batch norm a synchronised one, as mmengine's `sync_bn` does.
    fn synchronize_norms(&mut self);

    fn backbone(&self) -> &dyn BackboneSpec;

    /// The head whose logits are the model's.
    fn decode_head(&self) -> &DecodeConfig;

    /// How images become batches.
    fn preprocessor(&self) -> Result<SegDataPreProcessor, ModelError> {
        let mut preprocessor = self.data_preprocessor().cloned().unwrap_or_default();
        preprocessor.seg_pad_val =
            preprocessor.seg_pad_val.or_else(|| u8::try_from(self.ignore_index()).ok());
        preprocessor.init().map_err(|it| it.within("data_preprocessor"))
    }

    /// The label that padding of the data preprocessor has, where the config says so.
    fn seg_pad_val(&self) -> Option<u8> {
        self.data_preprocessor()?.seg_pad_val
    }

    /// The label that the losses of the head that decodes leave out.
    fn ignore_index(&self) -> i64 {
        self.decode_head().ignore_index
    }

    /// The classes that the model tells apart.
    fn num_classes(&self) -> usize {
        self.decode_head().num_classes
    }
}
