//! Randomness without state: a generator for every use is seeded from what the use is, so a run
//! that resumes, or that has another number of workers, draws the same numbers without any
//! generator being saved.

use rand_pcg::Pcg64;

/// What a stream of random numbers is for; part of its seed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    Shuffle = 1,
    Augment = 2,
    Scene = 3,
}

/// The generator of one use: the same for the same `seed`, `purpose` and `parts`, and unrelated
/// otherwise.
pub(super) fn stream(seed: u64, purpose: Purpose, parts: [u64; 3]) -> Pcg64 {
    let mut state = mix(seed ^ mix(purpose as u64));
    for part in parts {
        state = mix(state ^ mix(part.wrapping_add(0x9e37_79b9_7f4a_7c15)));
    }
    let low = mix(state.wrapping_add(1));
    let high = mix(state.wrapping_add(2));
    Pcg64::new((u128::from(high) << 64) | u128::from(low), u128::from(mix(state.wrapping_add(3))))
}

/// The generator that augments the sample which comes `position`-th in `epoch` and is entry `index`
/// of its dataset.
pub fn sample_rng(seed: u64, epoch: u64, position: u64, index: usize) -> Pcg64 {
    stream(seed, Purpose::Augment, [epoch, position, index as u64])
}

/// The finaliser of splitmix64 (Steele, Lea, Flood 2014): a bijection whose outputs look unrelated.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
