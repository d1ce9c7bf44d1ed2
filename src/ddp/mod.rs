//! Data-parallel training: every rank has the whole model and a part of the batch, and the gradients are averaged.
//!
//! Gradients travel in buckets while the backward pass still makes the next ones: the gradient tap ([`crate::ops`]) puts
//! each into its place in a flat buffer, and a full buffer leaves at once. The buckets have a process group of their own, so
//! that their order and that of the batch norms' collectives need not be one.

mod bucket;
mod config;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Gradients, Tensor};

use crate::dist::{DistError, Group};
use crate::ops::{self, LeafId};
use bucket::Buckets;
pub use config::WrapperConfig;

/// A parameter that wants a gradient.
#[derive(Debug)]
pub struct Parameter {
    pub name: String,
    pub id: ParamId,
    /// The module's own storage.
    pub tensor: tch::Tensor,
}

/// How gradients are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DdpOptions {
    /// Size of a bucket in bytes; torch's default is 25 MiB.
    pub bucket_bytes: usize,
    /// The first one is smaller, so that the network has work early.
    pub first_bucket_bytes: usize,
    /// Send buckets while the backward pass goes on. Off, they leave after it: for measuring what it gains.
    pub overlap: bool,
}

impl Default for DdpOptions {
    fn default() -> Self {
        Self { bucket_bytes: 25 << 20, first_bucket_bytes: 1 << 20, overlap: true }
    }
}

/// The gradients of a model on their way to their averages.
#[derive(Debug)]
pub struct Ddp {
    leaves: HashMap<LeafId, usize>,
    places: HashMap<ParamId, usize>,
    buckets: Rc<RefCell<Buckets>>,
}

impl Ddp {
    /// For the parameters of `module` that want gradients; all ranks come here together, with equal parameters.
    pub fn new(group: &Group, module: &impl Module, parameters: Vec<Parameter>, options: DdpOptions) -> Result<Self, DistError> {
        let places: HashMap<ParamId, usize> = parameters.iter().enumerate().map(|(place, it)| (it.id, place)).collect();
        let mut visitor = Leaves { places: &places, leaves: HashMap::new() };
        module.visit(&mut visitor);
        let leaves = visitor.leaves;
        let buckets = Rc::new(RefCell::new(Buckets::new(group.split()?, parameters, options)));
        Ok(Self { leaves, places, buckets })
    }

    /// The backward pass of `loss`. `last` says whether an update follows: between updates (`accumulative_counts`) gradients
    /// add up on each rank and nothing is sent.
    pub fn backward(&self, module: &impl Module, loss: &Tensor<1>, last: bool) -> Result<(), DistError> {
        self.buckets.borrow_mut().begin(last);
        let (leaves, buckets) = (self.leaves.clone(), Rc::clone(&self.buckets));
        let tap = move |leaf: LeafId, grad: &tch::Tensor| match leaves.get(&leaf) {
            Some(&place) => {
                buckets.borrow_mut().add(place, grad);
                true
            }
            None => false,
        };
        let mut grads = ops::backward_with(loss, Rc::new(tap));
        // What Burn's own operations made is in the container.
        let mut rest = Rest { places: &self.places, grads: &mut grads, buckets: &self.buckets };
        module.visit(&mut rest);
        self.buckets.borrow_mut().end()
    }

    /// The averaged gradients, in the order of the parameters, after the last backward pass before an update. They are views
    /// of the buckets: to be used before the next backward pass. `None` for parameters that no rank used.
    pub fn finish(&self) -> Result<Vec<Option<tch::Tensor>>, DistError> {
        self.buckets.borrow_mut().finish()
    }

    /// The sizes of the buckets in bytes, in the order in which they leave.
    pub fn bucket_bytes(&self) -> Vec<usize> {
        self.buckets.borrow().bytes()
    }
}

/// Overwrites the tensors, parameters and buffers alike, with rank 0's.
pub fn broadcast(group: &Group, tensors: &[tch::Tensor]) -> Result<(), DistError> {
    const AT_ONCE: usize = 64 << 20;
    if group.world() == 1 {
        return Ok(());
    }
    let mut rest = tensors;
    while let Some(first) = rest.first() {
        let mut bytes = 0;
        let fits = |it: &&tch::Tensor| {
            bytes += it.numel() * it.kind().elt_size_in_bytes();
            it.kind() == first.kind() && (bytes <= AT_ONCE || std::ptr::eq(*it, first))
        };
        let n = rest.iter().take_while(fits).count().max(1);
        let (now, later) = rest.split_at(n);
        let flat = tch::Tensor::cat(&now.iter().map(|it| it.detach().reshape([-1])).collect::<Vec<_>>(), 0);
        group.broadcast(&flat, 0)?;
        let sizes: Vec<i64> = now.iter().map(|it| it.numel() as i64).collect();
        for (tensor, values) in now.iter().zip(flat.split_with_sizes(sizes, 0)) {
            tensor.detach().copy_(&values.view(tensor.size().as_slice()));
        }
        rest = later;
    }
    Ok(())
}

/// Names, shapes, strides and types as text, one a line: for [`Group::agree`].
pub fn describe<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a tch::Tensor)>) -> String {
    let lines =
        tensors.into_iter().map(|(name, tensor)| format!("{name} {:?} {:?} {:?}", tensor.size(), tensor.stride(), tensor.kind()));
    lines.collect::<Vec<_>>().join("\n")
}

struct Leaves<'a> {
    places: &'a HashMap<ParamId, usize>,
    leaves: HashMap<LeafId, usize>,
}

impl ModuleVisitor for Leaves<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let (Some(&place), Some(leaf)) = (self.places.get(&param.id), ops::leaf(&param.val())) {
            self.leaves.insert(leaf, place);
        }
    }
}

struct Rest<'a> {
    places: &'a HashMap<ParamId, usize>,
    grads: &'a mut Gradients,
    buckets: &'a RefCell<Buckets>,
}

impl ModuleVisitor for Rest<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(&place) = self.places.get(&param.id) else { return };
        if let Some(grad) = ops::gradient(&param.val(), self.grads) {
            self.buckets.borrow_mut().add(place, &grad);
        }
    }
}
