//! ReLU and the residual sum: one pass forward, in place where nobody would notice, and a backward from the output alone.

use burn::tensor::Tensor;
use burn_tch::TchTensor;

use super::function::{Function, binary, computed, is_exclusive, unary};

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
pub(super) fn rectify_grad(grad: TchTensor, output: &TchTensor) -> TchTensor {
    let result = if is_exclusive(&grad) {
        output.tensor.f_threshold_backward_grad_input(&grad.tensor, &grad.tensor, 0.0)
    } else {
        output.tensor.f_threshold_backward(&grad.tensor, 0.0)
    };
    TchTensor::new(computed("relu backward", result))
}

#[derive(Debug, Clone, Copy)]
struct Relu;

impl Function<1> for Relu {
    type Saved = TchTensor;

    fn forward(&self, [mut x]: [TchTensor; 1], _: [bool; 1]) -> (TchTensor, TchTensor) {
        let y = if is_exclusive(&x) { x.tensor.f_relu_() } else { x.tensor.f_relu() };
        let y = TchTensor::new(computed("relu", y));
        (y.clone(), y)
    }

    fn backward(&self, y: TchTensor, grad: TchTensor, _: [bool; 1]) -> [Option<TchTensor>; 1] {
        [Some(rectify_grad(grad, &y))]
    }
}

#[derive(Debug, Clone, Copy)]
struct AddRelu;

impl Function<2> for AddRelu {
    type Saved = TchTensor;

    fn forward(&self, [a, b]: [TchTensor; 2], _: [bool; 2]) -> (TchTensor, TchTensor) {
        let (mut a, b) = if !is_exclusive(&a) && is_exclusive(&b) { (b, a) } else { (a, b) };
        let sum = if is_exclusive(&a) { a.tensor.f_add_(&b.tensor) } else { a.tensor.f_add(&b.tensor) };
        let y = TchTensor::new(computed("add_relu", sum.and_then(|mut sum| sum.f_relu_())));
        (y.clone(), y)
    }

    fn backward(&self, y: TchTensor, grad: TchTensor, tracked: [bool; 2]) -> [Option<TchTensor>; 2] {
        let grad = rectify_grad(grad, &y);
        tracked.map(|tracked| tracked.then(|| grad.clone()))
    }
}
