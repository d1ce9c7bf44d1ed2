//! The attention refinement of BiSeNet (Yu et al. 2018), which STDC has too: channels, weighed by
//! what the whole image has of them.

use burn::module::Module;
use burn::tensor::Tensor;

use super::{AdaptiveAvgPool, ConvModule, ConvModuleConfig, NormConfig, square};
use crate::models::{Builder, Forward};
use crate::ops::{self, Activation};

/// A convolution whose channels are weighed.
#[derive(Module, Debug)]
pub struct AttentionRefinement {
    conv_layer: ConvModule,
    atten_conv_layer: (AdaptiveAvgPool, ConvModule),
}

impl AttentionRefinement {
    /// From `input` to `output` channels; mmseg's has plain batch norms whatever the backbone has.
    pub fn new([input, output]: [usize; 2], builder: &Builder) -> Self {
        let plain = ConvModuleConfig::batch_relu();
        let linear = ConvModuleConfig { norm_cfg: Some(NormConfig::batch()), act_cfg: None };
        Self {
            conv_layer: plain.init([input, output], 3, square(1, 1, 1), builder),
            atten_conv_layer: (
                AdaptiveAvgPool { size: 1 },
                linear.init([output; 2], 1, square(1, 0, 1), builder),
            ),
        }
    }

    /// `[n, in, h, w]` to `[n, out, h, w]`.
    pub fn forward(&self, x: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let x = self.conv_layer.forward(x, ctx);
        let (pool, conv) = &self.atten_conv_layer;
        let weights = conv.forward(pool.forward(x.clone()), ctx);
        x * ops::activate(weights, Activation::Sigmoid)
    }
}
