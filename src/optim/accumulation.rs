//! `accumulative_counts`: which iterations end in a step, and what the loss is divided by, as
//! mmengine's `OptimWrapper` has it.

use crate::ops::update::add_all;
use crate::ops::{Handle, NativeError};
use crate::weights::PerWeight;

/// Gradients of `counts` iterations go into one step. The last step of a training takes what is
/// left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accumulation {
    counts: usize,
    max_iters: usize,
}

impl Accumulation {
    /// `max_iters` is the number of iterations of the whole training.
    pub fn new(counts: usize, max_iters: usize) -> Self {
        Self { counts: counts.max(1), max_iters }
    }

    /// Whether the iteration (from 0) ends in a step of the optimizer, and so in an exchange of
    /// gradients between ranks.
    pub fn steps(&self, iteration: usize) -> bool {
        (iteration + 1).is_multiple_of(self.counts) || iteration + 1 == self.max_iters
    }

    /// What the loss of the iteration (from 0) is divided by: the number of iterations in its step.
    pub fn divisor(&self, iteration: usize) -> usize {
        let rest = self.max_iters % self.counts;
        if iteration < self.max_iters - rest { self.counts } else { rest.max(1) }
    }
}

/// Adds an iteration's gradients to those gathered so far, in place. The first ones are taken over.
pub(crate) fn accumulate(
    sum: &mut PerWeight<Handle>,
    grads: PerWeight<Handle>,
) -> Result<(), NativeError> {
    let (mut into, mut from) = (Vec::new(), Vec::new());
    for (id, grad) in grads {
        match sum.place(id) {
            Some(tensor) => {
                into.push(tensor.clone());
                from.push(grad);
            }
            // The sum is written over, so it is storage of its own.
            place @ None => *place = Some(Handle::new(grad.into_tensor())),
        }
    }
    if into.is_empty() {
        return Ok(());
    }
    add_all(&into.iter().collect::<Vec<_>>(), &from.iter().collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use tch::Tensor;

    use super::*;
    use crate::weights::{Layer, Weight, Weights};

    #[test]
    fn the_last_step_takes_what_is_left_and_weighs_it_alone() {
        let it = Accumulation::new(3, 8);
        let steps: Vec<usize> = (0..8).filter(|&iteration| it.steps(iteration)).collect();
        assert_eq!(steps, [2, 5, 7]);
        assert_eq!(
            (0..8).map(|iteration| it.divisor(iteration)).collect::<Vec<_>>(),
            [3, 3, 3, 3, 3, 3, 2, 2]
        );
        let plain = Accumulation::new(1, 5);
        assert!((0..5).all(|iteration| plain.steps(iteration) && plain.divisor(iteration) == 1));
    }

    #[test]
    fn gradients_add_up_place_by_place() {
        let one = |value: f32| Handle::new(Tensor::from_slice(&[value]));
        let weights: Weights =
            ["a", "b", "c"].map(|it| Weight::new(it, one(0.0), Layer::Own)).into_iter().collect();
        let ids: Vec<_> = weights.trained().map(|(id, _)| id).collect();
        let grads = |values: &[f32]| {
            let mut grads = PerWeight::new(&weights);
            ids.iter().zip(values).for_each(|(&id, &value)| grads.set(id, Some(one(value))));
            grads
        };
        let mut sum = PerWeight::new(&weights);
        accumulate(&mut sum, grads(&[1.0])).expect("the first");
        accumulate(&mut sum, grads(&[2.0, 5.0])).expect("the second");
        let values = ids.iter().map(|&id| sum.get(id).map(|it| it.double_value(&[0])));
        assert_eq!(values.collect::<Vec<_>>(), [Some(3.0), Some(5.0), None]);
    }
}
