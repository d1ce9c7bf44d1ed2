//! 2-d convolution with ATen's own backward, which computes only the gradients that are wanted.

use burn::tensor::Tensor;
use burn_tch::TchTensor;
use segslurm_native::aten::{Convolution, convolution_backward};

use super::error::{computed, refuse};
use super::function::{Function, binary, ternary};

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
        if size + 2 * conv.padding[axis] < reach || conv.stride[axis] == 0 {
            let shapes = [x.dims(), weight.dims()].map(|it| it.map(|it| it as i64).to_vec());
            let (padding, stride) = (conv.padding, conv.stride);
            let why = format!(
                "a kernel that reaches over {reach} pixels does not fit an input of {height}x{width} padded by {padding:?} with \
                 stride {stride:?}"
            );
            refuse("conv2d", &shapes, &why);
        }
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
        let y = x.tensor.f_conv2d(weight, bias, stride, padding, dilation, groups);
        TchTensor::new(computed("conv2d", [&x.tensor, weight], y))
    }

    /// Gradients of input, weight and bias.
    fn grads(self, saved: &Saved, grad: &TchTensor, mask: [bool; 3]) -> [Option<TchTensor>; 3] {
        let grads = convolution_backward(&grad.tensor, &saved.x.tensor, &saved.weight.tensor, self.native(), mask);
        let grads = computed("conv2d backward", [&grad.tensor, &saved.x.tensor, &saved.weight.tensor], grads);
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
        let [x, weight, _] = self.grads(&saved, &grad, [x, weight, false]);
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
        self.grads(&saved, &grad, mask)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use burn::tensor::module::conv2d as burn_conv2d;
    use burn::tensor::ops::ConvOptions;

    use super::super::reference::{check, constant, flat, refused, values};
    use super::super::{from_tch, gradient, to_tch};
    use super::*;

    fn options(conv: Conv) -> ConvOptions<2> {
        ConvOptions::new(conv.stride, conv.padding, conv.dilation, conv.groups)
    }

    #[test]
    fn convolution_and_its_gradients_match_burn_and_finite_differences() {
        let cases = [
            Conv::default(),
            Conv { stride: [2, 1], padding: [1, 2], ..Conv::default() },
            Conv { padding: [2, 2], dilation: [2, 2], ..Conv::default() },
            Conv { padding: [1, 1], groups: 2, ..Conv::default() },
        ];
        for conv in cases {
            let weight = [4, 2 / conv.groups, 3, 3];
            let inputs = [values(2 * 2 * 5 * 7, 1), values(weight.iter().product(), 2), values(4, 3)];
            let arguments =
                |x: &[Tensor<1>]| (x[0].clone().reshape([2, 2, 5, 7]), x[1].clone().reshape(weight), Some(x[2].clone()));
            check(
                &inputs,
                |x| {
                    let (x, weight, bias) = arguments(x);
                    conv2d(x, weight, bias, conv)
                },
                |x| {
                    let (x, weight, bias) = arguments(x);
                    burn_conv2d(x, weight, bias, options(conv))
                },
            );
        }
    }

    #[test]
    fn convolution_without_bias_matches() {
        let conv = Conv { padding: [1, 1], ..Conv::default() };
        let inputs = [values(3 * 5 * 3, 1), values(2 * 3 * 9, 2)];
        let arguments = |x: &[Tensor<1>]| (x[0].clone().reshape([1, 3, 5, 3]), x[1].clone().reshape([2, 3, 3, 3]));
        check(
            &inputs,
            |x| {
                let (x, weight) = arguments(x);
                conv2d(x, weight, None, conv)
            },
            |x| {
                let (x, weight) = arguments(x);
                burn_conv2d(x, weight, None, options(conv))
            },
        );
    }

    #[test]
    fn only_tracked_inputs_get_gradients() {
        let device = Device::libtorch().autodiff();
        for tracked in [[true, false], [false, true], [false, false]] {
            let x = constant(&values(2 * 9, 1), [1, 2, 3, 3], &device).set_require_grad(tracked[0]);
            let weight = constant(&values(2 * 2, 2), [2, 2, 1, 1], &device).set_require_grad(tracked[1]);
            let y = conv2d(x.clone(), weight.clone(), None, Conv::default());
            assert_eq!(y.is_tracked(), tracked.contains(&true));
            if y.is_tracked() {
                let mut grads = y.sum().backward();
                assert_eq!([gradient(&x, &mut grads).is_some(), gradient(&weight, &mut grads).is_some()], tracked);
            }
        }
    }

    #[test]
    fn a_constant_of_the_plain_device_mixes_with_tracked_parameters() {
        let x = constant(&values(2 * 9, 1), [1, 2, 3, 3], &Device::libtorch());
        let weight = constant(&values(2 * 2, 2), [2, 2, 1, 1], &Device::libtorch().autodiff()).require_grad();
        let mut grads = conv2d(x, weight.clone(), None, Conv::default()).sum().backward();
        assert!(gradient(&weight, &mut grads).is_some());
    }

    #[test]
    fn half_precision_activations_take_parameters_of_full_precision() {
        let device = Device::libtorch().autodiff();
        let float = |count, seed| tch::Tensor::from_slice(&values(count, seed)).to_kind(tch::Kind::Float);
        let x: Tensor<4> = from_tch(float(2 * 25, 1).view([1, 2, 5, 5]), &device);
        let narrow: Tensor<4> = from_tch(to_tch(&x).to_kind(tch::Kind::BFloat16), &device);
        let weight = from_tch::<4, _>(float(2 * 2 * 9, 2).view([2, 2, 3, 3]), &device).require_grad();
        let bias = from_tch::<1, _>(float(2, 3), &device).require_grad();
        let exact = conv2d(x, weight.clone(), Some(bias.clone()), Conv::default());
        let y = conv2d(narrow, weight.clone(), Some(bias.clone()), Conv::default());
        assert_eq!(to_tch(&y).kind(), tch::Kind::BFloat16);
        for (a, b) in flat(&y).iter().zip(flat(&exact)) {
            assert!((a - b).abs() < 0.2, "{a} against {b}");
        }
        let mut grads = y.sum().backward();
        for kind in [gradient(&weight, &mut grads), gradient(&bias, &mut grads)].map(|it| it.expect("a gradient").kind()) {
            assert_eq!(kind, tch::Kind::Float);
        }
    }

    #[test]
    fn channels_last_stays_channels_last() {
        let device = Device::libtorch();
        let x = tch::Tensor::from_slice(&values(8 * 36, 1)).view([1, 8, 6, 6]).to_kind(tch::Kind::Float);
        let last: Tensor<4> = from_tch(x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]), &device);
        let weight = tch::Tensor::from_slice(&values(8 * 8 * 9, 2)).view([8, 8, 3, 3]).to_kind(tch::Kind::Float);
        let y = conv2d(last, from_tch(weight, &device), None, Conv { padding: [1, 1], ..Conv::default() });
        assert_eq!(to_tch(&y).stride(), [288, 1, 48, 8]);
    }

    #[test]
    #[should_panic(expected = "conv2d: the input has 3 channels")]
    fn a_wrong_number_of_channels_is_named() {
        let device = Device::libtorch();
        conv2d(Tensor::zeros([1, 3, 4, 4], &device), Tensor::zeros([2, 4, 1, 1], &device), None, Conv::default());
    }

    #[test]
    fn a_kernel_larger_than_its_input_is_named() {
        let device = Device::libtorch();
        let conv = Conv { dilation: [2, 2], ..Conv::default() };
        let (x, weight) = (Tensor::zeros([1, 3, 4, 4], &device), Tensor::zeros([2, 3, 3, 3], &device));
        let error = refused(|| conv2d(x, weight, None, conv));
        assert!(error.starts_with("conv2d of [1, 3, 4, 4], [2, 3, 3, 3]: a kernel that reaches over 5 pixels"), "{error}");
    }
}
