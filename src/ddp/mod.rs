//! Data-parallel training: every rank has the whole model and a part of the batch, and the
//! gradients are averaged.
//!
//! Gradients travel in buckets while the backward pass still makes the next ones: the gradient tap
//! ([`crate::ops`]) puts each into its place in a flat buffer, and a full buffer leaves at once.
//! The buckets have a process group of their own, so that their order and that of the batch norms'
//! collectives need not be one.

mod bucket;
mod config;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use burn::tensor::Tensor;

use crate::dist::{DistError, Group};
use crate::ops::{self, Handle, LeafId, flat};
use crate::weights::{PerWeight, Weight, WeightId, Weights};
use bucket::Buckets;
pub use config::WrapperConfig;

/// How gradients are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DdpOptions {
    /// Size of a bucket in bytes; torch's default is 25 MiB.
    pub bucket_bytes: usize,
    /// The first one is smaller, so that the network has work early.
    pub first_bucket_bytes: usize,
    /// Send buckets while the backward pass goes on. Off, they leave after it: for measuring what
    /// it gains.
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
    weights: Weights,
    leaves: HashMap<LeafId, WeightId>,
    buckets: Rc<RefCell<Buckets>>,
}

impl Ddp {
    /// For those of `weights` that are trained; all ranks come here together, with equal weights.
    pub fn new(group: &Group, weights: &Weights, options: DdpOptions) -> Result<Self, DistError> {
        let leaves =
            weights.trained().filter_map(|(id, it)| Some((it.leaf.as_ref()?.id(), id))).collect();
        let buckets = Rc::new(RefCell::new(Buckets::new(group.split()?, weights, options)));
        Ok(Self { weights: weights.clone(), leaves, buckets })
    }

    /// The backward pass of `loss`. `last` says whether an update follows: between updates
    /// (`accumulative_counts`) gradients add up on each rank and nothing is sent.
    pub fn backward(&self, loss: &Tensor<1>, last: bool) -> Result<(), DistError> {
        self.buckets.borrow_mut().begin(last);
        let (leaves, buckets) = (self.leaves.clone(), Rc::clone(&self.buckets));
        let rest = ops::backward_with(loss, move |leaf, grad| match leaves.get(&leaf) {
            Some(&id) => {
                buckets.borrow_mut().add(id, grad);
                true
            }
            None => false,
        });
        // What Burn's own operations made is in the container.
        for (id, grad) in self.weights.gradients(rest) {
            self.buckets.borrow_mut().add(id, &grad);
        }
        self.buckets.borrow_mut().end()
    }

    /// The averaged gradients after the last backward pass before an update, of the parameters that
    /// some rank used. They are views of the buckets: to be used before the next backward pass.
    pub fn finish(&self) -> Result<PerWeight<Handle>, DistError> {
        self.buckets.borrow_mut().finish()
    }

    /// The sizes of the buckets in bytes, in the order in which they leave.
    pub fn bucket_bytes(&self) -> Vec<usize> {
        self.buckets.borrow().bytes()
    }
}

/// Overwrites a model, parameters and buffers alike, with rank 0's.
pub(crate) fn broadcast(group: &Group, weights: &Weights) -> Result<(), DistError> {
    const AT_ONCE: usize = 64 << 20;
    if group.world() == 1 {
        return Ok(());
    }
    let all: Vec<&Handle> = weights.iter().map(|it| &it.tensor).collect();
    flat::broadcast(group, &all, AT_ONCE)
}

/// Names, shapes, strides and types as text, one a line: for [`Group::agree`].
pub(crate) fn describe(weights: &Weights) -> String {
    let line = |it: &Weight| {
        format!(
            "{} {:?} {:?} {:?}",
            it.name,
            it.tensor.size(),
            it.tensor.stride(),
            it.tensor.kind()
        )
    };
    weights.iter().map(line).collect::<Vec<_>>().join("\n")
}
