//! ReLU and the residual sum: one pass forward, in place where nobody would notice, and a backward from the output alone.

use burn::tensor::Tensor;
use burn_tch::TchTensor;

use super::error::computed;
use super::function::{Function, binary, is_exclusive, unary};

/// `max(x, 0)`, written over `x` when that is the last handle to its storage.
pub fn relu(x: Tensor<4>) -> Tensor<4> {
    unary(x, Relu)
}

/// `max(a + b, 0)` of two tensors of one shape, written over `a` (else `b`) when that is the last handle to its storage.
pub fn add_relu(a: Tensor<4>, b: Tensor<4>) -> Tensor<4> {
    assert_eq!(a.dims(), b.dims(), "add_relu: the two shapes differ");
    binary(a, b, AddRelu)
}

/// The gradient where `output` is positive, else zero; written over `grad` when that is the last handle to its storage.
pub(super) fn rectify_grad(grad: &TchTensor, output: &TchTensor) -> TchTensor {
    let result = if is_exclusive(grad) {
        output.tensor.f_threshold_backward_grad_input(&grad.tensor, &grad.tensor, 0.0)
    } else {
        output.tensor.f_threshold_backward(&grad.tensor, 0.0)
    };
    TchTensor::new(computed("relu backward", [&grad.tensor, &output.tensor], result))
}

#[derive(Debug, Clone, Copy)]
struct Relu;

impl Function<1> for Relu {
    type Saved = TchTensor;

    fn forward(&self, [mut x]: [TchTensor; 1], _: [bool; 1]) -> (TchTensor, TchTensor) {
        let y = if is_exclusive(&x) { x.tensor.f_relu_() } else { x.tensor.f_relu() };
        let y = TchTensor::new(computed("relu", [&x.tensor], y));
        (y.clone(), y)
    }

    fn backward(&self, y: TchTensor, grad: TchTensor, _: [bool; 1]) -> [Option<TchTensor>; 1] {
        [Some(rectify_grad(&grad, &y))]
    }
}

#[derive(Debug, Clone, Copy)]
struct AddRelu;

impl Function<2> for AddRelu {
    type Saved = TchTensor;

    fn forward(&self, [a, b]: [TchTensor; 2], _: [bool; 2]) -> (TchTensor, TchTensor) {
        let (mut a, b) = if !is_exclusive(&a) && is_exclusive(&b) { (b, a) } else { (a, b) };
        let sum = if is_exclusive(&a) { a.tensor.f_add_(&b.tensor) } else { a.tensor.f_add(&b.tensor) };
        let y = TchTensor::new(computed("add_relu", [&a.tensor, &b.tensor], sum.and_then(|mut sum| sum.f_relu_())));
        (y.clone(), y)
    }

    fn backward(&self, y: TchTensor, grad: TchTensor, tracked: [bool; 2]) -> [Option<TchTensor>; 2] {
        let grad = rectify_grad(&grad, &y);
        tracked.map(|tracked| tracked.then(|| grad.clone()))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, activation};

    use super::super::reference::{check, constant, flat, values};
    use super::super::{from_tch, to_tch};
    use super::*;

    const SHAPE: [usize; 4] = [1, 2, 3, 5];

    #[test]
    fn relu_matches_burn_where_it_may_and_may_not_write_in_place() {
        for in_place in [true, false] {
            check(
                &[values(30, 1)],
                |x| {
                    let x = x[0].clone().reshape(SHAPE) * 2.0;
                    let kept = (!in_place).then(|| x.clone());
                    let y = relu(x);
                    kept.map_or(y.clone(), |kept| y + kept)
                },
                |x| {
                    let x = x[0].clone().reshape(SHAPE) * 2.0;
                    let y = activation::relu(x.clone());
                    if in_place { y } else { y + x }
                },
            );
        }
    }

    #[test]
    fn add_relu_matches_burn_with_shared_and_with_distinct_parents() {
        let inputs = [values(30, 1), values(30, 2)];
        let parents = |x: &[Tensor<1>]| (x[0].clone().reshape(SHAPE) * 2.0, x[1].clone().reshape(SHAPE) * 3.0);
        check(
            &inputs,
            |x| {
                let (a, b) = parents(x);
                let y = add_relu(a, b.clone());
                add_relu(y.clone(), y) + b
            },
            |x| {
                let (a, b) = parents(x);
                let y = activation::relu(a + b.clone());
                activation::relu(y.clone() + y) + b
            },
        );
    }

    #[test]
    fn a_kept_handle_keeps_its_values() {
        for device in [Device::libtorch(), Device::libtorch().autodiff()] {
            let (x, other) = (constant(&values(30, 1), SHAPE, &device), constant(&values(30, 2), SHAPE, &device));
            relu(x.clone());
            add_relu(x.clone(), other.clone());
            assert_eq!((flat(&x), flat(&other)), (values(30, 1), values(30, 2)));
            let view = to_tch(&x);
            relu(x);
            assert_eq!(Vec::<f64>::try_from(view.view(-1)).expect("flat"), values(30, 1));
        }
    }

    #[test]
    fn the_last_handle_is_written_over() {
        let device = Device::libtorch();
        let x: Tensor<4> = from_tch(to_tch(&constant(&values(30, 1), SHAPE, &device)).copy(), &device);
        let place = to_tch(&x).data_ptr();
        let y = relu(x);
        assert_eq!(to_tch(&y).data_ptr(), place);
        let kept = constant(&values(30, 2), SHAPE, &device);
        let sum = add_relu(kept.clone(), y);
        assert_eq!(to_tch(&sum).data_ptr(), place, "the other parent is written over when the first is shared");
    }

    #[test]
    fn repeated_elements_are_not_written_over() {
        let device = Device::libtorch();
        let row = tch::Tensor::from_slice(&[-1.0_f64, 2.0]).view([1, 1, 1, 2]).expand([1, 1, 3, 2], false);
        assert_eq!(flat(&relu(from_tch(row, &device))), [0.0, 2.0, 0.0, 2.0, 0.0, 2.0]);
    }
}
