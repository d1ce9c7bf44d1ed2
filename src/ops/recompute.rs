//! Gradient checkpointing: a part of the network keeps its input alone, and computes everything
//! inside it again in the backward pass. Time for memory.
//!
//! The second forward runs on a copy of the part whose parameters are leaves of a graph of their
//! own (Burn locks the outer graph while its backward runs) and whose statistics are copies, so
//! that they move once a step as without checkpointing.

use std::fmt;

use burn::backend::autodiff::NodeId;
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Float, Gradients, Int, Tensor};

use super::autocast::{self, Autocast, Half};
use super::border::{Handle, gradient, to_tch};
use super::function::{Function, Reached, apply};
use super::grad_tap;

/// `forward(part, inputs)`, with nothing kept for the backward but the inputs. Where none of them
/// needs a gradient everything is kept, as torch's `checkpoint` does: there is no backward that
/// could compute it again.
pub fn recomputed<M, F, const N: usize, const D: usize, const E: usize>(
    part: &M,
    inputs: [Tensor<D>; N],
    forward: F,
) -> Tensor<E>
where
    M: Module + 'static,
    F: Fn(&M, [Tensor<D>; N]) -> Tensor<E> + Clone + Send + 'static,
{
    if inputs.iter().all(|it| grad_tap::leaf(it).is_none()) {
        return forward(part, inputs);
    }
    apply(
        inputs.map(Into::into),
        Recompute { part: part.clone(), forward, half: autocast::current() },
    )
}

#[derive(Clone)]
struct Recompute<M, F, const D: usize, const E: usize> {
    part: M,
    forward: F,
    /// The precision of the pass, which the backward computes in too.
    half: Option<Half>,
}

impl<M, F, const D: usize, const E: usize> fmt::Debug for Recompute<M, F, D, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recompute")
    }
}

impl<M, F, const N: usize, const D: usize, const E: usize> Function<N> for Recompute<M, F, D, E>
where
    M: Module + 'static,
    F: Fn(&M, [Tensor<D>; N]) -> Tensor<E> + Clone + Send + 'static,
{
    const NAME: &'static str = "recomputed";

    type Saved = [Handle; N];

    fn forward(&self, inputs: [Handle; N], _: [bool; N]) -> (Handle, [Handle; N]) {
        let given = inputs.clone().map(|it| it.into_burn(&Device::libtorch()));
        (Handle::of((self.forward)(&self.part.valid(), given)), inputs)
    }

    fn backward(&self, _: [Handle; N], _: Handle, _: [bool; N]) -> [Option<Handle>; N] {
        unreachable!("the part's parameters get gradients too")
    }

    fn backward_beyond(
        &self,
        saved: [Handle; N],
        grad: Handle,
        tracked: [bool; N],
        reached: Reached,
    ) -> [Option<Handle>; N] {
        let mut tracked = tracked.into_iter();
        let inputs = saved.map(|it| {
            let wanted = tracked.next().unwrap_or_default();
            it.into_burn::<D, Float>(&Device::libtorch().autodiff()).set_require_grad(wanted)
        });
        let _half = Autocast::new(self.half);
        let mut copy = Copy::default();
        let part = self.part.clone().map(&mut copy);
        let y = (self.forward)(&part, inputs.clone());
        let mut grads = apply::<1, 1>([y.into()], Seed(grad)).backward();
        for (outer, take) in copy.leaves {
            if let Some(grad) = take(&mut grads) {
                reached(outer, grad);
            }
        }
        inputs.map(|it| it.is_require_grad().then(|| gradient(&it, &mut grads)).flatten())
    }
}

/// Takes a leaf's gradient out.
type Take = Box<dyn FnOnce(&mut Gradients) -> Option<Handle>>;

/// Makes the copy: parameters become fresh leaves over the same storage, statistics and counters
/// storage of their own.
#[derive(Default)]
struct Copy {
    /// The node that each fresh leaf stands for.
    leaves: Vec<(NodeId, Take)>,
}

