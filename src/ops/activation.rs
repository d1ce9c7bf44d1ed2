//! Activations, elementwise. Those whose gradient follows from their output alone can be computed
//! over the output of what came before, which then needs no memory of their own: a norm does so
//! ([`batch_norm`](super::batch_norm)).

use burn::tensor::Tensor;
use segslurm_native::NativeError;
use segslurm_native::call::{Arg, call, call1};

use super::border::Handle;
use super::error::computed;
use super::function::{Function, apply};
use super::relu::rectify_grad;

/// What follows a layer.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Activation {
    #[default]
    None,
    ReLU,
    ReLU6,
    /// `x` where it is positive, else `slope · x`.
    LeakyReLU {
        slope: f64,
    },
    /// `x` where it is positive, else `alpha (eˣ - 1)`.
    ELU {
        alpha: f64,
    },
    Sigmoid,
    Tanh,
    /// `x` times the normal distribution's share below it; `tanh` approximates that (Hendrycks and
    /// Gimpel 2016).
    GELU {
        tanh: bool,
    },
    /// `x · sigmoid(x)`, also called Swish.
    SiLU,
    /// `x · ReLU6(x + 3) / 6` (Howard et al. 2019).
    HSwish,
    /// `(x + bias) / divisor`, kept from `min` to `max`: mmcv's.
    HSigmoid {
        bias: f64,
        divisor: f64,
        min: f64,
        max: f64,
    },
}

impl Activation {
    /// Whether the output alone says what the gradient is.
    pub(super) fn follows_from_output(self) -> bool {
        match self {
            Self::None | Self::ReLU | Self::ReLU6 | Self::Sigmoid | Self::Tanh => true,
            Self::LeakyReLU { slope } => slope > 0.0,
            Self::ELU { alpha } => alpha >= 0.0,
            Self::GELU { .. } | Self::SiLU | Self::HSwish | Self::HSigmoid { .. } => false,
        }
    }

    /// Computes it over `x`; only for those that follow from their output.
    pub(super) fn write(self, x: &mut Handle) {
        let done = match self {
            Self::None => return,
            Self::ReLU => x.f_relu_().map(drop).map_err(|it| NativeError(it.to_string())),
            _ => self.call_in_place(x),
        };
        computed("activation", [&*x], done);
    }

    fn call_in_place(self, x: &tch::Tensor) -> Result<(), NativeError> {
        let x = Arg::from(x);
        match self {
            Self::ReLU6 => call(c"aten::hardtanh_", &[x, 0.0.into(), 6.0.into()]),
            Self::LeakyReLU { slope } => call(c"aten::leaky_relu_", &[x, slope.into()]),
            Self::ELU { alpha } => call(c"aten::elu_", &[x, alpha.into()]),
            Self::Sigmoid => call(c"aten::sigmoid_", &[x]),
            Self::Tanh => call(c"aten::tanh_", &[x]),
            _ => return Err(NativeError(format!("{self:?} does not follow from its output"))),
        }
        .map(drop)
    }

    fn run(self, x: &tch::Tensor) -> Result<tch::Tensor, NativeError> {
        let given = Arg::from(x);
        match self {
            Self::GELU { tanh } => call1(c"aten::gelu", &[given, approximation(tanh).into()]),
            Self::SiLU => call1(c"aten::silu", &[given]),
            Self::HSwish => call1(c"aten::hardswish", &[given]),
            Self::HSigmoid { bias, divisor, min, max } => {
                let mut y = (x + bias) / divisor;
                let _ = y.clamp_(min, max);
                Ok(y)
            }
            _ => {
                let y = x.copy();
                self.call_in_place(&y)?;
                Ok(y)
            }
        }
    }

    /// The gradient of the input from that of the output; `kept` is the output where it says
    /// enough, else the input.
    pub(super) fn grad(self, grad: Handle, kept: &Handle) -> Handle {
        if self == Self::ReLU {
            return rectify_grad(grad, kept);
        }
        let (g, k) = (Arg::from(&*grad), Arg::from(&**kept));
        let result = match self {
            Self::None | Self::ReLU => return grad,
            Self::ReLU6 => call1(c"aten::hardtanh_backward", &[g, k, 0.0.into(), 6.0.into()]),
            Self::LeakyReLU { slope } => {
                call1(c"aten::leaky_relu_backward", &[g, k, slope.into(), (slope > 0.0).into()])
            }
            Self::ELU { alpha } => call1(
                c"aten::elu_backward",
                &[g, alpha.into(), 1.0.into(), 1.0.into(), (alpha >= 0.0).into(), k],
            ),
            Self::Sigmoid => call1(c"aten::sigmoid_backward", &[g, k]),
            Self::Tanh => call1(c"aten::tanh_backward", &[g, k]),
            Self::GELU { tanh } => {
                call1(c"aten::gelu_backward", &[g, k, approximation(tanh).into()])
            }
            Self::SiLU => call1(c"aten::silu_backward", &[g, k]),
            Self::HSwish => call1(c"aten::hardswish_backward", &[g, k]),
            Self::HSigmoid { bias, divisor, min, max } => {
                let line = (&**kept + bias) / divisor;
                call1(c"aten::hardtanh_backward", &[g, (&line).into(), min.into(), max.into()])
                    .map(|it| it / divisor)
            }
        };
        Handle::new(computed("activation backward", [&grad, kept], result))
    }
}

fn approximation(tanh: bool) -> &'static str {
    if tanh { "tanh" } else { "none" }
}

/// `activation` of `x`, over its storage where that is the last handle and the gradient follows
/// from the output.
pub fn activate<const D: usize>(x: Tensor<D>, activation: Activation) -> Tensor<D> {
    if activation == Activation::None { x } else { apply([x.into()], activation) }
}

