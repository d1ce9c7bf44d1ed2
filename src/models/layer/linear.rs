//! torch's `Linear`.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::models::Builder;
use crate::models::init::Fill;
use crate::ops;
use crate::weights::Layer;

/// A product with a matrix along the last axis.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`
    weight: Param<Tensor<2>>,
    /// `[out]`
    bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// From `input` to `output` features, with a bias.
    pub fn new([input, output]: [usize; 2], builder: &Builder) -> Self {
        let fill = Fill::torch_default(input);
        let weight = builder.parameter([output, input], Layer::Linear, fill);
        let bias = Some(builder.bias(&weight, output, fill));
        Self { weight, bias }
    }

    /// With a bias that begins at zero.
    pub fn with_zero_bias([input, output]: [usize; 2], builder: &Builder) -> Self {
        let Self { weight, .. } = Self::without_bias([input, output], builder);
        let bias = Some(builder.bias(&weight, output, Fill::Constant(0.0)));
        Self { weight, bias }
    }

    pub fn without_bias([input, output]: [usize; 2], builder: &Builder) -> Self {
        Self {
            weight: builder.parameter([output, input], Layer::Linear, Fill::torch_default(input)),
            bias: None,
        }
    }

    /// `[…, in]` to `[…, out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::linear(x, self.weight.val(), self.bias.as_ref().map(Param::val))
    }
}
