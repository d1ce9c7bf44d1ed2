//! torch's `MultiheadAttention`, and mmcv's `FFN`, the two halves of a transformer's layer.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::{Act, ActConfig, Dropout, Linear};
use crate::models::init::Fill;
use crate::models::{Builder, Forward};
use crate::ops;
use crate::weights::Layer;

/// torch's `MultiheadAttention`: the matrices of queries, keys and values are one.
#[derive(Module, Debug)]
pub struct MultiheadAttention {
    /// `[3 c, c]`
    in_proj_weight: Param<Tensor<2>>,
    /// `[3 c]`
    in_proj_bias: Option<Param<Tensor<1>>>,
    out_proj: Linear,
    heads: usize,
    /// Of each probability to be dropped in training.
    dropout: f64,
}

impl MultiheadAttention {
    /// Of `heads` heads over `channels` channels; `bias` is that of all matrices.
    pub fn new(channels: usize, heads: usize, bias: bool, dropout: f64, builder: &Builder) -> Self {
        // Glorot and Bengio 2010 over the three matrices as one, as torch draws it.
        let bound = (6.0 / (4 * channels) as f64).sqrt();
        let fill = Fill::Uniform { a: -bound, b: bound };
        let in_proj_weight = builder.parameter([3 * channels, channels], Layer::Own, fill);
        let zeros = || builder.parameter([3 * channels], Layer::Own, Fill::Constant(0.0));
        let in_proj_bias = bias.then(zeros);
        let out_proj = if bias {
            Linear::with_zero_bias([channels; 2], builder)
        } else {
            Linear::without_bias([channels; 2], builder)
        };
        Self { in_proj_weight, in_proj_bias, out_proj, heads, dropout }
    }

    /// Of `x` `[n, l, c]` to itself.
    pub fn forward(&self, x: Tensor<3>, ctx: &Forward) -> Tensor<3> {
        let bias = self.in_proj_bias.as_ref().map(Param::val);
        let qkv = ops::linear(x, self.in_proj_weight.val(), bias);
        let dropout = if ctx.training { self.dropout } else { 0.0 };
        self.out_proj.forward(attend(qkv, self.heads, None, None, dropout, ctx))
    }

    /// Of `query` `[n, l, c]` to `others` `[n, s, c]`.
    pub fn forward_to(&self, query: Tensor<3>, others: Tensor<3>, ctx: &Forward) -> Tensor<3> {
        let [.., channels] = query.dims();
        let weight = self.in_proj_weight.val();
        let bias = self.in_proj_bias.as_ref().map(Param::val);
        let rows = |from: usize, to: usize| {
            let weight = weight.clone().narrow(0, from * channels, (to - from) * channels);
            let bias = bias.clone().map(|it| it.narrow(0, from * channels, (to - from) * channels));
            (weight, bias)
        };
        let ((of_query, query_bias), (of_others, others_bias)) = (rows(0, 1), rows(1, 3));
        let query = ops::linear(query, of_query, query_bias);
        let key_value = ops::linear(others, of_others, others_bias);
        let mixed = if ctx.training && self.dropout > 0.0 {
            let mut parts = key_value.split(channels, 2).into_iter();
            let mut next = || parts.next().expect("two parts");
            let options = (self.heads, None, self.dropout);
            dropped([query, next(), next()], None, options, ctx)
        } else {
            ops::cross_attention(query, key_value, self.heads)
        };
        self.out_proj.forward(mixed)
    }
}

/// Self-attention over queries, keys and values side by side, as [`ops::self_attention`], with
/// probabilities dropped at random where `dropout` is more than 0.
pub(crate) fn attend(
    qkv: Tensor<3>,
    heads: usize,
    bias: Option<Tensor<4>>,
    scale: Option<f64>,
    dropout: f64,
    ctx: &Forward,
) -> Tensor<3> {
    if dropout == 0.0 {
        return ops::self_attention(qkv, heads, bias, scale);
    }
    let [.., channels] = qkv.dims();
    let mut parts = qkv.split(channels / 3, 2).into_iter();
    let mut next = || parts.next().expect("three parts");
    dropped([next(), next(), next()], bias, (heads, scale, dropout), ctx)
}

/// Attention by its formula, which keeps the probabilities, and drops some.
fn dropped(
    parts: [Tensor<3>; 3],
    bias: Option<Tensor<4>>,
    (heads, scale, dropout): (usize, Option<f64>, f64),
    ctx: &Forward,
) -> Tensor<3> {
    let [n, length, channels] = parts[0].dims();
    let width = channels / heads;
    let [query, key, value] = parts.map(|it| {
        let [n, length, _] = it.dims();
        it.reshape([n, length, heads, width]).swap_dims(1, 2)
    });
    let scale = scale.unwrap_or_else(|| (width as f64).powf(-0.5));
    let scores = ops::matmul(query * scale, key.swap_dims(2, 3));
    let scores = match bias {
        None => scores,
        Some(bias) => {
            let windows = bias.dims()[0];
            scores + bias.repeat_dim(0, n / windows)
        }
    };
    let shares = ops::dropout(ops::softmax(scores, 3), dropout, ctx.next_seed());
    ops::matmul(shares, value).swap_dims(1, 2).reshape([n, length, channels])
}

/// mmcv's `FFN` of two layers, without what is added to it.
#[derive(Module, Debug)]
pub struct FeedForward {
    layers: ((Linear, Act, Dropout), Linear, Dropout),
}

impl FeedForward {
    pub fn new(
        [channels, inner]: [usize; 2],
        act_cfg: &ActConfig,
        dropout: f64,
        builder: &Builder,
    ) -> Self {
        let first =
            (Linear::new([channels, inner], builder), act_cfg.init(builder), Dropout::new(dropout));
        Self { layers: (first, Linear::new([inner, channels], builder), Dropout::new(dropout)) }
    }

    /// `[n, l, c]` to the same shape.
    pub fn forward(&self, x: Tensor<3>, ctx: &Forward) -> Tensor<3> {
        let ((first, act, inner), last, dropout) = &self.layers;
        let x = inner.forward(act.forward(first.forward(x)), ctx);
        dropout.forward(last.forward(x), ctx)
    }
}

/// Rates of stochastic depth (Huang et al. 2016) for so many layers, from none to `last`.
pub fn drop_path_rates(last: f64, layers: usize) -> Vec<f64> {
    let steps = layers.saturating_sub(1).max(1) as f64;
    (0..layers).map(|it| last * it as f64 / steps).collect()
}
