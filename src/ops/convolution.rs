//! 2-d convolution, also transposed, with ATen's own backward, which computes only the gradients
//! that are wanted.

use burn::tensor::Tensor;
use segslurm_native::call::{Arg, call, call1};

use super::border::Handle;
use super::count;
use super::error::{computed, refuse};
use super::function::{Function, apply};

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

/// Convolves `x` `[n, in, h, w]` with `weight` `[out, in / groups, kh, kw]` and adds `bias`
/// `[out]`; gives `[n, out, h', w']`.
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>, conv: Conv) -> Tensor<4> {
    let ([_, channels, height, width], [out, per_group, kh, kw]) = (x.dims(), weight.dims());
    assert!(
        conv.groups > 0 && per_group * conv.groups == channels && out % conv.groups == 0,
        "conv2d: the input has {channels} channels, but a weight of shape {:?} with {} groups \
         takes {}",
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
                "a kernel that reaches over {reach} pixels does not fit an input of \
                 {height}x{width} padded by {padding:?} with stride {stride:?}"
            );
            refuse("conv2d", &shapes, &why);
        }
    }
    match bias {
        None => apply([x.into(), weight.into()], Convolve(conv)),
        Some(bias) => {
            assert_eq!(
                bias.dims(),
                [out],
                "conv2d: the bias has {:?} entries, the weight {out} outputs",
                bias.dims()
            );
            apply([x.into(), weight.into(), bias.into()], Convolve(conv))
        }
    }
}

/// The transposed convolution: `x` `[n, in, h, w]` with `weight` `[in, out / groups, kh, kw]` gives
/// `[n, out, (h - 1) stride - 2 padding + dilation (kh - 1) + output_padding + 1, …]`.
pub fn conv_transpose2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    conv: Conv,
    output_padding: [usize; 2],
) -> Tensor<4> {
    let ([_, channels, ..], [input, ..]) = (x.dims(), weight.dims());
    assert!(
        conv.groups > 0 && input == channels && channels % conv.groups == 0,
        "conv_transpose2d: the input has {channels} channels, but a weight of shape {:?} with {} \
         groups takes {input}",
        weight.dims(),
        conv.groups
    );
    let function = Transposed { conv, output_padding };
    match bias {
        None => apply([x.into(), weight.into()], function),
        Some(bias) => apply([x.into(), weight.into(), bias.into()], function),
    }
}

#[derive(Debug, Clone, Copy)]
struct Convolve(Conv);

#[derive(Debug, Clone, Copy)]
struct Transposed {
    conv: Conv,
    output_padding: [usize; 2],
}

#[derive(Debug, Clone)]
struct Saved {
    x: Handle,
    weight: Handle,
}

impl Convolve {
    fn run(self, x: &Handle, weight: &Handle, bias: Option<&Handle>) -> Handle {
        let Conv { stride, padding, dilation, groups } = self.0;
        let y = x.f_conv2d(
            weight,
            bias.map(|it| &**it),
            int(stride),
            int(padding),
            int(dilation),
            groups as i64,
        );
        Handle::new(computed("conv2d", [x, weight], y))
    }
}

impl Transposed {
    fn run(self, x: &Handle, weight: &Handle, bias: Option<&Handle>) -> Handle {
        let Conv { stride, padding, dilation, groups } = self.conv;
        let (stride, padding, dilation) = (int(stride), int(padding), int(dilation));
        let output_padding = int(self.output_padding);
        let arguments: [Arg; 9] = [
            (&**x).into(),
            (&**weight).into(),
            bias.map(|it| &**it).into(),
            (&stride).into(),
            (&padding).into(),
            (&dilation).into(),
            true.into(),
            (&output_padding).into(),
            (groups as i64).into(),
        ];
        Handle::new(computed(
            "conv_transpose2d",
            [x, weight],
            call1(c"aten::convolution", &arguments),
        ))
    }
}

/// Gradients of input, weight and bias.
fn grads(
    saved: &Saved,
    grad: &Handle,
    mask: [bool; 3],
    conv: Conv,
    transposed: Option<[usize; 2]>,
    out: i64,
) -> [Option<Handle>; 3] {
    let Conv { stride, padding, dilation, groups } = conv;
    let Saved { x, weight } = saved;
    let (bias, stride, padding, dilation) = ([out], int(stride), int(padding), int(dilation));
    let output_padding = int(transposed.unwrap_or_default());
    let arguments: [Arg; 11] = [
        (&**grad).into(),
        (&**x).into(),
        (&**weight).into(),
        (&bias).into(),
        (&stride).into(),
        (&padding).into(),
        (&dilation).into(),
        transposed.is_some().into(),
        (&output_padding).into(),
        (groups as i64).into(),
        (&mask).into(),
    ];
    let grads = call(c"aten::convolution_backward", &arguments)
        .and_then(|mut it| Ok([it.optional()?, it.optional()?, it.optional()?]));
    computed("conv2d backward", [grad, x, weight], grads).map(|it| it.map(Handle::new))
}