impl ModuleMapper for Copy {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let value = param.val();
        let (tensor, device) = (to_tch(&value), Device::libtorch().autodiff());
        let Some(outer) = grad_tap::node(&value) else {
            // Running statistics have one dimension; larger constants are frozen weights, which
            // nothing changes.
            let constant = if D == 1 { Handle::new(tensor.copy()) } else { tensor };
            return Param::initialized(param.id, constant.into_burn(&device));
        };
        let leaf = tensor.into_burn::<D, Float>(&device).require_grad();
        let kept = leaf.clone();
        self.leaves.push((outer, Box::new(move |grads| gradient(&kept, grads))));
        Param::initialized(param.id, leaf)
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        let copy = to_tch(&param.val()).copy();
        Param::initialized(param.id, Handle::new(copy).into_burn(&Device::libtorch().autodiff()))
    }
}

/// A number whose backward gives a gradient that is known already.
#[derive(Debug, Clone)]
struct Seed(Handle);

impl Function<1> for Seed {
    const NAME: &'static str = "seed";

    type Saved = ();

    fn forward(&self, [y]: [Handle; 1], _: [bool; 1]) -> (Handle, ()) {
        (Handle::new(y.new_zeros([1], (y.kind(), y.device()))), ())
    }

    fn backward(&self, (): (), _: Handle, _: [bool; 1]) -> [Option<Handle>; 1] {
        [Some(self.0.clone())]
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::{constant, flat, values};
    use super::super::{Activation, activate};
    use super::*;

    #[derive(Module, Debug)]
    struct Shift {
        by: Param<Tensor<1>>,
    }

    fn shift(device: &Device) -> Shift {
        Shift { by: Param::from_tensor(constant(&[0.5, -1.0, 2.0], [3], device)) }
    }

    /// Begins with Burn's own elementwise operations, which write over what they alone own.
    fn begins_elementwise(part: &Shift, [x]: [Tensor<3>; 1]) -> Tensor<3> {
        ((x * 2.0 + part.by.val().reshape([1, 1, 3])) * 3.0).exp() * 0.1
    }

    /// The output, the gradient of the input and that of the parameter.
    fn run(recompute: bool) -> [Vec<f64>; 3] {
        let device = Device::libtorch().autodiff();
        let leaf = constant(&values(12, 1), [2, 2, 3], &device).require_grad();
        let part = shift(&device);
        // An operation of this crate's, which keeps its output for its own backward.
        let x = activate(leaf.clone() * 0.1, Activation::Sigmoid);
        let y = if recompute {
            recomputed(&part, [x], begins_elementwise)
        } else {
            begins_elementwise(&part, [x])
        };
        let value = flat(&y);
        let mut grads = (y * constant(&values(12, 2), [2, 2, 3], &device)).sum().backward();
        let of = |found: Option<Handle>| {
            Vec::try_from(found.expect("a gradient").contiguous().view(-1)).expect("flat")
        };
        let input = of(gradient(&leaf, &mut grads));
        [value, input, of(gradient(&part.by.val(), &mut grads))]
    }

    #[test]
    fn a_part_that_begins_elementwise_has_the_gradients_of_one_that_is_kept() {
        let (kept, again) = (run(false), run(true));
        for (kept, again) in kept.iter().zip(&again) {
            super::super::reference::assert_close("recomputed", again, kept, 1e-12);
        }
    }

    #[test]
    fn several_inputs_get_gradients_if_they_want_them() {
        let device = Device::libtorch().autodiff();
        let part = shift(&device);
        let wanted = constant(&values(6, 1), [2, 3], &device).require_grad();
        let other = constant(&values(6, 2), [2, 3], &device);
        let product = |part: &Shift, [a, b]: [Tensor<2>; 2]| a * b + part.by.val().reshape([1, 3]);
        let y: Tensor<2> = recomputed(&part, [wanted.clone(), other.clone()], product);
        let mut grads = y.sum().backward();
        let found = gradient(&wanted, &mut grads).expect("a gradient");
        assert_eq!(Vec::<f64>::try_from(found.view(-1)).expect("flat"), flat(&other));
        assert!(gradient(&other, &mut grads).is_none());
    }
}
