//! Products: a linear layer, and batched matrices.

use burn::tensor::Tensor;

use super::border::Handle;
use super::count;
use super::error::computed;
use super::function::{Function, apply};

/// `x · weightᵀ + bias` along the last axis of `x` `[…, in]`, with `weight` `[out, in]` and `bias`
/// `[out]`.
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let (shape, [out, input]) = (x.dims(), weight.dims());
    assert_eq!(
        shape[D - 1],
        input,
        "linear: the input has {} features, the weight takes {input}",
        shape[D - 1]
    );
    match bias {
        None => apply([x.into(), weight.into()], Linear),
        Some(bias) => {
            assert_eq!(
                bias.dims(),
                [out],
                "linear: the bias has {:?} entries, the weight {out} outputs",
                bias.dims()
            );
            apply([x.into(), weight.into(), bias.into()], Linear)
        }
    }
}

/// The products of the matrices `a` `[…, m, k]` and `b` `[…, k, n]`; leading axes broadcast.
pub fn matmul<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    apply([a.into(), b.into()], Matmul)
}

#[derive(Debug, Clone, Copy)]
struct Linear;

#[derive(Debug, Clone)]
struct Saved {
    x: Handle,
    weight: Handle,
}

impl Linear {
    fn grads(saved: &Saved, grad: &Handle, [x, weight, bias]: [bool; 3]) -> [Option<Handle>; 3] {
        let (features, outputs) = (saved.weight.size()[1], saved.weight.size()[0]);
        let rows = grad.reshape([-1, outputs]);
        let product = |result: Result<tch::Tensor, tch::TchError>| {
            Handle::new(computed("linear backward", [grad], result))
        };
        [
            x.then(|| product(grad.f_matmul(&saved.weight))),
            weight.then(|| {
                product(
                    rows.f_transpose(0, 1)
                        .and_then(|it| it.f_matmul(&saved.x.reshape([-1, features]))),
                )
            }),
            bias.then(|| product(rows.f_sum_dim_intlist([0i64].as_slice(), false, None))),
        ]
    }
}

impl Function<2> for Linear {
    const NAME: &'static str = "linear";

    fn multiply_adds(&self, [_, weight]: [&[i64]; 2], output: &[i64]) -> u64 {
        count::values(output) * weight[1].unsigned_abs()
    }

    type Saved = Saved;

    fn forward(&self, [x, weight]: [Handle; 2], _: [bool; 2]) -> (Handle, Saved) {
        let y = computed("linear", [&x, &weight], x.f_linear(&weight, None::<&tch::Tensor>));
        (Handle::new(y), Saved { x, weight })
    }

    fn backward(&self, saved: Saved, grad: Handle, [x, weight]: [bool; 2]) -> [Option<Handle>; 2] {
        let [x, weight, _] = Self::grads(&saved, &grad, [x, weight, false]);
        [x, weight]
    }
}

impl Function<3> for Linear {
    const NAME: &'static str = "linear";

    fn multiply_adds(&self, [_, weight, _]: [&[i64]; 3], output: &[i64]) -> u64 {
        count::values(output) * weight[1].unsigned_abs()
    }

    type Saved = Saved;

    fn forward(&self, [x, weight, bias]: [Handle; 3], _: [bool; 3]) -> (Handle, Saved) {
        let y = computed("linear", [&x, &weight], x.f_linear(&weight, Some(&*bias)));
        (Handle::new(y), Saved { x, weight })
    }

    fn backward(&self, saved: Saved, grad: Handle, mask: [bool; 3]) -> [Option<Handle>; 3] {
        Self::grads(&saved, &grad, mask)
    }
}

#[derive(Debug, Clone, Copy)]
struct Matmul;

/// `grad` summed over the leading axes that were broadcast.
fn unbroadcast(grad: tch::Tensor, shape: &[i64]) -> tch::Tensor {
    if grad.size() == shape { grad } else { grad.sum_to_size(shape) }
}

impl Function<2> for Matmul {
    const NAME: &'static str = "matmul";

    fn multiply_adds(&self, [a, _]: [&[i64]; 2], output: &[i64]) -> u64 {
        count::values(output) * a.last().map_or(0, |it| it.unsigned_abs())
    }

    type Saved = [Handle; 2];

    fn forward(&self, [a, b]: [Handle; 2], _: [bool; 2]) -> (Handle, [Handle; 2]) {
        (Handle::new(computed("matmul", [&a, &b], a.f_matmul(&b))), [a, b])
    }

    fn backward(
        &self,
        [a, b]: [Handle; 2],
        grad: Handle,
        tracked: [bool; 2],
    ) -> [Option<Handle>; 2] {
        let of = |result: Result<tch::Tensor, tch::TchError>, like: &Handle| {
            Handle::new(unbroadcast(computed("matmul backward", [&grad], result), &like.size()))
        };
        [
            tracked[0].then(|| of(grad.f_matmul(&b.transpose(-2, -1)), &a)),
            tracked[1].then(|| of(a.transpose(-2, -1).f_matmul(&grad), &b)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::{check, values};
    use super::*;

    #[test]
    fn a_linear_layer_matches_a_product_with_and_without_bias() {
        for with_bias in [true, false] {
            let arguments = |x: &[Tensor<1>]| {
                (x[0].clone().reshape([2, 3, 4]), x[1].clone().reshape([5, 4]), x[2].clone())
            };
            check(
                &[values(24, 1), values(20, 2), values(5, 3)],
                |x| {
                    let (x, weight, bias) = arguments(x);
                    if with_bias {
                        linear(x, weight, Some(bias))
                    } else {
                        linear(x, weight, None) + bias.reshape([1, 1, 5])
                    }
                },
                |x| {
                    let (x, weight, bias) = arguments(x);
                    x.matmul(weight.transpose().unsqueeze()) + bias.reshape([1, 1, 5])
                },
            );
        }
    }

    #[test]
    fn products_of_batches_match_burn_where_axes_broadcast_too() {
        for rows in [2, 1] {
            let arguments = |x: &[Tensor<1>]| {
                (x[0].clone().reshape([2, 3, 4]), x[1].clone().reshape([rows, 4, 5]))
            };
            check(
                &[values(24, 1), values(rows * 20, 2)],
                |x| {
                    let (a, b) = arguments(x);
                    matmul(a, b)
                },
                |x| {
                    let (a, b) = arguments(x);
                    a.matmul(b)
                },
            );
        }
    }
}
