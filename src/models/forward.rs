//! What a pass through the model is told, and what a training pass gives back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use burn::module::Module;
use burn::tensor::Tensor;

use crate::dist::Group;
use crate::ops;

/// The circumstances of one pass.
#[derive(Debug, Clone, Default)]
pub struct Forward<'a> {
    /// Batch norms use and update statistics of the batch, dropout drops.
    pub training: bool,
    /// The ranks over which `SyncBN` normalises; `None` for this rank alone.
    pub group: Option<&'a Group>,
    /// This step's seed; every random layer derives its own from it.
    pub seed: u64,
    /// Only look: norms use their running statistics, and those that could not be trained on what
    /// they see are noted here.
    pub probe: Option<&'a Starved>,
    /// Random layers that have drawn so far in this pass.
    drawn: Arc<AtomicU64>,
}

/// The norms that would see one value per channel, by where their weights are.
#[derive(Debug, Clone, Default)]
pub struct Starved(Arc<Mutex<Vec<usize>>>);

impl Starved {
    pub(crate) fn note(&self, weight: &Tensor<1>) {
        let place = ops::to_tch(weight).address();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(place);
    }

    pub(crate) fn has(&self, weight: &ops::Handle) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&weight.address())
    }
}

impl<'a> Forward<'a> {
    /// A training pass with this seed.
    pub fn training(seed: u64, group: Option<&'a Group>) -> Self {
        Self { training: true, group, seed, ..Self::default() }
    }

    /// A pass that only looks for norms that could not be trained.
    pub(crate) fn probing(group: Option<&'a Group>, probe: &'a Starved) -> Self {
        Self { training: true, group, probe: Some(probe), ..Self::default() }
    }

    /// A seed for the next random layer of this pass: the same for the same layer whenever the pass
    /// is repeated.
    pub fn next_seed(&self) -> u64 {
        let index = self.drawn.fetch_add(1, Ordering::Relaxed);
        let mut z = self.seed.wrapping_add((index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// `forward(part, inputs)`, of which the backward pass keeps the inputs alone and computes the
    /// rest again, with the random numbers of the first time.
    pub fn recomputed<M, F, const N: usize, const D: usize, const E: usize>(
        &self,
        part: &M,
        inputs: [Tensor<D>; N],
        forward: F,
    ) -> Tensor<E>
    where
        M: Module + 'static,
        F: Fn(&M, [Tensor<D>; N], &Forward) -> Tensor<E> + Clone + Send + 'static,
    {
        let Self { training, group, seed, probe, drawn } = self;
        let (training, group, seed, probe) = (*training, group.cloned(), *seed, probe.cloned());
        let (before, after) = (drawn.load(Ordering::Relaxed), Arc::new(AtomicU64::new(0)));
        let reached = Arc::clone(&after);
        let y = ops::recomputed(part, inputs, move |part, inputs| {
            let (group, probe) = (group.as_ref(), probe.as_ref());
            let ctx =
                Forward { training, group, seed, probe, drawn: Arc::new(AtomicU64::new(before)) };
            let y = forward(part, inputs, &ctx);
            reached.store(ctx.drawn.load(Ordering::Relaxed), Ordering::Relaxed);
            y
        });
        drawn.store(after.load(Ordering::Relaxed), Ordering::Relaxed);
        y
    }
}

/// Named numbers `[1]` of a training pass, in mmseg's order: losses, and what is only to be looked
/// at.
#[derive(Debug, Clone, Default)]
pub struct Scalars(Vec<Scalar>);

/// One of them.
#[derive(Debug, Clone)]
pub struct Scalar {
    /// By mmseg's names, such as `decode.loss_ce`.
    pub name: String,
    pub value: Tensor<1>,
    /// Whether it is part of what is differentiated.
    pub trained: bool,
}

impl Scalars {
    /// Adds a loss; those of one name are summed.
    pub fn loss(&mut self, name: &str, value: Tensor<1>) {
        match self.0.iter_mut().find(|it| it.name == name) {
            Some(it) => it.value = it.value.clone() + value,
            None => self.0.push(Scalar { name: name.to_owned(), value, trained: true }),
        }
    }

    /// Adds a number that is not trained on.
    pub fn look(&mut self, name: &str, value: Tensor<1>) {
        self.0.push(Scalar { name: name.to_owned(), value, trained: false });
    }

    /// Takes those of a part of the model over, as `prefix.name`.
    pub(crate) fn extend(&mut self, prefix: &str, part: Self) {
        self.0.extend(
            part.0.into_iter().map(|it| Scalar { name: format!("{prefix}.{}", it.name), ..it }),
        );
    }
}

/// The losses of a training pass.
#[derive(Debug, Clone)]
pub struct Losses {
    /// What to differentiate: the sum of the losses.
    pub total: Tensor<1>,
    /// Every head's losses and its accuracy in percent (`decode.loss_ce`, `aux.acc_seg`). They stay
    /// on the device and are not tracked.
    pub items: Vec<Scalar>,
}

impl Losses {
    /// Sums the losses among `scalars`; there must be one.
    pub(crate) fn new(scalars: Scalars) -> Self {
        let losses = scalars.0.iter().filter(|it| it.trained).map(|it| it.value.clone());
        let total = losses.reduce(|a, b| a + b).expect("every head has a loss");
        let untracked = |it: Scalar| Scalar { value: it.value.without_autodiff(), ..it };
        Self { total, items: scalars.0.into_iter().map(untracked).collect() }
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Param;
    use burn::tensor::Device;

    use super::*;

    #[derive(Module, Debug)]
    struct Scale {
        by: Param<Tensor<1>>,
    }

    /// Two random layers around a parameter.
    fn dropped(part: &Scale, [x]: [Tensor<2>; 1], ctx: &Forward) -> Tensor<2> {
        let x = ops::dropout(x * part.by.val().reshape([1, 8]), 0.5, ctx.next_seed());
        ops::drop_path(x, 0.5, ctx.next_seed())
    }

    #[test]
    fn a_recomputed_part_drops_what_it_dropped_and_later_layers_draw_on() {
        let device = Device::libtorch().autodiff();
        let run = |recompute: bool, seed: u64| {
            let part = Scale { by: Param::from_tensor(Tensor::ones([8], &device) * 2.0) };
            let x = Tensor::<2>::ones([6, 8], &device).require_grad();
            let ctx = Forward::training(seed, None);
            ctx.next_seed();
            let y = if recompute {
                ctx.recomputed(&part, [x.clone()], dropped)
            } else {
                dropped(&part, [x.clone()], &ctx)
            };
            let next = ctx.next_seed();
            let values = ops::to_tch(&y).copy();
            let mut grads = y.sum().backward();
            let of = |found: Option<ops::Handle>| found.expect("a gradient").copy();
            (
                values,
                of(ops::gradient(&x, &mut grads)),
                of(ops::gradient(&part.by.val(), &mut grads)),
                next,
            )
        };
        let (kept, again) = (run(false, 7), run(true, 7));
        assert!(kept.0 == again.0 && kept.1 == again.1 && kept.2 == again.2 && kept.3 == again.3);
        let other = run(true, 8);
        assert!(kept.0 != other.0 && kept.3 != other.3);
    }
}