fn int(pair: [usize; 2]) -> [i64; 2] {
    pair.map(|it| it as i64)
}

/// Images times pixels.
fn places(shape: &[i64]) -> u64 {
    count::values(&[shape[0], shape[2], shape[3]])
}

/// The two operations, with and without a bias.
macro_rules! functions {
    ($($type:ident: $name:literal, $run:expr, $grads:expr, $cost:expr;)*) => {$(
        impl Function<2> for $type {
            const NAME: &'static str = $name;

            fn multiply_adds(&self, [x, weight]: [&[i64]; 2], output: &[i64]) -> u64 {
                $cost(x, weight, output)
            }

            type Saved = Saved;

            fn forward(&self, [x, weight]: [Handle; 2], _: [bool; 2]) -> (Handle, Saved) {
                ($run(self, &x, &weight, None), Saved { x, weight })
            }

            fn backward(&self, saved: Saved, grad: Handle, [x, weight]: [bool; 2]) -> [Option<Handle>; 2] {
                let [x, weight, _] = $grads(self, &saved, &grad, [x, weight, false]);
                [x, weight]
            }
        }

        impl Function<3> for $type {
            const NAME: &'static str = $name;

            fn multiply_adds(&self, [x, weight, _]: [&[i64]; 3], output: &[i64]) -> u64 {
                $cost(x, weight, output)
            }

            type Saved = Saved;

            fn forward(&self, [x, weight, bias]: [Handle; 3], _: [bool; 3]) -> (Handle, Saved) {
                ($run(self, &x, &weight, Some(&bias)), Saved { x, weight })
            }

            fn backward(&self, saved: Saved, grad: Handle, mask: [bool; 3]) -> [Option<Handle>; 3] {
                $grads(self, &saved, &grad, mask)
            }
        }
    )*};
}