/// `x` `[n, c, …]` where it is positive, else times `weight`: one slope `[1]`, or one for each
/// channel `[c]` (He et al. 2015).
pub fn prelu<const D: usize>(x: Tensor<D>, weight: Tensor<1>) -> Tensor<D> {
    let ([slopes], channels) = (weight.dims(), x.dims()[1]);
    assert!(slopes == 1 || slopes == channels, "prelu: {slopes} slopes for {channels} channels");
    apply([x.into(), weight.into()], PReLU)
}

#[derive(Debug, Clone, Copy)]
struct PReLU;

impl Function<2> for PReLU {
    const NAME: &'static str = "prelu";

    type Saved = [Handle; 2];

    fn forward(&self, [x, weight]: [Handle; 2], _: [bool; 2]) -> (Handle, [Handle; 2]) {
        let y = computed("prelu", [&x, &weight], x.f_prelu(&weight.to_kind(x.kind())));
        (Handle::new(y), [x, weight])
    }

    fn backward(
        &self,
        [x, weight]: [Handle; 2],
        grad: Handle,
        tracked: [bool; 2],
    ) -> [Option<Handle>; 2] {
        // Each channel's slope, beside the values that it is for.
        let mut shape = vec![1; x.dim()];
        shape[1] = weight.size()[0];
        let slopes = weight.to_kind(x.kind()).view(&shape[..]);
        let result = call(
            c"aten::_prelu_kernel_backward",
            &[(&*grad).into(), (&*x).into(), (&slopes).into()],
        )
        .and_then(|mut it| Ok([it.tensor()?, it.tensor()?]));
        let [of_x, of_slopes] = computed("prelu backward", [&grad, &x], result);
        let of_weight =
            || Handle::new(of_slopes.sum_to_size(&shape[..]).view(-1).to_kind(weight.kind()));
        [tracked[0].then(|| Handle::new(of_x)), tracked[1].then(of_weight)]
    }
}

impl Function<1> for Activation {
    const NAME: &'static str = "activation";

    type Saved = Handle;

    fn forward(&self, [mut x]: [Handle; 1], _: [bool; 1]) -> (Handle, Handle) {
        if self.follows_from_output() {
            if !x.is_exclusive() {
                x = Handle::new(x.copy());
            }
            self.write(&mut x);
            return (x.clone(), x);
        }
        let y = computed("activation", [&x], self.run(&x));
        (Handle::new(y), x)
    }

    fn backward(&self, kept: Handle, grad: Handle, _: [bool; 1]) -> [Option<Handle>; 1] {
        [Some(self.grad(grad, &kept))]
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Tensor, activation as burn_activation};

    use super::super::reference::{check, values};
    use super::*;

    /// In products alone: Burn divides gradients in `f32`.
    fn reference(x: Tensor<2>, activation: Activation) -> Tensor<2> {
        match activation {
            Activation::None => x,
            Activation::ReLU => burn_activation::relu(x),
            Activation::ReLU6 => x.clamp(0.0, 6.0),
            Activation::LeakyReLU { slope } => burn_activation::leaky_relu(x, slope),
            Activation::ELU { alpha } => {
                let negative = (x.clone().clamp(-50.0, 0.0).exp() - 1.0) * alpha;
                x.clamp_min(0.0) + negative
            }
            Activation::Sigmoid => burn_activation::sigmoid(x),
            Activation::Tanh => burn_activation::tanh(x),
            Activation::GELU { tanh: false } => x.clone() * ((x * 0.5f64.sqrt()).erf() + 1.0) * 0.5,
            Activation::GELU { tanh: true } => {
                let inner = (x.clone() + x.clone().powi_scalar(3) * 0.044_715)
                    * (2.0 / std::f64::consts::PI).sqrt();
                x * (inner.tanh() + 1.0) * 0.5
            }
            Activation::SiLU => x.clone() * burn_activation::sigmoid(x),
            Activation::HSwish => x.clone() * (x + 3.0).clamp(0.0, 6.0) * (1.0 / 6.0),
            Activation::HSigmoid { bias, divisor, min, max } => {
                ((x + bias) * (1.0 / divisor)).clamp(min, max)
            }
        }
    }

    #[test]
    fn a_prelu_learns_its_slopes() {
        for slopes in [1, 3] {
            check(
                &[values(24, 1), values(slopes, 2)],
                |x| prelu(x[0].clone().reshape([2, 3, 4]), x[1].clone()),
                |x| {
                    let input = x[0].clone().reshape([2, 3, 4]);
                    burn_activation::relu(input.clone())
                        - burn_activation::relu(-input) * x[1].clone().reshape([1, slopes, 1])
                },
            );
        }
    }

    #[test]
    fn every_activation_matches_its_formula_and_finite_differences_in_place_and_not() {
        let all = [
            Activation::ReLU,
            Activation::ReLU6,
            Activation::LeakyReLU { slope: 0.1 },
            Activation::LeakyReLU { slope: 0.0 },
            Activation::ELU { alpha: 1.5 },
            Activation::Sigmoid,
            Activation::Tanh,
            Activation::GELU { tanh: false },
            Activation::GELU { tanh: true },
            Activation::SiLU,
            Activation::HSwish,
            Activation::HSigmoid { bias: 3.0, divisor: 6.0, min: 0.0, max: 1.0 },
        ];
        for activation in all {
            for in_place in [true, false] {
                check(
                    &[values(40, 1)],
                    |x| {
                        let x = x[0].clone().reshape([5, 8]) * 2.0;
                        if in_place {
                            activate(x, activation)
                        } else {
                            activate(x.clone(), activation) + x * 0.0
                        }
                    },
                    |x| reference(x[0].clone().reshape([5, 8]) * 2.0, activation),
                );
            }
        }
    }
}
