//! The pyramid pooling head of PSPNet (Zhao et al. 2017).

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::decode::{Decode, head_config};
use crate::models::layer::{AdaptiveAvgPool, Conv2d, ConvModule, square};
use crate::models::{Forward, ModelError};
use crate::ops;

head_config! {
    /// The keys of `type: PSPHead`.
    PSPHeadConfig {
        /// Sides of the grids that the pyramid averages over.
        #[serde(default = "default_pool_scales")]
        #[serde(deserialize_with = "crate::config::positive")]
        pool_scales: Vec<usize>,
    }
}

fn default_pool_scales() -> Vec<usize> {
    vec![1, 2, 3, 6]
}

impl PSPHeadConfig {
    pub(super) fn init(&self, channels: &[usize], index: u64, device: &Device) -> Result<PSPHead, ModelError> {
        if self.pool_scales.is_empty() || self.pool_scales.contains(&0) {
            let problem = format!("expected positive sides of grids, got {:?}", self.pool_scales);
            return Err(ModelError::config("pool_scales", problem));
        }
        let (conv_seg, decode) = self.decode().init(channels, index, device)?;
        let (input, module) = (self.decode().input_channels(), self.decode().conv_module());
        let level = |&size: &usize| (AdaptiveAvgPool { size }, module.init([input, self.channels], 1, square(1, 0, 1), device));
        let psp_modules: Vec<_> = self.pool_scales.iter().map(level).collect();
        let joined = input + self.pool_scales.len() * self.channels;
        let bottleneck = module.init([joined, self.channels], 3, square(1, 1, 1), device);
        Ok(PSPHead { conv_seg, psp_modules, bottleneck, decode })
    }
}

/// Pools the feature map over grids, joins the upsampled results with it, and convolves.
#[derive(Module, Debug)]
pub struct PSPHead {
    conv_seg: Conv2d,
    psp_modules: Vec<(AdaptiveAvgPool, ConvModule)>,
    bottleneck: ConvModule,
    #[module(skip)]
    decode: Decode,
}

impl PSPHead {
    pub(super) fn forward(&self, features: &[Tensor<4>], ctx: &Forward) -> Tensor<4> {
        let x = self.decode.select(features); // [n, c, h, w]
        let [.., height, width] = x.dims();
        let mut joined = vec![x.clone()];
        for (pool, conv) in &self.psp_modules {
            let pooled = conv.forward(pool.forward(x.clone()), ctx);
            joined.push(self.decode.resize(pooled, [height, width]));
        }
        let x = self.bottleneck.forward(ops::concat(joined), ctx);
        self.decode.classify(&self.conv_seg, x, ctx)
    }

    pub(super) fn decode(&self) -> &Decode {
        &self.decode
    }
}
