//! The one extension of Burn: an operation written as a forward and a backward over libtorch's tensors.
//!
//! It is what `torch.autograd.Function` is to PyTorch. An operation says what it keeps ([`Function::Saved`]) and gets it
//! back once, with the output's gradient; the rest (graph, checkpoints, which gradients are wanted) is done here.

use std::fmt::Debug;
use std::marker::PhantomData;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, LibTorch, backend_extension};
use burn::tensor::Tensor;
use burn_tch::TchTensor;
use segslurm_native::aten;

use super::grad_tap;

/// A differentiable operation of `N` float tensors. Everything that needs no gradient (labels, options, running
/// statistics) is a field of the implementing type.
///
/// Keep handles as `TchTensor` clones, never as bare `tch` tensors: the clones are what tells Burn that a storage is shared.
pub(crate) trait Function<const N: usize>: Clone + Debug + Send + 'static {
    /// What the forward pass keeps for the backward.
    type Saved: Clone + Debug + Send + 'static;

    /// Computes the output, and what its backward will need. `tracked` says which inputs want a gradient.
    fn forward(&self, inputs: [TchTensor; N], tracked: [bool; N]) -> (TchTensor, Self::Saved);

    /// The gradients of the tracked inputs, from the output's.
    fn backward(&self, saved: Self::Saved, grad: TchTensor, tracked: [bool; N]) -> [Option<TchTensor>; N];

    /// The same, for an operation that depends on leaves which are not among its inputs: `reached` takes their gradients.
    fn backward_beyond(&self, saved: Self::Saved, grad: TchTensor, tracked: [bool; N], _: Reached) -> [Option<TchTensor>; N] {
        self.backward(saved, grad, tracked)
    }
}

/// Takes the gradient of a node.
pub(super) type Reached<'a> = &'a mut dyn FnMut(NodeId, TchTensor);

/// The functions above as operations of Burn's backends, by arity: the extension cannot take a list of tensors.
#[backend_extension(Autodiff, LibTorch)]
pub(crate) trait Functions: Backend {
    fn unary<F: Function<1>>(a: FloatTensor<Self>, function: F) -> FloatTensor<Self>;
    fn binary<F: Function<2>>(a: FloatTensor<Self>, b: FloatTensor<Self>, function: F) -> FloatTensor<Self>;
    fn ternary<F: Function<3>>(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        function: F,
    ) -> FloatTensor<Self>;
}

impl Functions for LibTorch {
    fn unary<F: Function<1>>(a: TchTensor, function: F) -> TchTensor {
        function.forward([a], [false]).0
    }

    fn binary<F: Function<2>>(a: TchTensor, b: TchTensor, function: F) -> TchTensor {
        function.forward([a, b], [false; 2]).0
    }

    fn ternary<F: Function<3>>(a: TchTensor, b: TchTensor, c: TchTensor, function: F) -> TchTensor {
        function.forward([a, b, c], [false; 3]).0
    }
}

impl<C: CheckpointStrategy> Functions for Autodiff<LibTorch, C> {
    fn unary<F: Function<1>>(a: FloatTensor<Self>, function: F) -> FloatTensor<Self> {
        record::<C, F, 1>([a], function)
    }

    fn binary<F: Function<2>>(a: FloatTensor<Self>, b: FloatTensor<Self>, function: F) -> FloatTensor<Self> {
        record::<C, F, 2>([a, b], function)
    }

    fn ternary<F: Function<3>>(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        function: F,
    ) -> FloatTensor<Self> {
        record::<C, F, 3>([a, b, c], function)
    }
}

type Tracked = FloatTensor<Autodiff<LibTorch>>;

fn record<C: CheckpointStrategy, F: Function<N>, const N: usize>(inputs: [Tracked; N], function: F) -> Tracked {
    let tracked = inputs.each_ref().map(Tracked::is_tracked);
    let nodes = inputs.each_ref().map(Tracked::node);
    let (output, saved) = function.forward(inputs.map(Tracked::into_primitive), tracked);
    match Recorded::<F>(PhantomData).prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(preparation) => preparation.finish((function, saved), output),
        OpsKind::UnTracked(preparation) => preparation.finish(output),
    }
}

#[derive(Debug)]
struct Recorded<F>(PhantomData<F>);

impl<F: Function<N>, const N: usize> Backward<LibTorch, N> for Recorded<F> {
    type State = (F, F::Saved);

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<LibTorch>(&ops.node);
        let (function, saved) = ops.state;
        let tracked = ops.parents.each_ref().map(Option::is_some);
        let mut deliver = |node: NodeId, grad: TchTensor| {
            if !grad_tap::offer(node, &grad.tensor) {
                grads.register::<LibTorch>(node, grad);
            }
        };
        let found = function.backward_beyond(saved, grad, tracked, &mut deliver);
        for (parent, grad) in ops.parents.into_iter().zip(found) {
            if let (Some(parent), Some(grad)) = (parent, grad) {
                deliver(parent.id, grad);
            }
        }
    }
}

pub(super) fn unary<const A: usize, const D: usize>(a: Tensor<A>, function: impl Function<1>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::unary(a.into_dispatch(), function))
}

pub(super) fn binary<const A: usize, const B: usize, const D: usize>(
    a: Tensor<A>,
    b: Tensor<B>,
    function: impl Function<2>,
) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::binary(a.into_dispatch(), b.into_dispatch(), function))
}

pub(super) fn ternary<const A: usize, const B: usize, const C: usize, const D: usize>(
    a: Tensor<A>,
    b: Tensor<B>,
    c: Tensor<C>,
    function: impl Function<3>,
) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::ternary(a.into_dispatch(), b.into_dispatch(), c.into_dispatch(), function))
}

/// Whether writing over `tensor` goes unnoticed: it is the last handle to a storage without repeated elements.
pub(super) fn is_exclusive(tensor: &TchTensor) -> bool {
    aten::is_exclusive(&tensor.tensor)
}
