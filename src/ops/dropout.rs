//! Dropout of whole channels, a pure function of its seed.
//!
//! The mask comes from a generator of its own and not from libtorch's global one, so that a resumed run draws the masks
//! that the uninterrupted one would have drawn.

use burn::tensor::Tensor;
use burn_tch::TchTensor;
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;
use segslurm_native::{NativeError, device};

use super::error::computed;
use super::function::{Function, is_exclusive, unary};

/// Zeroes each channel of each image of `x` `[n, c, h, w]` with probability `p` and scales the others by `1 / (1 - p)`.
/// Written over `x` when that is the last handle to its storage. Call it in training only.
pub fn dropout2d(x: Tensor<4>, p: f64, seed: u64) -> Tensor<4> {
    assert!((0.0..=1.0).contains(&p), "dropout2d: expected a probability from 0 to 1, got {p}");
    if p == 0.0 {
        return x;
    }
    unary(x, Dropout { p, seed })
}

#[derive(Debug, Clone, Copy)]
struct Dropout {
    p: f64,
    seed: u64,
}

impl Dropout {
    /// `[n, c, 1, 1]`: 0, or the factor that keeps the expectation.
    fn mask(self, like: &tch::Tensor) -> Result<tch::Tensor, NativeError> {
        let size = like.size();
        let mut random = Pcg64::seed_from_u64(self.seed);
        let kept = (1.0 / (1.0 - self.p)) as f32;
        let mask: Vec<f32> = (0..size[0] * size[1]).map(|_| if random.random::<f64>() < self.p { 0.0 } else { kept }).collect();
        Ok(device::send(&tch::Tensor::from_slice(&mask), like.device())?.view([size[0], size[1], 1, 1]).to_kind(like.kind()))
    }
}

fn masked(mut x: TchTensor, mask: &TchTensor) -> TchTensor {
    let y = if is_exclusive(&x) { x.tensor.f_mul_(&mask.tensor) } else { x.tensor.f_mul(&mask.tensor) };
    TchTensor::new(computed("dropout2d", [&x.tensor], y))
}

impl Function<1> for Dropout {
    type Saved = TchTensor;

    fn forward(&self, [x]: [TchTensor; 1], _: [bool; 1]) -> (TchTensor, TchTensor) {
        let mask = TchTensor::new(computed("dropout2d", [&x.tensor], self.mask(&x.tensor)));
        (masked(x, &mask), mask)
    }

    fn backward(&self, mask: TchTensor, grad: TchTensor, _: [bool; 1]) -> [Option<TchTensor>; 1] {
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
        let kept = run(1).chunks(4).filter(|channel| channel.iter().all(|it| (it - 1.0 / 0.6).abs() < 1e-6)).count();
        assert_eq!(dropped + kept, 100);
        assert!((25..=55).contains(&dropped), "{dropped} of 100 channels went at p = 0.4");
    }

    #[test]
    fn gradients_pass_where_values_did() {
        let dropped = |x: &[Tensor<1>]| dropout2d(x[0].clone().reshape([2, 3, 2, 1]), 0.5, 7);
        let mask = flat(&dropout2d(constant(&[1.0; 12], [2, 3, 2, 1], &Device::libtorch()), 0.5, 7));
        check(&[values(12, 1)], dropped, |x| x[0].clone().reshape([2, 3, 2, 1]) * constant(&mask, [2, 3, 2, 1], &x[0].device()));
    }

    #[test]
    fn the_extremes_keep_all_and_nothing() {
        let device = Device::libtorch();
        let x = constant(&values(12, 1), [2, 3, 2, 1], &device);
        assert_eq!(flat(&dropout2d(x.clone(), 0.0, 1)), values(12, 1));
        assert_eq!(flat(&dropout2d(x, 1.0, 1)), [0.0; 12]);
    }
}
