//! mmseg's `SelfAttentionBlock`: every pixel of one map is made of the values of another, by how
//! its query meets their keys.

use burn::module::Module;
use burn::tensor::Tensor;

use super::{ConvModule, ConvModuleConfig, square};
use crate::models::{Builder, Forward};
use crate::ops;

/// Channels of an attention between two maps, both of `input` channels.
#[derive(Debug, Clone, Copy)]
pub struct SelfAttentionConfig<'a> {
    pub input: usize,
    /// Of queries, keys and values.
    pub inner: usize,
    pub output: usize,
    /// Convolutions that make queries and keys.
    pub query_convs: usize,
    pub module: &'a ConvModuleConfig,
}

/// Attention of the pixels of one map to those of another.
#[derive(Module, Debug)]
pub struct SelfAttention {
    key_project: Vec<ConvModule>,
    query_project: Vec<ConvModule>,
    value_project: ConvModule,
    out_project: ConvModule,
}

impl SelfAttention {
    pub fn new(config: SelfAttentionConfig, builder: &Builder) -> Self {
        let SelfAttentionConfig { input, inner, output, query_convs, module } = config;
        let conv = |channels| module.init(channels, 1, square(1, 0, 1), builder);
        let project = || {
            (0..query_convs).map(|it| conv([if it == 0 { input } else { inner }, inner])).collect()
        };
        Self {
            key_project: project(),
            query_project: project(),
            value_project: conv([input, inner]),
            out_project: conv([inner, output]),
        }
    }

    /// `query` `[n, c, h, w]` and `key` `[n, c, h', w']` to `[n, out, h, w]`.
    pub fn forward(&self, query: Tensor<4>, key: Tensor<4>, ctx: &Forward) -> Tensor<4> {
        let [n, _, height, width] = query.dims();
        let project = |convs: &[ConvModule], x| convs.iter().fold(x, |x, it| it.forward(x, ctx));
        let query = tokens(project(&self.query_project, query));
        let value = tokens(self.value_project.forward(key.clone(), ctx));
        let key = tokens(project(&self.key_project, key));
        let [.., inner] = value.dims();
        let context = ops::attention(query, key, value, None, None); // [n, 1, h * w, inner]
        let context = context.reshape([n, height, width, inner]).permute([0, 3, 1, 2]);
        self.out_project.forward(context, ctx)
    }
}

/// `[n, c, h, w]` to `[n, 1, h * w, c]`.
fn tokens(x: Tensor<4>) -> Tensor<4> {
    let [n, channels, height, width] = x.dims();
    x.permute([0, 2, 3, 1]).reshape([n, 1, height * width, channels])
}
