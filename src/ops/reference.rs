//! What the operations are held against: the same mathematics in plain Burn operations, and finite
//! differences, in `f64`.

use burn::tensor::module::adaptive_avg_pool2d;
use burn::tensor::{Device, Int, Tensor, activation};
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;

use super::{OperationError, from_tch, gradient, to_tch};

/// Why an operation is refused, in the words of its [`OperationError`].
pub(super) fn refused<T>(work: impl FnOnce() -> T) -> String {
    let work = std::panic::AssertUnwindSafe(|| drop(work()));
    let payload = std::panic::catch_unwind(work).expect_err("it is refused");
    OperationError::of_panic(&*payload).expect("it says why").to_string()
}

/// Normal-looking values without ties, the same for a seed.
pub(super) fn values(count: usize, seed: u64) -> Vec<f64> {
    let mut random = Pcg64::seed_from_u64(seed);
    (0..count).map(|_| (0..4).map(|_| random.random::<f64>()).sum::<f64>() * 2.0 - 4.0).collect()
}

/// A `f64` constant; tracked by nobody.
pub(super) fn constant<const D: usize>(
    values: &[f64],
    shape: [usize; D],
    device: &Device,
) -> Tensor<D> {
    let shape: Vec<i64> = shape.iter().map(|&it| it as i64).collect();
    from_tch(tch::Tensor::from_slice(values).view(shape.as_slice()), device)
}

pub(super) fn labels<const D: usize>(
    values: &[i64],
    shape: [usize; D],
    device: &Device,
) -> Tensor<D, Int> {
    let shape: Vec<i64> = shape.iter().map(|&it| it as i64).collect();
    from_tch(tch::Tensor::from_slice(values).view(shape.as_slice()), device)
}

pub(super) fn flat<const D: usize>(x: &Tensor<D>) -> Vec<f64> {
    Vec::try_from(to_tch(x).to_kind(tch::Kind::Double).contiguous().view(-1))
        .expect("a flat tensor")
}

pub(super) fn assert_close(what: &str, actual: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(actual.len(), expected.len(), "{what}: sizes differ");
    let scale = expected.iter().fold(1.0_f64, |scale, it| scale.max(it.abs()));
    for (index, (a, e)) in actual.iter().zip(expected).enumerate() {
        assert!((a - e).abs() <= tolerance * scale, "{what}: element {index} is {a}, expected {e}");
    }
}

/// A sum in which every element counts differently, so that no two gradients are alike.
fn weighted<const D: usize>(y: Tensor<D>) -> Tensor<1> {
    let count = y.shape().num_elements();
    let weights = constant(&values(count, 99), [count], &y.device());
    (y.reshape([count]) * weights).sum()
}

fn leaves(inputs: &[Vec<f64>], device: &Device) -> Vec<Tensor<1>> {
    inputs.iter().map(|it| constant(it, [it.len()], device)).collect()
}

/// The output and the gradients of its weighted sum.
pub(super) fn differentiate<const D: usize>(
    inputs: &[Vec<f64>],
    f: impl Fn(&[Tensor<1>]) -> Tensor<D>,
) -> (Vec<f64>, Vec<Vec<f64>>) {
    let leaves: Vec<_> = leaves(inputs, &Device::libtorch().autodiff())
        .into_iter()
        .map(Tensor::require_grad)
        .collect();
    let y = f(&leaves);
    let value = flat(&y);
    let mut grads = weighted(y).backward();
    let of = |leaf| {
        Vec::try_from(gradient(leaf, &mut grads).expect("a gradient").contiguous().view(-1))
            .expect("a flat tensor")
    };
    (value, leaves.iter().map(of).collect())
}

