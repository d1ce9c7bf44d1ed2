//! Dropout of whole channels, of single values and of whole samples, each a pure function of its
//! seed.
//!
//! The mask comes from a generator of its own and not from libtorch's global one, so that a resumed
//! run draws the masks that the uninterrupted one would have drawn.

use burn::tensor::Tensor;
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;
use segslurm_native::{NativeError, device};

use super::border::Handle;
use super::error::computed;
use super::function::{Function, apply};

/// Zeroes each channel of each image of `x` `[n, c, h, w]` with probability `p` and scales the
/// others by `1 / (1 - p)`. Written over `x` when that is the last handle to its storage. Call it
/// in training only.
pub fn dropout2d(x: Tensor<4>, p: f64, seed: u64) -> Tensor<4> {
    drop_units("dropout2d", x, p, seed, Unit::Channel)
}

/// Zeroes each value of `x` with probability `p` and scales the others by `1 / (1 - p)`. In
/// training only.
pub fn dropout<const D: usize>(x: Tensor<D>, p: f64, seed: u64) -> Tensor<D> {
    drop_units("dropout", x, p, seed, Unit::Value)
}

/// Zeroes all of a sample's values with probability `p` and scales the other samples by `1 / (1 -
/// p)`; the first axis of `x` counts samples (stochastic depth, Huang et al. 2016). In training
/// only.
pub fn drop_path<const D: usize>(x: Tensor<D>, p: f64, seed: u64) -> Tensor<D> {
    drop_units("drop_path", x, p, seed, Unit::Sample)
}

fn drop_units<const D: usize>(
    operation: &str,
    x: Tensor<D>,
    p: f64,
    seed: u64,
    unit: Unit,
) -> Tensor<D> {
    assert!((0.0..=1.0).contains(&p), "{operation}: expected a probability from 0 to 1, got {p}");
    if p == 0.0 { x } else { apply([x.into()], Dropout { p, seed, unit }) }
}

/// What is dropped as one.
#[derive(Debug, Clone, Copy)]
enum Unit {
    Value,
    Channel,
    Sample,
}

impl Unit {
    /// The shape of a mask for values of `size`.
    fn mask(self, size: &[i64]) -> Vec<i64> {
        let kept = match self {
            Self::Value => size.len(),
            Self::Channel => 2,
            Self::Sample => 1,
        };
        size.iter()
            .enumerate()
            .map(|(axis, &length)| if axis < kept { length } else { 1 })
            .collect()
    }
}

#[derive(Debug, Clone, Copy)]
struct Dropout {
    p: f64,
    seed: u64,
    unit: Unit,
}

impl Dropout {
    /// 0, or the factor that keeps the expectation, for each unit.
    fn mask(self, like: &tch::Tensor) -> Result<tch::Tensor, NativeError> {
        let shape = self.unit.mask(&like.size());
        let mut random = Pcg64::seed_from_u64(self.seed);
        let kept = (1.0 / (1.0 - self.p)) as f32;
        let count: i64 = shape.iter().product();
        let mask: Vec<f32> =
            (0..count).map(|_| if random.random::<f64>() < self.p { 0.0 } else { kept }).collect();
        Ok(device::send(&tch::Tensor::from_slice(&mask), like.device())?
            .view(&shape[..])
            .to_kind(like.kind()))
    }
}

fn masked(mut x: Handle, mask: &Handle) -> Handle {
    if x.is_exclusive() {
        let result = x.f_mul_(mask).map(drop);
        computed("dropout", [&x], result);
        return x;
    }
    Handle::new(computed("dropout", [&x], x.f_mul(mask)))
}

impl Function<1> for Dropout {
    const NAME: &'static str = "dropout";

    type Saved = Handle;

    fn forward(&self, [x]: [Handle; 1], _: [bool; 1]) -> (Handle, Handle) {
        let mask = Handle::new(computed("dropout", [&x], self.mask(&x)));
        (masked(x, &mask), mask)
    }

    fn backward(&self, mask: Handle, grad: Handle, _: [bool; 1]) -> [Option<Handle>; 1] {
        [Some(masked(grad, &mask))]
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::super::reference::{check, constant, flat, values};
    use super::*;

    #[test]
    fn a_seed_decides_which_channels_go() {
        let device = Device::libtorch();
        let run = |seed| flat(&dropout2d(constant(&[1.0; 400], [4, 25, 2, 2], &device), 0.4, seed));
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        let dropped = run(1).chunks(4).filter(|channel| channel == &[0.0; 4]).count();
        let kept = run(1)
            .chunks(4)
            .filter(|channel| channel.iter().all(|it| (it - 1.0 / 0.6).abs() < 1e-6))
            .count();
        assert_eq!(dropped + kept, 100);
        assert!((25..=55).contains(&dropped), "{dropped} of 100 channels went at p = 0.4");
    }

    #[test]
    fn gradients_pass_where_values_did() {
        let dropped = |x: &[Tensor<1>]| dropout2d(x[0].clone().reshape([2, 3, 2, 1]), 0.5, 7);
        let mask =
            flat(&dropout2d(constant(&[1.0; 12], [2, 3, 2, 1], &Device::libtorch()), 0.5, 7));
        check(&[values(12, 1)], dropped, |x| {
            x[0].clone().reshape([2, 3, 2, 1]) * constant(&mask, [2, 3, 2, 1], &x[0].device())
        });
    }

    #[test]
    fn values_and_samples_go_as_their_seed_says() {
        let device = Device::libtorch();
        let ones = || constant(&[1.0; 1200], [12, 10, 10], &device);
        let dropped = |values: &[f64]| values.iter().filter(|it| **it == 0.0).count();
        let values = flat(&dropout(ones(), 0.25, 3));
        assert!(
            (220..=380).contains(&dropped(&values)),
            "{} of 1200 went at p = 0.25",
            dropped(&values)
        );
        assert!(values.iter().all(|it| *it == 0.0 || (it - 1.0 / 0.75).abs() < 1e-6));
        let samples = flat(&drop_path(ones(), 0.5, 3));
        let whole = |it: &[f64]| it.iter().all(|value| *value == it[0]);
        assert!(samples.chunks(100).all(whole) && (1..12).contains(&(dropped(&samples) / 100)));
        assert_eq!(samples, flat(&drop_path(ones(), 0.5, 3)));
        let mask = constant(&flat(&dropout(ones(), 0.25, 3)), [12, 10, 10], &device);
        assert!(mask.clone().sum().into_scalar::<f32>() > 1000.0);
        let masked = |x: &[Tensor<1>]| drop_path(x[0].clone().reshape([4, 3]), 0.5, 5);
        let factors = flat(&drop_path(constant(&[1.0; 12], [4, 3], &device), 0.5, 5));
        check(&[super::super::reference::values(12, 1)], masked, |x| {
            x[0].clone().reshape([4, 3]) * constant(&factors, [4, 3], &x[0].device())
        });
    }

    #[test]
    fn the_extremes_keep_all_and_nothing() {
        let device = Device::libtorch();
        let x = constant(&values(12, 1), [2, 3, 2, 1], &device);
        assert_eq!(flat(&dropout2d(x.clone(), 0.0, 1)), values(12, 1));
        assert_eq!(flat(&dropout2d(x, 1.0, 1)), [0.0; 12]);
    }
}
