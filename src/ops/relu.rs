//! ReLU and the residual sum: one pass forward, in place where nobody would notice, and a backward
//! from the output alone.

use burn::tensor::Tensor;

use super::border::Handle;
use super::error::computed;
use super::function::{Function, apply};

/// `max(x, 0)`, written over `x` when that is the last handle to its storage.
pub fn relu(x: Tensor<4>) -> Tensor<4> {
    apply([x.into()], Relu)
}

/// `max(a + b, 0)` of two tensors of one shape, written over `a` (else `b`) when that is the last
/// handle to its storage.
pub fn add_relu(a: Tensor<4>, b: Tensor<4>) -> Tensor<4> {
    assert_eq!(a.dims(), b.dims(), "add_relu: the two shapes differ");
    apply([a.into(), b.into()], AddRelu)
}

/// The gradient where `output` is positive, else zero; written over `grad` when that is the last
/// handle to its storage.
pub(super) fn rectify_grad(grad: Handle, output: &Handle) -> Handle {
    if grad.is_exclusive() {
        computed(
            "relu backward",
            [&grad, output],
            output.f_threshold_backward_grad_input(&grad, &grad, 0.0).map(drop),
        );
        return grad;
    }
    Handle::new(computed("relu backward", [&grad, output], output.f_threshold_backward(&grad, 0.0)))
}

#[derive(Debug, Clone, Copy)]
struct Relu;

impl Function<1> for Relu {
    const NAME: &'static str = "relu";

    type Saved = Handle;

    fn forward(&self, [mut x]: [Handle; 1], _: [bool; 1]) -> (Handle, Handle) {
        if x.is_exclusive() {
            let result = x.f_relu_().map(drop);
            computed("relu", [&x], result);
            return (x.clone(), x);
        }
        let y = Handle::new(computed("relu", [&x], x.f_relu()));
        (y.clone(), y)
    }

    fn backward(&self, y: Handle, grad: Handle, _: [bool; 1]) -> [Option<Handle>; 1] {
        [Some(rectify_grad(grad, &y))]
    }
}

#[derive(Debug, Clone, Copy)]
struct AddRelu;

impl Function<2> for AddRelu {
    const NAME: &'static str = "add_relu";

    type Saved = Handle;

    fn forward(&self, [a, b]: [Handle; 2], _: [bool; 2]) -> (Handle, Handle) {
        let (a, b) = if !a.is_exclusive() && b.is_exclusive() { (b, a) } else { (a, b) };
        let mut y = a;
        if y.is_exclusive() {
            let sum = y.f_add_(&b).map(drop);
            computed("add_relu", [&y, &b], sum);
        } else {
            y = Handle::new(computed("add_relu", [&y, &b], y.f_add(&b)));
        }
        let rectified = y.f_relu_().map(drop);
        computed("add_relu", [&y, &b], rectified);
        (y.clone(), y)
    }

    fn backward(&self, y: Handle, grad: Handle, tracked: [bool; 2]) -> [Option<Handle>; 2] {
        let grad = rectify_grad(grad, &y);
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
        let parents = |x: &[Tensor<1>]| {
            (x[0].clone().reshape(SHAPE) * 2.0, x[1].clone().reshape(SHAPE) * 3.0)
        };
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
            let (x, other) = (
                constant(&values(30, 1), SHAPE, &device),
                constant(&values(30, 2), SHAPE, &device),
            );
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
        let x: Tensor<4> =
            from_tch(to_tch(&constant(&values(30, 1), SHAPE, &device)).copy(), &device);
        let place = to_tch(&x).data_ptr();
        let y = relu(x);
        assert_eq!(to_tch(&y).data_ptr(), place);
        let kept = constant(&values(30, 2), SHAPE, &device);
        let sum = add_relu(kept.clone(), y);
        assert_eq!(
            to_tch(&sum).data_ptr(),
            place,
            "the other parent is written over when the first is shared"
        );
    }

    #[test]
    fn repeated_elements_are_not_written_over() {
        let device = Device::libtorch();
        let row = tch::Tensor::from_slice(&[-1.0_f64, 2.0])
            .view([1, 1, 1, 2])
            .expand([1, 1, 3, 2], false);
        assert_eq!(flat(&relu(from_tch(row, &device))), [0.0, 2.0, 0.0, 2.0, 0.0, 2.0]);
    }
}
