//! What a pass through the model is told, and what a training pass gives back.

use std::sync::{Arc, Mutex, PoisonError};

use burn::module::ParamId;
use burn::tensor::Tensor;

use crate::dist::Group;

/// The circumstances of one pass.
#[derive(Debug, Clone, Copy, Default)]
pub struct Forward<'a> {
    /// Batch norms use and update statistics of the batch, dropout drops.
    pub training: bool,
    /// The ranks over which `SyncBN` normalises; `None` for this rank alone.
    pub group: Option<&'a Group>,
    /// This step's seed; every dropout derives its own from it.
    pub seed: u64,
    /// Only look: norms use their running statistics, and those that could not be trained on what they see are noted here.
    pub probe: Option<&'a Starved>,
}

/// The norms, by their weights, that would see one value per channel.
#[derive(Debug, Clone, Default)]
pub struct Starved(Arc<Mutex<Vec<ParamId>>>);

impl Starved {
    pub(crate) fn note(&self, norm: ParamId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(norm);
    }

    pub(crate) fn norms(&self) -> Vec<ParamId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Forward<'_> {
    /// The same, to be used later.
    pub(crate) fn keep(&self) -> Kept {
        let Self { training, group, seed, probe } = *self;
        Kept { training, group: group.cloned(), seed, probe: probe.cloned() }
    }

    /// A seed for the `index`th random layer of this pass (a step of splitmix64).
    pub(crate) fn layer_seed(&self, index: u64) -> u64 {
        let mut z = self.seed.wrapping_add((index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// A [`Forward`] that borrows nothing.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    training: bool,
    group: Option<Group>,
    seed: u64,
    probe: Option<Starved>,
}

impl Kept {
    pub(crate) fn forward(&self) -> Forward<'_> {
        let Self { training, group, seed, probe } = self;
        Forward { training: *training, group: group.as_ref(), seed: *seed, probe: probe.as_ref() }
    }
}

/// The losses of a training pass.
#[derive(Debug, Clone)]
pub struct Losses {
    /// What to differentiate: the sum of the items whose name holds `loss`.
    pub total: Tensor<1>,
    /// Every head's losses and its accuracy in percent, by mmseg's names (`decode.loss_ce`, `aux.acc_seg`), in its order.
    /// They stay on the device and are not tracked.
    pub items: Vec<(String, Tensor<1>)>,
}

impl Losses {
    /// Sums the tracked `items`; there must be at least one loss among them.
    pub(crate) fn new(items: Vec<(String, Tensor<1>)>) -> Self {
        let total = items
            .iter()
            .filter(|(name, _)| name.contains("loss"))
            .map(|(_, value)| value.clone())
            .reduce(|a, b| a + b)
            .expect("every head has a loss");
        let items = items.into_iter().map(|(name, value)| (name, value.without_autodiff())).collect();
        Self { total, items }
    }
}
