//! Gradients of parameters at the moment they are made.
//!
//! Burn hands gradients over when the whole backward pass is done; data-parallel training wants to
//! send them while it goes on. An identity operation on the parameter would not do: Burn runs its
//! backward by depth, so that those of parameters come last of all. The tap therefore sits where
//! this crate's operations hand a gradient to Burn's container.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use burn::backend::autodiff::NodeId;
use burn::backend::{BackendTensor, DispatchTensorKind};
use burn::tensor::{Gradients, Tensor};

use super::border::{Handle, gradient};

/// A leaf of the graph: a parameter, for as long as it is not replaced by another tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeafId(u64);

/// Sees each gradient that an operation has for a leaf. Returning true takes it: Burn's container
/// does not get it then. A leaf that is used several times is offered several gradients, which add
/// up.
type Tap = Rc<dyn Fn(LeafId, &Handle) -> bool>;

thread_local! {
    /// The tap of the backward pass that runs on this thread.
    static TAP: RefCell<Option<Tap>> = const { RefCell::new(None) };
}

/// A leaf with the way to its gradient.
#[derive(Clone)]
pub struct Leaf {
    id: LeafId,
    take: Arc<Take>,
}

/// Takes a gradient out of all.
type Take = dyn Fn(&mut Gradients) -> Option<Handle> + Send + Sync;

impl Leaf {
    /// The leaf that `x` is, if training gives it a gradient.
    pub fn of<const D: usize>(x: &Tensor<D>) -> Option<Self> {
        let id = leaf(x).filter(|_| x.is_require_grad())?;
        let x = x.clone();
        Some(Self { id, take: Arc::new(move |grads| gradient(&x, grads)) })
    }

    pub fn id(&self) -> LeafId {
        self.id
    }

    /// Takes its gradient out of `grads`; `None` if nothing reached it.
    pub fn gradient(&self, grads: &mut Gradients) -> Option<Handle> {
        (self.take)(grads)
    }
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)
    }
}

/// The leaf that `x` is, if it is tracked.
pub fn leaf<const D: usize>(x: &Tensor<D>) -> Option<LeafId> {
    node(x).map(|it| LeafId(it.value))
}

/// The node of the graph that `x` is, if it is tracked.
pub(super) fn node<const D: usize>(x: &Tensor<D>) -> Option<NodeId> {
    fn open(kind: &DispatchTensorKind) -> Option<NodeId> {
        match kind {
            DispatchTensorKind::LibTorch(BackendTensor::Autodiff(it)) if it.is_tracked() => {
                Some(it.node().id())
            }
            DispatchTensorKind::LibTorch(_) => None,
            DispatchTensorKind::Autodiff(inner) => open(inner),
        }
    }
    open(&x.clone().into_dispatch().kind)
}

/// The backward pass of `loss`, with `tap` on the gradients that this module's operations make for
/// leaves. What other operations make, and what the tap does not take, is in the container that is
/// returned.
pub fn backward_with(
    loss: &Tensor<1>,
    tap: impl Fn(LeafId, &Handle) -> bool + 'static,
) -> Gradients {
    /// Takes the tap away again, also when the backward pass panics.
    struct Tapped;
    impl Drop for Tapped {
        fn drop(&mut self) {
            TAP.set(None);
        }
    }
    TAP.set(Some(Rc::new(tap)));
    let _tapped = Tapped;
    loss.backward()
}

/// Offers a gradient to the tap; true if it was taken.
pub(super) fn offer(node: NodeId, grad: &Handle) -> bool {
    let tap = TAP.with_borrow(Option::clone);
    tap.is_some_and(|tap| tap(LeafId(node.value), grad))
}
