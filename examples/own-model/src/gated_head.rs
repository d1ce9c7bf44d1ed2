//! `GatedHead`: two convolutions, of which one says how much of the other's output counts.

use burn::module::Module;
use burn::tensor::{Tensor, activation};
use segslurm::models::contract::{Feature, HeadKeys, RunHead, Seen};
use segslurm::models::head::{Decode, DecodeConfig, Head};
use segslurm::models::layer::{Conv2d, ConvModule};
use segslurm::models::{Builder, Forward, ModelError};
use segslurm::ops::Conv;
use serde::Deserialize;

/// Its keys beside those of every head (`in_channels`, `channels`, `num_classes`, …).
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct GatedKeys {
    kernel_size: usize,
}

impl HeadKeys for GatedKeys {
    fn check(&self, shared: &DecodeConfig, _: &[Feature]) -> Result<(), ModelError> {
        shared.one_map()?;
        if self.kernel_size.is_multiple_of(2) {
            let problem =
                format!("expected an odd number, so that sizes stay, got {}", self.kernel_size);
            return Err(ModelError::config("kernel_size", problem));
        }
        Ok(())
    }

    fn build(
        &self,
        shared: &DecodeConfig,
        inputs: &[Feature],
        builder: &Builder,
    ) -> Result<Head, ModelError> {
        let (conv_seg, decode) = shared.build(inputs, builder)?;
        let same_size = Conv { padding: [self.kernel_size / 2; 2], ..Conv::default() };
        let channels = [shared.input_channels(), shared.channels];
        let conv = || shared.conv_module().init(channels, self.kernel_size, same_size, builder);
        Ok(Head::own(GatedHead { conv_seg, gate: conv(), value: conv(), decode }))
    }
}

/// The head at work. Its fields are the names of its tensors: `decode_head.gate.conv.weight`.
#[derive(Module, Debug)]
pub(crate) struct GatedHead {
    conv_seg: Conv2d,
    gate: ConvModule,
    value: ConvModule,
    #[module(skip)]
    decode: Decode,
}

impl RunHead for GatedHead {
    fn forward(&self, seen: Seen, pass: &Forward) -> Tensor<4> {
        let x = self.decode.select(seen.features); // [n, c, h, w]
        let gate = activation::sigmoid(self.gate.forward(x.clone(), pass));
        let x = self.value.forward(x, pass) * gate;
        self.decode.classify(&self.conv_seg, x, pass)
    }

    fn decode(&self) -> &Decode {
        &self.decode
    }
}
