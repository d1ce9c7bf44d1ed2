//! Gradient checkpointing: a part of the network keeps its input alone, and computes everything inside it again in the
//! backward pass. Time for memory.
//!
//! The second forward runs on a copy of the part whose parameters are leaves of a graph of their own (Burn locks the outer
//! graph while its backward runs) and whose statistics are copies, so that they move once a step as without checkpointing.

use std::fmt;

use burn::backend::autodiff::NodeId;
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Gradients, Int, Tensor};
use burn_tch::TchTensor;

use super::border::{from_tch, gradient, primitive, to_tch};
use super::function::{Function, Reached, unary};
use super::grad_tap;

/// `forward(part, x)`, with nothing kept for the backward but `x`. Where `x` needs no gradient everything is kept, as torch's
/// `checkpoint` does: there is no backward that could compute it again.
pub fn recomputed<M, F>(part: &M, x: Tensor<4>, forward: F) -> Tensor<4>
where
    M: Module + 'static,
    F: Fn(&M, Tensor<4>) -> Tensor<4> + Clone + Send + 'static,
{
    if grad_tap::leaf(&x).is_none() {
        return forward(part, x);
    }
    unary(x, Recompute { part: part.clone(), forward })
}

#[derive(Clone)]
struct Recompute<M, F> {
    part: M,
    forward: F,
}

impl<M, F> fmt::Debug for Recompute<M, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recompute")
    }
}

impl<M, F> Function<1> for Recompute<M, F>
where
    M: Module + 'static,
    F: Fn(&M, Tensor<4>) -> Tensor<4> + Clone + Send + 'static,
{
    type Saved = TchTensor;

    fn forward(&self, [x]: [TchTensor; 1], _: [bool; 1]) -> (TchTensor, TchTensor) {
        let input = from_tch(x.tensor.shallow_clone(), &Device::libtorch());
        (primitive((self.forward)(&self.part.valid(), input)), x)
    }

    fn backward(&self, _: TchTensor, _: TchTensor, _: [bool; 1]) -> [Option<TchTensor>; 1] {
        unreachable!("the part's parameters get gradients too")
    }

    fn backward_beyond(&self, x: TchTensor, grad: TchTensor, _: [bool; 1], reached: Reached) -> [Option<TchTensor>; 1] {
        let x = from_tch::<4, _>(x.tensor, &Device::libtorch().autodiff()).require_grad();
        let mut copy = Copy::default();
        let part = self.part.clone().map(&mut copy);
        let y = (self.forward)(&part, x.clone());
        let mut grads = unary::<4, 1>(y, Seed(grad)).backward();
        for (outer, take) in copy.leaves {
            if let Some(grad) = take(&mut grads) {
                reached(outer, TchTensor::new(grad));
            }
        }
        [gradient(&x, &mut grads).map(TchTensor::new)]
    }
}

/// Takes a leaf's gradient out.
type Take = Box<dyn FnOnce(&mut Gradients) -> Option<tch::Tensor>>;

/// Makes the copy: parameters become fresh leaves over the same storage, statistics and counters storage of their own.
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
            // Running statistics have one dimension; larger constants are frozen weights, which nothing changes.
            let constant = if D == 1 { tensor.copy() } else { tensor };
            return Param::initialized(param.id, from_tch(constant, &device));
        };
        let leaf = from_tch::<D, _>(tensor, &device).require_grad();
        let kept = leaf.clone();
        self.leaves.push((outer, Box::new(move |grads| gradient(&kept, grads))));
        Param::initialized(param.id, leaf)
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        let copy = to_tch(&param.val()).copy();
        Param::initialized(param.id, from_tch(copy, &Device::libtorch().autodiff()))
    }
}

/// A number whose backward gives a gradient that is known already.
#[derive(Debug, Clone)]
struct Seed(TchTensor);

impl Function<1> for Seed {
    type Saved = ();

    fn forward(&self, [y]: [TchTensor; 1], _: [bool; 1]) -> (TchTensor, ()) {
        (TchTensor::new(y.tensor.new_zeros([1], (y.tensor.kind(), y.tensor.device()))), ())
    }

    fn backward(&self, (): (), _: TchTensor, _: [bool; 1]) -> [Option<TchTensor>; 1] {
        [Some(self.0.clone())]
    }
}
