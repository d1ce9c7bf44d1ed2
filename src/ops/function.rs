//! The one extension of Burn: an operation written as a forward and a backward over libtorch's
//! tensors.
//!
//! It is what `torch.autograd.Function` is to PyTorch. An operation of any number of tensors, of
//! any shapes, says what it keeps ([`Function::Saved`]) and gets it back once, with the output's
//! gradient; the rest (graph, checkpoints, which gradients are wanted) is done here.

use std::fmt::Debug;
use std::marker::PhantomData;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::{
    BalancedCheckpointing, CheckpointStrategy, NoCheckpointing,
};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, AutodiffBackend, BackendTensor, DispatchAutodiffContext, DispatchTensor,
    DispatchTensorKind, GradientCheckpointingStrategy, LibTorch,
};
use burn::tensor::Tensor;
use burn_tch::TchTensor;

use super::autocast;
use super::border::Handle;
use super::{count, grad_tap};

/// A differentiable operation of `N` float tensors. Everything that needs no gradient (labels,
/// options, running statistics) is a field of the implementing type.
///
/// What is kept is kept as [`Handle`]s (`tch`'s tensors are not `Clone`): they tell Burn that a
/// storage is shared.
pub(crate) trait Function<const N: usize>: Clone + Debug + Send + 'static {
    /// The operation's name, in errors and in the table of mixed precision.
    const NAME: &'static str;

    /// What the forward pass keeps for the backward.
    type Saved: Clone + Debug + Send + 'static;

    /// Computes the output, and what its backward will need. `tracked` says which inputs want a
    /// gradient.
    fn forward(&self, inputs: [Handle; N], tracked: [bool; N]) -> (Handle, Self::Saved);

    /// The multiplications that it takes, by the shapes of inputs and output.
    fn multiply_adds(&self, _: [&[i64]; N], _: &[i64]) -> u64 {
        0
    }

    /// The gradients of the tracked inputs, from the output's.
    fn backward(&self, saved: Self::Saved, grad: Handle, tracked: [bool; N])
    -> [Option<Handle>; N];

    /// The same, for an operation that depends on leaves which are not among its inputs: `reached`
    /// takes their gradients.
    fn backward_beyond(
        &self,
        saved: Self::Saved,
        grad: Handle,
        tracked: [bool; N],
        _: Reached,
    ) -> [Option<Handle>; N] {
        self.backward(saved, grad, tracked)
    }
}

/// Takes the gradient of a node.
pub(super) type Reached<'a> = &'a mut dyn FnMut(NodeId, Handle);

/// Any float tensor as an input of a [`Function`].
pub(super) struct Input(DispatchTensor);

impl<const D: usize> From<Tensor<D>> for Input {
    fn from(tensor: Tensor<D>) -> Self {
        Self(tensor.into_dispatch())
    }
}

impl Input {
    fn value(self) -> Handle {
        fn open(kind: DispatchTensorKind) -> TchTensor {
            match kind {
                DispatchTensorKind::LibTorch(BackendTensor::Autodiff(it)) => it.into_primitive(),
                DispatchTensorKind::LibTorch(it) => it.float(),
                DispatchTensorKind::Autodiff(inner) => open(*inner),
            }
        }
        Handle::from_primitive(open(self.0.kind))
    }

    /// With its place in the graph; a tensor of the plain device is a constant of it.
    fn tracked(self) -> Tracked {
        fn open(kind: DispatchTensorKind) -> Tracked {
            match kind {
                DispatchTensorKind::LibTorch(BackendTensor::Autodiff(it)) => it,
                DispatchTensorKind::LibTorch(it) => Autodiff::<LibTorch>::from_inner(it.float()),
                DispatchTensorKind::Autodiff(inner) => open(*inner),
            }
        }
        open(self.0.kind)
    }
}

type Tracked = FloatTensor<Autodiff<LibTorch>>;