/// Holds `f`, of flat inputs, against `reference` and against its own finite differences.
pub(super) fn check<const D: usize>(
    inputs: &[Vec<f64>],
    f: impl Fn(&[Tensor<1>]) -> Tensor<D>,
    reference: impl Fn(&[Tensor<1>]) -> Tensor<D>,
) {
    let (value, grads) = differentiate(inputs, &f);
    let (expected_value, expected_grads) = differentiate(inputs, reference);
    assert_close("value against the reference", &value, &expected_value, 1e-10);
    let device = Device::libtorch();
    assert_close("value without autodiff", &flat(&f(&leaves(inputs, &device))), &value, 1e-12);

    let step = 1e-5;
    for (which, (grad, expected)) in grads.iter().zip(&expected_grads).enumerate() {
        assert_close(&format!("gradient {which} against the reference"), grad, expected, 1e-9);
        let differences: Vec<f64> = (0..grad.len())
            .map(|element| {
                let at = |delta| {
                    let mut moved = inputs.to_vec();
                    moved[which][element] += delta;
                    flat(&weighted(f(&leaves(&moved, &device))))[0]
                };
                (at(step) - at(-step)) / (2.0 * step)
            })
            .collect();
        assert_close(
            &format!("gradient {which} against finite differences"),
            grad,
            &differences,
            1e-6,
        );
    }
}

fn per_channel(x: Tensor<1>) -> Tensor<4> {
    let [channels] = x.dims();
    x.reshape([1, channels, 1, 1])
}

/// Batch norm in evaluation, by the statistics given.
pub(super) fn normalized(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    mean: Tensor<1>,
    var: Tensor<1>,
    eps: f64,
) -> Tensor<4> {
    (x - per_channel(mean)) / per_channel((var + eps).sqrt()) * per_channel(weight)
        + per_channel(bias)
}

/// The mean and the biased variance of each channel.
pub(super) fn moments(x: Tensor<4>) -> (Tensor<1>, Tensor<1>) {
    let [n, channels, height, width] = x.dims();
    let rows = x.swap_dims(0, 1).reshape([channels, n * height * width]);
    let mean = rows.clone().mean_dim(1);
    let var = (rows - mean.clone()).powi_scalar(2).mean_dim(1);
    (mean.reshape([channels]), var.reshape([channels]))
}

/// The matrix `[to, from]` that resizes a line bilinearly.
fn resizing_matrix(from: usize, to: usize, align_corners: bool, device: &Device) -> Tensor<2> {
    let mut matrix = vec![0.0; from * to];
    for row in 0..to {
        let at = if align_corners {
            if to > 1 { row as f64 * (from - 1) as f64 / (to - 1) as f64 } else { 0.0 }
        } else {
            ((row as f64 + 0.5) * from as f64 / to as f64 - 0.5).max(0.0)
        };
        let left = (at.floor() as usize).min(from - 1);
        let right = (left + 1).min(from - 1);
        matrix[row * from + left] += 1.0 - (at - left as f64);
        matrix[row * from + right] += at - left as f64;
    }
    constant(&matrix, [to, from], device)
}

pub(super) fn resized(x: Tensor<4>, size: [usize; 2], align_corners: bool) -> Tensor<4> {
    let ([.., height, width], device) = (x.dims(), x.device());
    let rows = resizing_matrix(height, size[0], align_corners, &device).unsqueeze::<4>();
    let columns =
        resizing_matrix(width, size[1], align_corners, &device).transpose().unsqueeze::<4>();
    rows.matmul(x).matmul(columns)
}

/// Pools to a grid of one or of several cells.
pub(super) fn pooled_to(x: Tensor<4>, size: [usize; 2]) -> Tensor<4> {
    if size == [1, 1] { x.mean_dim(2).mean_dim(3) } else { adaptive_avg_pool2d(x, size) }
}

/// `[n, h, w]`: the loss of each pixel, before class weights.
pub(super) fn nll(logits: Tensor<4>, target: Tensor<3, Int>) -> Tensor<3> {
    let [n, _, height, width] = logits.dims();
    activation::log_softmax(logits, 1)
        .gather(1, target.reshape([n, 1, height, width]))
        .reshape([n, height, width])
        .neg()
}
