//! 2-d convolution with ATen's own backward, which computes only the gradients that are wanted.

use burn::tensor::Tensor;
use burn_tch::TchTensor;
use segslurm_native::aten::{Convolution, convolution_backward};

use super::function::{Function, binary, computed, ternary};

/// Options of [`conv2d`], each as (height, width).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv {
    pub stride: [usize; 2],
    pub padding: [usize; 2],
    pub dilation: [usize; 2],
    pub groups: usize,
}

impl Default for Conv {
    fn default() -> Self {
        Self { stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1 }
    }
}

/// Convolves `x` `[n, in, h, w]` with `weight` `[out, in / groups, kh, kw]` and adds `bias` `[out]`; gives `[n, out, h', w']`.
/// Weight and bias are cast to `x`'s type.
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>, conv: Conv) -> Tensor<4> {
    let ([_, channels, height, width], [out, per_group, kh, kw]) = (x.dims(), weight.dims());
    assert!(
        conv.groups > 0 && per_group * conv.groups == channels && out % conv.groups == 0,
        "conv2d: the input has {channels} channels, but a weight of shape {:?} with {} groups takes {}",
        weight.dims(),
        conv.groups,
        per_group * conv.groups
    );
    for (axis, size, kernel) in [(0, height, kh), (1, width, kw)] {
        let reach = conv.dilation[axis] * (kernel - 1) + 1;
        assert!(
            size + 2 * conv.padding[axis] >= reach && conv.stride[axis] > 0,
            "conv2d: a kernel that reaches over {reach} pixels does not fit an input of {height}x{width} padded by {:?} with \
             stride {:?}",
            conv.padding,
            conv.stride
        );
    }
    match bias {
        None => binary(x, weight, Convolve(conv)),
        Some(bias) => {
            assert_eq!(bias.dims(), [out], "conv2d: the bias has {:?} entries, the weight {out} outputs", bias.dims());
            ternary(x, weight, bias, Convolve(conv))
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Convolve(Conv);

impl Convolve {
    fn native(self) -> Convolution {
        let int = |pair: [usize; 2]| pair.map(|it| it as i64);
        Convolution {
            stride: int(self.0.stride),
            padding: int(self.0.padding),
            dilation: int(self.0.dilation),
            groups: self.0.groups as i64,
        }
    }

    fn run(self, x: &TchTensor, weight: &tch::Tensor, bias: Option<tch::Tensor>) -> TchTensor {
        let Convolution { stride, padding, dilation, groups } = self.native();
        TchTensor::new(computed("conv2d", x.tensor.f_conv2d(weight, bias, stride, padding, dilation, groups)))
    }

    /// Gradients of input, weight and bias.
    fn grads(self, saved: Saved, grad: &TchTensor, mask: [bool; 3]) -> [Option<TchTensor>; 3] {
        let grads = convolution_backward(&grad.tensor, &saved.x.tensor, &saved.weight.tensor, self.native(), mask);
        let grads = computed("conv2d backward", grads);
        let of_parameter = |grad: tch::Tensor| TchTensor::new(grad.to_kind(saved.parameter_kind));
        [grads.input.map(TchTensor::new), grads.weight.map(of_parameter), grads.bias.map(of_parameter)]
    }
}

#[derive(Debug, Clone)]
struct Saved {
    x: TchTensor,
    /// In the type of `x`.
    weight: TchTensor,
    parameter_kind: tch::Kind,
}

impl Saved {
    fn new(x: TchTensor, weight: TchTensor) -> Self {
        let (kind, parameter_kind) = (x.tensor.kind(), weight.tensor.kind());
        let weight = if kind == parameter_kind { weight } else { TchTensor::new(weight.tensor.to_kind(kind)) };
        Self { x, weight, parameter_kind }
    }
}

impl Function<2> for Convolve {
    type Saved = Saved;

    fn forward(&self, [x, weight]: [TchTensor; 2], _: [bool; 2]) -> (TchTensor, Saved) {
        let saved = Saved::new(x, weight);
        (self.run(&saved.x, &saved.weight.tensor, None), saved)
    }

    fn backward(&self, saved: Saved, grad: TchTensor, [x, weight]: [bool; 2]) -> [Option<TchTensor>; 2] {
        let [x, weight, _] = self.grads(saved, &grad, [x, weight, false]);
        [x, weight]
    }
}

impl Function<3> for Convolve {
    type Saved = Saved;

    fn forward(&self, [x, weight, bias]: [TchTensor; 3], _: [bool; 3]) -> (TchTensor, Saved) {
        let saved = Saved::new(x, weight);
        let bias = bias.tensor.to_kind(saved.x.tensor.kind());
        (self.run(&saved.x, &saved.weight.tensor, Some(bias)), saved)
    }

    fn backward(&self, saved: Saved, grad: TchTensor, mask: [bool; 3]) -> [Option<TchTensor>; 3] {
        self.grads(saved, &grad, mask)
    }
}
