//! Values that a tensor begins with: drawn by its name and the run's seed alone, whatever the
//! threads and the rest of the model.

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;

use super::Distribution;
use crate::ops::{self, Handle};
use crate::weights::Weight;

/// What one tensor is filled with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fill {
    Constant(f64),
    Normal { mean: f64, std: f64 },
    TruncNormal { mean: f64, std: f64, a: f64, b: f64 },
    Uniform { a: f64, b: f64 },
}

impl Fill {
    /// torch's default for a weight whose outputs add up so many inputs, and for the bias beside
    /// it.
    pub fn torch_default(fan_in: usize) -> Self {
        let bound = 1.0 / (fan_in as f64).sqrt();
        Self::Uniform { a: -bound, b: bound }
    }

    /// He et al. 2015 for `fan` inputs or outputs, with a leaky ReLU of this slope after it.
    pub fn kaiming(fan: usize, slope: f64) -> Self {
        let gain = if slope == 0.0 { 2f64.sqrt() } else { (2.0 / (1.0 + slope * slope)).sqrt() };
        Self::Normal { mean: 0.0, std: gain / (fan as f64).sqrt() }
    }

    pub(super) fn spread(distribution: Distribution, std: f64) -> Self {
        match distribution {
            Distribution::Normal => Self::Normal { mean: 0.0, std },
            Distribution::Uniform => {
                Self::Uniform { a: -(3f64.sqrt() * std), b: 3f64.sqrt() * std }
            }
        }
    }
}

/// Inputs and outputs that a weight `[out, in, kh, kw]` joins.
pub(super) fn fans(weight: &Handle) -> (f64, f64) {
    let size = weight.shape();
    let window = size.iter().skip(2).product::<usize>() as f64;
    let [output, input] = [size[0], size.get(1).copied().unwrap_or(1)];
    (input as f64 * window, output as f64 * window)
}

/// Fills a tensor.
pub(super) fn write(tensor: &Weight, fill: Fill, seed: u64) {
    let mut target = tensor.tensor.clone();
    if let Fill::Constant(value) = fill {
        target.fill_with(value);
        return;
    }
    let mut random = Pcg64::seed_from_u64(seed ^ fingerprint(&tensor.name));
    let count = target.numel();
    let values: Vec<f32> = match fill {
        Fill::Constant(value) => vec![value as f32; count],
        Fill::Uniform { a, b } => {
            (0..count).map(|_| (a + (b - a) * random.random::<f64>()) as f32).collect()
        }
        Fill::Normal { mean, std } => all_normals(&random, count, |it| (mean + std * it) as f32),
        Fill::TruncNormal { mean, std, a, b } => normals(&mut random)
            .map(|it| mean + std * it)
            .filter(|it| (a..=b).contains(it))
            .take(count)
            .map(|it| it as f32)
            .collect(),
    };
    target.write(&values);
}

/// `count` of [`normals`], each changed by `scale`: on all of libtorch's threads, the same numbers
/// for any number of them.
fn all_normals(random: &Pcg64, count: usize, scale: impl Fn(f64) -> f32 + Sync) -> Vec<f32> {
    /// Fewer are not worth a thread.
    const WORTH: usize = 1 << 15;
    let threads = ops::threads().clamp(1, count.div_ceil(WORTH).max(1));
    let part = count.div_ceil(threads).next_multiple_of(2).max(2);
    let mut values = vec![0.0; count];
    std::thread::scope(|scope| {
        for (index, values) in values.chunks_mut(part).enumerate() {
            let mut random = random.clone();
            let scale = &scale;
            let mut fill = move || {
                // A normal takes one number of the generator: two take two.
                random.advance((index * part) as u128);
                values.iter_mut().zip(normals(&mut random)).for_each(|(to, it)| *to = scale(it));
            };
            if threads == 1 {
                fill();
            } else {
                scope.spawn(fill);
            }
        }
    });
    values
}

/// Standard normals, two from each pair of uniforms (Box and Muller 1958).
fn normals(random: &mut Pcg64) -> impl Iterator<Item = f64> + '_ {
    std::iter::repeat_with(move || {
        let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * random.random::<f64>()).sin_cos();
        [radius * cos, radius * sin]
    })
    .flatten()
}

/// 64-bit FNV-1a.
fn fingerprint(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_draw_what_one_would() {
        for count in [0, 1, 7, (1 << 17) + 3] {
            let random = Pcg64::seed_from_u64(5);
            let expected: Vec<f32> =
                normals(&mut random.clone()).take(count).map(|it| it as f32).collect();
            assert!(all_normals(&random, count, |it| it as f32) == expected, "{count}");
        }
    }
}