/// Runs `function` on `inputs`, as an operation of the graph where one of them belongs to one.
pub(super) fn apply<const N: usize, const D: usize>(
    inputs: [Input; N],
    function: impl Function<N>,
) -> Tensor<D> {
    let contexts = inputs.iter().map(|it| it.0.autodiff);
    let autodiff = contexts.fold(DispatchAutodiffContext::Disabled, DispatchAutodiffContext::merge);
    let kind = match autodiff {
        DispatchAutodiffContext::Disabled => {
            let (inputs, _) = cast::<_, N>(&function, inputs.map(Input::value));
            let output = counted(&function, inputs, [false; N]).0;
            DispatchTensorKind::LibTorch(BackendTensor::Float(output.into_primitive()))
        }
        DispatchAutodiffContext::Enabled(strategy) => {
            let inputs = inputs.map(Input::tracked);
            let output = match strategy {
                GradientCheckpointingStrategy::Disabled => {
                    record::<NoCheckpointing, _, N>(inputs, function)
                }
                GradientCheckpointingStrategy::Balanced => {
                    record::<BalancedCheckpointing, _, N>(inputs, function)
                }
            };
            DispatchTensorKind::Autodiff(Box::new(DispatchTensorKind::LibTorch(
                BackendTensor::Autodiff(output),
            )))
        }
    };
    Tensor::from_dispatch(DispatchTensor { kind, autodiff })
}

fn record<C: CheckpointStrategy, F: Function<N>, const N: usize>(
    inputs: [Tracked; N],
    function: F,
) -> Tracked {
    let tracked = inputs.each_ref().map(Tracked::is_tracked);
    let nodes = inputs.each_ref().map(Tracked::node);
    let values = inputs.map(|it| Handle::from_primitive(it.into_primitive()));
    let (values, kinds) = cast(&function, values);
    let (output, saved) = counted(&function, values, tracked);
    let kinds = Kinds { inputs: kinds, output: output.kind() };
    let output = output.into_primitive();
    match Recorded::<F>(PhantomData).prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(preparation) => preparation.finish((function, saved, kinds), output),
        OpsKind::UnTracked(preparation) => preparation.finish(output),
    }
}

fn counted<F: Function<N>, const N: usize>(
    function: &F,
    inputs: [Handle; N],
    tracked: [bool; N],
) -> (Handle, F::Saved) {
    if !count::on() {
        return function.forward(inputs, tracked);
    }
    let shapes = inputs.each_ref().map(|it| it.size());
    let found = function.forward(inputs, tracked);
    count::add(function.multiply_adds(shapes.each_ref().map(Vec::as_slice), &found.0.size()));
    found
}

/// The inputs in the type that mixed precision has for the operation, and the types that they came
/// in, where that is another.
fn cast<F: Function<N>, const N: usize>(
    _: &F,
    inputs: [Handle; N],
) -> ([Handle; N], Option<[tch::Kind; N]>) {
    let kinds = inputs.each_ref().map(|it| it.kind());
    match autocast::target(F::NAME, &kinds) {
        Some(kind) if kinds.iter().any(|it| *it != kind) => {
            let cast =
                |it: Handle| if it.kind() == kind { it } else { Handle::new(it.to_kind(kind)) };
            (inputs.map(cast), Some(kinds))
        }
        _ => (inputs, None),
    }
}

/// The types of an operation's tensors.
#[derive(Debug, Clone)]
struct Kinds<const N: usize> {
    /// In which the inputs came, where the operation computed in another.
    inputs: Option<[tch::Kind; N]>,
    output: tch::Kind,
}

#[derive(Debug)]
struct Recorded<F>(PhantomData<F>);

impl<F: Function<N>, const N: usize> Backward<LibTorch, N> for Recorded<F> {
    type State = (F, F::Saved, Kinds<N>);

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = Handle::from_primitive(grads.consume::<LibTorch>(&ops.node));
        let (function, saved, Kinds { inputs: kinds, output }) = ops.state;
        // A sum of two types hands the wider one to both.
        let grad = if grad.kind() == output { grad } else { Handle::new(grad.to_kind(output)) };
        let tracked = ops.parents.each_ref().map(Option::is_some);
        let mut deliver = |node: NodeId, grad: Handle| {
            if !grad_tap::offer(node, &grad) {
                grads.register::<LibTorch>(node, grad.into_primitive());
            }
        };
        let found = function.backward_beyond(saved, grad, tracked, &mut deliver);
        for (place, (parent, grad)) in ops.parents.into_iter().zip(found).enumerate() {
            if let (Some(parent), Some(grad)) = (parent, grad) {
                let grad = match kinds {
                    Some(kinds) if kinds[place] != grad.kind() => {
                        Handle::new(grad.to_kind(kinds[place]))
                    }
                    _ => grad,
                };
                deliver(parent.id, grad);
            }
        }
    }
}
