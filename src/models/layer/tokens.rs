//! Feature maps as sequences of tokens, and back. A map whose channels are the innermost in memory
//! is such a sequence already: between convolutions and products of matrices nothing is copied.

use burn::module::Module;
use burn::tensor::Tensor;
use serde::Deserialize;

use super::{Conv2d, Kernel, LayerNorm, LayerNormConfig, Linear};
use crate::models::Builder;
use crate::ops;

/// `[n, c, h, w]` to `[n, h · w, c]`.
pub fn to_tokens(x: Tensor<4>) -> Tensor<3> {
    let [n, channels, height, width] = x.dims();
    x.permute([0, 2, 3, 1]).reshape([n, height * width, channels])
}

/// `[n, h · w, c]` to `[n, c, h, w]`, with channels innermost in memory.
pub fn to_map(x: Tensor<3>, [height, width]: [usize; 2]) -> Tensor<4> {
    let [n, _, channels] = x.dims();
    x.reshape([n, height, width, channels]).permute([0, 3, 1, 2])
}

/// `norm_cfg` of tokens: there is one kind.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub enum TokenNormConfig {
    LN(LayerNormConfig),
}

impl Default for TokenNormConfig {
    fn default() -> Self {
        Self::LN(LayerNormConfig::default())
    }
}

impl TokenNormConfig {
    /// An `eps` of its own.
    pub fn with_eps(eps: f64) -> Self {
        Self::LN(LayerNormConfig { eps, ..LayerNormConfig::default() })
    }

    pub fn init(&self, channels: usize, builder: &Builder) -> LayerNorm {
        let Self::LN(config) = self;
        config.init(channels, builder)
    }
}

/// How a map is cut into patches.
#[derive(Debug, Clone, Copy)]
pub struct PatchConfig {
    pub channels: [usize; 2],
    pub kernel: usize,
    pub stride: usize,
    pub padding: Padding,
}

/// What surrounds a map that is cut into patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// So many zeros on each side.
    Around(usize),
    /// Zeros on the right and at the bottom, where the last patch would reach over the edge:
    /// mmseg's `corner`.
    Corner,
}

/// mmseg's `PatchEmbed`: a convolution that makes a token of each patch.
#[derive(Module, Debug)]
pub struct PatchEmbed {
    projection: Conv2d,
    norm: Option<LayerNorm>,
    #[module(skip)]
    config: PatchConfig,
}

impl PatchEmbed {
    pub fn new(config: PatchConfig, norm: Option<&TokenNormConfig>, builder: &Builder) -> Self {
        let padding = match config.padding {
            Padding::Around(padding) => padding,
            Padding::Corner => 0,
        };
        let conv = super::square(config.stride, padding, 1);
        let projection = Conv2d::new(config.channels, Kernel::from(config.kernel), conv, builder)
            .with_bias(builder);
        let norm = norm.map(|it| it.init(config.channels[1], builder));
        Self { projection, norm, config }
    }

    /// `[n, c, h, w]` to tokens `[n, h' · w', out]`, and `h'` and `w'`.
    pub fn forward(&self, x: Tensor<4>) -> (Tensor<3>, [usize; 2]) {
        let x = if self.config.padding == Padding::Corner {
            corner(x, self.config.kernel, self.config.stride)
        } else {
            x
        };
        let x = self.projection.forward(x);
        let [.., height, width] = x.dims();
        let x = to_tokens(x);
        (self.norm.iter().fold(x, |x, norm| norm.forward(x)), [height, width])
    }
}

/// Zeros on the right and at the bottom, so that windows of `kernel` at `stride` cover all of `x`.
pub(super) fn corner(x: Tensor<4>, kernel: usize, stride: usize) -> Tensor<4> {
    let [.., height, width] = x.dims();
    let lacking =
        |size: usize| (((size.div_ceil(stride) - 1) * stride + kernel).saturating_sub(size)) as i64;
    ops::pad2d(x, [0, lacking(width), 0, lacking(height)], 0.0)
}

/// mmseg's `PatchMerging`: the tokens of two by two places become one.
#[derive(Module, Debug)]
pub struct PatchMerging {
    norm: Option<LayerNorm>,
    reduction: Linear,
    stride: usize,
}

impl PatchMerging {
    pub fn new(
        [input, output]: [usize; 2],
        stride: usize,
        norm: Option<&TokenNormConfig>,
        builder: &Builder,
    ) -> Self {
        let norm = norm.map(|it| it.init(4 * input, builder));
        Self { norm, reduction: Linear::without_bias([4 * input, output], builder), stride }
    }

    /// `[n, h · w, c]` to `[n, h' · w', out]`, and `h'` and `w'`.
    pub fn forward(&self, x: Tensor<3>, size: [usize; 2]) -> (Tensor<3>, [usize; 2]) {
        let x = corner(to_map(x, size), 2, self.stride);
        let [n, channels, height, width] = x.dims();
        let [rows, columns] = [height, width].map(|it| (it - 2) / self.stride + 1);
        let x: Tensor<3> = if self.stride == 2 {
            x.permute([0, 2, 3, 1])
                .reshape([n, rows, 2, columns, 2, channels])
                .permute([0, 1, 3, 5, 2, 4])
                .reshape([n, rows * columns, 4 * channels])
        } else {
            ops::unfold(x, [2; 2], [self.stride; 2], [0; 2], [1; 2]).swap_dims(1, 2)
        };
        let x = self.norm.iter().fold(x, |x, norm| norm.forward(x));
        (self.reduction.forward(x), [rows, columns])
    }
}
