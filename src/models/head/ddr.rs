//! The head of DDRNet (Hong et al. 2021): one classifier on the last map, and one that only helps
//! to train on the map that its branches first share.

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use serde::Deserialize;

use super::{Decode, DecodeConfig, Head};
use crate::config::Both;
use crate::models::contract::{Feature, HeadKeys, Initial, RunHead, Seen};
use crate::models::forward::Scalars;
use crate::models::layer::{
    Act, ActConfig, Conv2d, Norm, NormConfig, PreActConfig, PreActConv, normed, square,
};
use crate::models::{Builder, Forward, InitConfig, ModelError};

/// The keys of `type: DDRHead`: those of every head. `loss_decode` is a list: that of the last map,
/// and that of the shared one.
pub type DDRHeadConfig = Both<DecodeConfig, DDRKeys>;

/// It has none of its own.
#[derive(Debug, Clone, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct DDRKeys {}

impl HeadKeys for DDRKeys {
    fn check(&self, shared: &DecodeConfig, inputs: &[Feature]) -> Result<(), ModelError> {
        shared.one_map()?;
        if shared.loss_decode.len() != 2 {
            let problem = format!(
                "expected a list of two losses, of the last map and of the shared one, got {}",
                shared.loss_decode.len()
            );
            return Err(ModelError::config("loss_decode", problem));
        }
        let (found, expected) = (inputs.first().map(|it| it.channels), shared.input_channels() / 2);
        if inputs.len() != 2 || found != Some(expected) {
            let problem = format!(
                "this head sees two maps, of {expected} and {} channels: those of a DDRNet",
                shared.input_channels()
            );
            return Err(ModelError::config("in_channels", problem));
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
        let (input, channels) = (shared.input_channels(), shared.channels);
        let classifier = || Conv2d::new([channels, shared.outputs()], 1, square(1, 0, 1), builder);
        Ok(DDRHead {
            conv_seg,
            head: PreActHead::new([input, channels], shared, builder),
            aux_head: PreActHead::new([input / 2, channels], shared, builder),
            aux_cls_seg: classifier().with_bias(builder),
            decode,
        }
        .into())
    }

    fn initial(&self) -> Initial {
        Initial { rules: vec![InitConfig::kaiming()], zeros: None }
    }
}

/// Norm, activation and convolution, norm and activation.
#[derive(Module, Debug)]
enum PreActHead {
    Layers((PreActConv, Norm, Act)),
}

impl PreActHead {
    fn new([input, output]: [usize; 2], shared: &DecodeConfig, builder: &Builder) -> Self {
        let norm_cfg = shared.norm_cfg.clone().unwrap_or_else(NormConfig::batch);
        let act_cfg = shared.act_cfg.clone().unwrap_or_default();
        let module = PreActConfig { norm_cfg: norm_cfg.clone(), act_cfg: Some(act_cfg.clone()) };
        let conv = module.init([input, output], 3, square(1, 1, 1), builder);
        Self::Layers((conv, norm_cfg.init(output, builder), ActConfig::init(&act_cfg, builder)))
    }

    fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let Self::Layers((conv, norm, act)) = self;
        normed(conv.forward(x, ctx), Some(norm), Some(act), ctx)
    }
}

/// Two classifiers.
#[derive(Module, Debug)]
pub struct DDRHead {
    conv_seg: Conv2d,
    head: PreActHead,
    aux_head: PreActHead,
    aux_cls_seg: Conv2d,
    #[module(skip)]
    decode: Decode,
}

impl RunHead for DDRHead {
    fn forward(&self, seen: Seen, ctx: &Forward) -> Tensor<4> {
        let x = self.head.forward(self.decode.select(seen.features), ctx);
        self.decode.classify(&self.conv_seg, x, ctx)
    }

    fn decode(&self) -> &Decode {
        &self.decode
    }

    fn loss(&self, seen: Seen, labels: &Tensor<3, Int>, ctx: &Forward) -> Scalars {
        let decode = &self.decode;
        let context = decode.at_labels(self.forward(seen, ctx), labels);
        let shared = self.aux_head.forward(seen.features[0].clone(), ctx);
        let spatial = decode.at_labels(self.aux_cls_seg.forward(shared), labels);
        let mut scalars = Scalars::default();
        scalars.loss("loss_context", decode.loss_at(0, &context, labels));
        scalars.loss("loss_spatial", decode.loss_at(1, &spatial, labels));
        scalars.look("acc_seg", decode.accuracy(&context, labels));
        scalars
    }
}
