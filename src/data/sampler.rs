//! Which entry comes when, on which rank.
//!
//! A sampler is a pure function from a position to an entry, so going on after a resume means
//! starting at a position. The shuffle is our own (Fisher-Yates over PCG): the orders are not those
//! of torch's `randperm` for the same seed.

use std::sync::Mutex;

use rand::seq::SliceRandom;
use serde::Deserialize;

use super::seed::{Purpose, stream};

/// The `sampler` section of a dataloader; the variant is its `type`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub enum SamplerConfig {
    InfiniteSampler(InfiniteSampler),
    DefaultSampler(DefaultSampler),
}

/// Never ends; passes over the dataset follow each other without a seam, and the ranks take turns.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InfiniteSampler {
    pub shuffle: bool,
    /// In place of the run's seed.
    pub seed: Option<u64>,
}

/// Goes once over the dataset in an epoch; the ranks take turns.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DefaultSampler {
    pub shuffle: bool,
    /// In place of the run's seed.
    pub seed: Option<u64>,
    /// Give every rank as many entries, by starting over; the copies are marked as padding.
    pub round_up: bool,
}

impl Default for InfiniteSampler {
    fn default() -> Self {
        Self { shuffle: true, seed: None }
    }
}

impl Default for DefaultSampler {
    fn default() -> Self {
        Self { shuffle: true, seed: None, round_up: true }
    }
}

impl Default for SamplerConfig {
    fn default() -> Self {
        Self::DefaultSampler(DefaultSampler::default())
    }
}

/// One rank's sampler.
#[derive(Debug)]
pub struct Sampler {
    infinite: bool,
    shuffle: bool,
    round_up: bool,
    seed: u64,
    /// Entries of the dataset.
    size: usize,
    rank: usize,
    world: usize,
    /// The order of the last pass that was asked for.
    order: Mutex<Option<(u64, Vec<u32>)>>,
}

/// An entry at its place in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// The dataset's entry.
    pub index: usize,
    /// Its place in the order of all ranks: in the epoch, or since the start.
    pub position: u64,
    /// A copy that evens out the ranks.
    pub padding: bool,
}

impl Sampler {
    /// The sampler of `rank` out of `world` over `size` entries.
    pub fn new(config: &SamplerConfig, size: usize, rank: usize, world: usize, seed: u64) -> Self {
        let (infinite, shuffle, own_seed, round_up) = match config {
            SamplerConfig::InfiniteSampler(it) => (true, it.shuffle, it.seed, false),
            SamplerConfig::DefaultSampler(it) => (false, it.shuffle, it.seed, it.round_up),
        };
        Self {
            infinite,
            shuffle,
            round_up,
            seed: own_seed.unwrap_or(seed),
            size,
            rank,
            world,
            order: Mutex::new(None),
        }
    }

    /// How many entries this rank has in an epoch; `None` when it never ends.
    pub fn len(&self) -> Option<usize> {
        let whole = if self.round_up { self.size } else { self.size.saturating_sub(self.rank) };
        (!self.infinite).then(|| whole.div_ceil(self.world))
    }

    /// Whether this rank has nothing to do: without `round_up` there may be fewer entries than
    /// ranks.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// The `nth` entry of this rank in `epoch` (0 for a sampler that never ends).
    pub fn get(&self, epoch: u64, nth: u64) -> Draw {
        let position = self.rank as u64 + nth * self.world as u64;
        let size = self.size as u64;
        let (pass, place) = if self.infinite {
            (position / size, position % size)
        } else {
            (epoch, position % size)
        };
        Draw {
            index: self.entry(pass, place as usize),
            position,
            padding: !self.infinite && position >= size,
        }
    }

    fn entry(&self, pass: u64, place: usize) -> usize {
        if !self.shuffle {
            return place;
        }
        let mut order = self.order.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((known, entries)) = &*order
            && *known == pass
        {
            return entries[place] as usize;
        }
        let mut entries: Vec<u32> = (0..self.size as u32).collect();
        entries.shuffle(&mut stream(self.seed, Purpose::Shuffle, [pass, 0, 0]));
        let entry = entries[place] as usize;
        *order = Some((pass, entries));
        entry
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn default(shuffle: bool, round_up: bool) -> SamplerConfig {
        SamplerConfig::DefaultSampler(DefaultSampler { shuffle, seed: None, round_up })
    }

    fn infinite() -> SamplerConfig {
        SamplerConfig::InfiniteSampler(InfiniteSampler { shuffle: true, seed: None })
    }

    proptest! {
        #[test]
        fn an_epoch_over_all_ranks_has_every_entry_once_but_for_marked_padding(
            size in 1..60_usize, world in 1..9_usize, seed: u64, epoch in 0..4_u64, shuffle: bool, round_up: bool,
        ) {
            let mut entries = Vec::new();
            let mut lengths = BTreeSet::new();
            for rank in 0..world {
                let sampler = Sampler::new(&default(shuffle, round_up), size, rank, world, seed);
                let length = sampler.len().expect("an end");
                lengths.insert(length);
                let draws = (0..length as u64).map(|nth| sampler.get(epoch, nth));
                entries.extend(draws.filter(|draw| !draw.padding).map(|draw| draw.index));
            }
            entries.sort_unstable();
            prop_assert_eq!(entries, (0..size).collect::<Vec<_>>());
            prop_assert!(!round_up || lengths.len() == 1, "ranks of different lengths: \
                                                           {lengths:?}");
        }

        #[test]
        fn the_ranks_of_an_endless_sampler_share_every_pass(size in 1..40_usize, world in 1..7_usize, seed: u64) {
            let samplers: Vec<_> = (0..world).map(|rank| Sampler::new(&infinite(), size, rank, world, seed)).collect();
            // As one rank alone would draw them.
            let alone = Sampler::new(&infinite(), size, 0, 1, seed);
            for position in 0..3 * size as u64 {
                let (rank, nth) = (position as usize % world, position / world as u64);
                prop_assert_eq!(samplers[rank].get(0, nth), alone.get(0, position));
            }
            for pass in 0..3 {
                let entries: BTreeSet<_> = (0..size as u64).map(|it| alone.get(0, pass * size as u64 + it).index).collect();
                prop_assert_eq!(entries.len(), size);
            }
        }
    }

    #[test]
    fn epochs_and_seeds_have_different_orders_and_no_shuffle_has_the_files() {
        let order = |config: &SamplerConfig, seed, epoch| {
            let sampler = Sampler::new(config, 30, 0, 1, seed);
            (0..30).map(|nth| sampler.get(epoch, nth).index).collect::<Vec<_>>()
        };
        let shuffled = default(true, true);
        assert_ne!(order(&shuffled, 1, 0), order(&shuffled, 1, 1));
        assert_ne!(order(&shuffled, 1, 0), order(&shuffled, 2, 0));
        assert_eq!(order(&shuffled, 1, 1), order(&shuffled, 1, 1));
        assert_eq!(order(&default(false, true), 1, 0), (0..30).collect::<Vec<_>>());
    }
}
