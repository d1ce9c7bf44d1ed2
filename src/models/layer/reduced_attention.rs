//! mmseg's `EfficientMultiheadAttention` (Wang et al. 2021): keys and values are those of a smaller
//! map.

use burn::module::Module;
use burn::tensor::Tensor;

use super::{
    Conv2d, Dropout, LayerNorm, MultiheadAttention, TokenNormConfig, square, to_map, to_tokens,
};
use crate::models::{Builder, Forward};

/// What an attention to a smaller map is made of.
#[derive(Debug, Clone, Copy)]
pub struct ReducedConfig<'a> {
    pub channels: usize,
    pub heads: usize,
    /// Whether queries, keys and values have a bias, and the output.
    pub bias: bool,
    /// How many times smaller the map is, on each side.
    pub ratio: usize,
    /// Of probabilities to be dropped, and of outputs.
    pub dropout: [f64; 2],
    pub norm_cfg: &'a TokenNormConfig,
}

/// Attention to a smaller map.
#[derive(Module, Debug)]
pub struct ReducedAttention {
    attn: MultiheadAttention,
    proj_drop: Dropout,
    sr: Option<Conv2d>,
    norm: Option<LayerNorm>,
}

impl ReducedAttention {
    pub fn new(config: ReducedConfig, builder: &Builder) -> Self {
        let ReducedConfig { channels, heads, bias, ratio, dropout: [attention, output], .. } =
            config;
        let smaller =
            || Conv2d::new([channels; 2], ratio, square(ratio, 0, 1), builder).with_bias(builder);
        Self {
            attn: MultiheadAttention::new(channels, heads, bias, attention, builder),
            proj_drop: Dropout::new(output),
            sr: (ratio > 1).then(smaller),
            norm: (ratio > 1).then(|| config.norm_cfg.init(channels, builder)),
        }
    }

    /// `x` `[n, h · w, c]`, the tokens of a map of `size`, to the same shape.
    pub fn forward(&self, x: Tensor<3>, size: [usize; 2], ctx: &Forward) -> Tensor<3> {
        let seen = match (&self.sr, &self.norm) {
            (Some(sr), Some(norm)) => {
                let others = norm.forward(to_tokens(sr.forward(to_map(x.clone(), size))));
                self.attn.forward_to(x, others, ctx)
            }
            _ => self.attn.forward(x, ctx),
        };
        self.proj_drop.forward(seen, ctx)
    }
}