functions! {
    Convolve: "conv2d",
        |it: &Self, x, weight, bias| it.run(x, weight, bias),
        |it: &Self, saved: &Saved, grad, mask| grads(saved, grad, mask, it.0, None, saved.weight.size()[0]),
        |_: &[i64], weight: &[i64], output: &[i64]| places(output) * count::values(weight);
    Transposed: "conv_transpose2d",
        |it: &Self, x, weight, bias| it.run(x, weight, bias),
        |it: &Self, saved: &Saved, grad, mask| {
            let out = saved.weight.size()[1] * it.conv.groups as i64;
            grads(saved, grad, mask, it.conv, Some(it.output_padding), out)
        },
        |x: &[i64], weight: &[i64], _: &[i64]| places(x) * count::values(weight);
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
            let inputs =
                [values(2 * 2 * 5 * 7, 1), values(weight.iter().product(), 2), values(4, 3)];
            let arguments = |x: &[Tensor<1>]| {
                (
                    x[0].clone().reshape([2, 2, 5, 7]),
                    x[1].clone().reshape(weight),
                    Some(x[2].clone()),
                )
            };
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
        let arguments = |x: &[Tensor<1>]| {
            (x[0].clone().reshape([1, 3, 5, 3]), x[1].clone().reshape([2, 3, 3, 3]))
        };
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
    fn a_transposed_convolution_and_its_gradients_match() {
        use burn::tensor::module::conv_transpose2d as burn_conv_transpose2d;
        use burn::tensor::ops::ConvTransposeOptions;
        for (conv, output_padding) in [
            (Conv { stride: [2, 2], ..Conv::default() }, [0, 0]),
            (Conv { stride: [2, 3], padding: [1, 0], ..Conv::default() }, [1, 2]),
            (Conv { stride: [2, 2], padding: [1, 1], groups: 2, ..Conv::default() }, [1, 1]),
        ] {
            let weight = [4, 3, 3, 2];
            let inputs = [
                values(2 * 4 * 3 * 4, 1),
                values(weight.iter().product(), 2),
                values(3 * conv.groups, 3),
            ];
            let arguments = |x: &[Tensor<1>]| {
                (
                    x[0].clone().reshape([2, 4, 3, 4]),
                    x[1].clone().reshape(weight),
                    Some(x[2].clone()),
                )
            };
            let options = ConvTransposeOptions::new(
                conv.stride,
                conv.padding,
                output_padding,
                conv.dilation,
                conv.groups,
            );
            check(
                &inputs,
                |x| {
                    let (x, weight, bias) = arguments(x);
                    conv_transpose2d(x, weight, bias, conv, output_padding)
                },
                |x| {
                    let (x, weight, bias) = arguments(x);
                    burn_conv_transpose2d(x, weight, bias, options.clone())
                },
            );
        }
    }

    #[test]
    fn only_tracked_inputs_get_gradients() {
        let device = Device::libtorch().autodiff();
        for tracked in [[true, false], [false, true], [false, false]] {
            let x = constant(&values(2 * 9, 1), [1, 2, 3, 3], &device).set_require_grad(tracked[0]);
            let weight =
                constant(&values(2 * 2, 2), [2, 2, 1, 1], &device).set_require_grad(tracked[1]);
            let y = conv2d(x.clone(), weight.clone(), None, Conv::default());
            assert_eq!(y.is_tracked(), tracked.contains(&true));
            if y.is_tracked() {
                let mut grads = y.sum().backward();
                assert_eq!(
                    [gradient(&x, &mut grads).is_some(), gradient(&weight, &mut grads).is_some()],
                    tracked
                );
            }
        }
    }

    #[test]
    fn a_constant_of_the_plain_device_mixes_with_tracked_parameters() {
        let x = constant(&values(2 * 9, 1), [1, 2, 3, 3], &Device::libtorch());
        let weight = constant(&values(2 * 2, 2), [2, 2, 1, 1], &Device::libtorch().autodiff())
            .require_grad();
        let mut grads = conv2d(x, weight.clone(), None, Conv::default()).sum().backward();
        assert!(gradient(&weight, &mut grads).is_some());
    }

    #[test]
    fn half_precision_activations_take_parameters_of_full_precision() {
        let device = Device::libtorch().autodiff();
        let float =
            |count, seed| tch::Tensor::from_slice(&values(count, seed)).to_kind(tch::Kind::Float);
        let x: Tensor<4> = from_tch(float(2 * 25, 1).view([1, 2, 5, 5]), &device);
        let narrow: Tensor<4> = from_tch(to_tch(&x).to_kind(tch::Kind::BFloat16), &device);
        let weight =
            from_tch::<4, _>(float(2 * 2 * 9, 2).view([2, 2, 3, 3]), &device).require_grad();
        let bias = from_tch::<1, _>(float(2, 3), &device).require_grad();
        let exact = conv2d(x, weight.clone(), Some(bias.clone()), Conv::default());
        let y = conv2d(narrow, weight.clone(), Some(bias.clone()), Conv::default());
        assert_eq!(to_tch(&y).kind(), tch::Kind::BFloat16);
        for (a, b) in flat(&y).iter().zip(flat(&exact)) {
            assert!((a - b).abs() < 0.2, "{a} against {b}");
        }
        let mut grads = y.sum().backward();
        for kind in [gradient(&weight, &mut grads), gradient(&bias, &mut grads)]
            .map(|it| it.expect("a gradient").kind())
        {
            assert_eq!(kind, tch::Kind::Float);
        }
    }

    #[test]
    fn channels_last_stays_channels_last() {
        let device = Device::libtorch();
        let x = tch::Tensor::from_slice(&values(8 * 36, 1))
            .view([1, 8, 6, 6])
            .to_kind(tch::Kind::Float);
        let last: Tensor<4> =
            from_tch(x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]), &device);
        let weight = tch::Tensor::from_slice(&values(8 * 8 * 9, 2))
            .view([8, 8, 3, 3])
            .to_kind(tch::Kind::Float);
        let y = conv2d(
            last,
            from_tch(weight, &device),
            None,
            Conv { padding: [1, 1], ..Conv::default() },
        );
        assert_eq!(to_tch(&y).stride(), [288, 1, 48, 8]);
    }

    #[test]
    #[should_panic(expected = "conv2d: the input has 3 channels")]
    fn a_wrong_number_of_channels_is_named() {
        let device = Device::libtorch();
        conv2d(
            Tensor::zeros([1, 3, 4, 4], &device),
            Tensor::zeros([2, 4, 1, 1], &device),
            None,
            Conv::default(),
        );
    }

    #[test]
    fn a_kernel_larger_than_its_input_is_named() {
        let device = Device::libtorch();
        let conv = Conv { dilation: [2, 2], ..Conv::default() };
        let (x, weight) =
            (Tensor::zeros([1, 3, 4, 4], &device), Tensor::zeros([2, 3, 3, 3], &device));
        let error = refused(|| conv2d(x, weight, None, conv));
        assert!(
            error.starts_with(
                "conv2d of [1, 3, 4, 4], [2, 3, 3, 3]: a kernel that reaches over 5 pixels"
            ),
            "{error}"
        );
    }
}
