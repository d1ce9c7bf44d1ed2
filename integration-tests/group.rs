//! What two ranks compute together, inside the library: each test starts itself again, once a rank,
//! over real Gloo.

use burn::tensor::{Device, Tensor};
use segslurm::ops::{self, Activation, BatchNorm, MemoryFormat, batch_norm};
use segslurm::testing::dist::{Group, Reduce};
use tch::Kind;

use crate::two_ranks::on_two_ranks;

fn constant(values: &tch::Tensor, device: &Device) -> Tensor<4> {
    ops::from_tch(values.shallow_clone(), device)
}

/// Numbers without a pattern, from -1 to 1, far from the mean 0 that hides mistakes.
fn values(shape: [i64; 4], seed: i64) -> tch::Tensor {
    let count: i64 = shape.iter().product();
    let ramp = tch::Tensor::arange(count, (Kind::Double, tch::Device::Cpu)) + seed as f64;
    ((ramp * 12.9898).sin() * 43758.5453).frac().view(shape) + 0.3
}

struct Normed {
    y: tch::Tensor,
    grads: [tch::Tensor; 3],
    running: [tch::Tensor; 2],
}

/// A batch norm of `x` forward and backward, with `dy` as the gradient of its output.
fn norm(
    x: &tch::Tensor,
    dy: &tch::Tensor,
    activation: Activation,
    group: Option<&Group>,
    kind: Kind,
) -> Normed {
    let device = Device::libtorch().autodiff();
    let channel = |values: &[f64]| tch::Tensor::from_slice(values).to_kind(kind);
    let x = constant(x, &device).require_grad();
    let weight: Tensor<1> = ops::from_tch(channel(&[0.5, -2.0, 1.5]), &device);
    let bias: Tensor<1> = ops::from_tch(channel(&[0.1, 0.2, -0.3]), &device);
    let (weight, bias) = (weight.require_grad(), bias.require_grad());
    let mean: Tensor<1> = ops::from_tch(channel(&[0.0; 3]), &device);
    let var: Tensor<1> = ops::from_tch(channel(&[1.0; 3]), &device);
    let options = BatchNorm { training: true, momentum: 0.1, eps: 1e-5, activation, group };
    let y = batch_norm(x.clone(), weight.clone(), bias.clone(), &mean, &var, options);
    let mut grads = (y.clone() * constant(dy, &device)).sum().backward();
    Normed {
        y: ops::to_tch(&y).copy(),
        grads: [
            ops::gradient(&x, &mut grads).expect("of the input").copy(),
            ops::gradient(&weight, &mut grads).expect("of the weight").copy(),
            ops::gradient(&bias, &mut grads).expect("of the bias").copy(),
        ],
        running: [ops::to_tch(&mean).copy(), ops::to_tch(&var).copy()],
    }
}

#[track_caller]
fn close(what: &str, found: &tch::Tensor, expected: &tch::Tensor, relative: f64, absolute: f64) {
    let (found, expected) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    let excess = ((&found - &expected).abs() - expected.abs() * relative - absolute).flatten(0, -1);
    let worst = excess.argmax(None, false).int64_value(&[]);
    let at = |it: &tch::Tensor| it.flatten(0, -1).double_value(&[worst]);
    assert!(at(&excess) <= 0.0, "{what}: {} at {worst}, expected {}", at(&found), at(&expected));
}

#[test]
fn sync_batch_norm_is_batch_norm_of_all_ranks_batches() {
    on_two_ranks("group::sync_batch_norm_is_batch_norm_of_all_ranks_batches", |group| {
        let (x, dy) = (values([3, 3, 4, 5], 1), values([3, 3, 4, 5], 1000));
        // Two images for rank 0, one for rank 1.
        let (start, length) = if group.is_main() { (0, 2) } else { (2, 1) };
        let part = |it: &tch::Tensor| it.narrow(0, start, length).contiguous();
        let formats = [MemoryFormat::Contiguous, MemoryFormat::ChannelsLast];
        let activations =
            [Activation::None, Activation::ReLU, Activation::Sigmoid, Activation::SiLU];
        for (format, activation) in
            formats.into_iter().flat_map(|format| activations.map(|it| (format, it)))
        {
            let whole = norm(&x, &dy, activation, None, Kind::Double);
            let (x, dy) = (format.copied(&part(&x)), format.copied(&part(&dy)));
            let mine = norm(&x, &dy, activation, Some(group), Kind::Double);
            close("y", &mine.y, &part(&whole.y), 0.0, 1e-12);
            close("the input's gradient", &mine.grads[0], &part(&whole.grads[0]), 0.0, 1e-12);
            for place in [1, 2] {
                group.all_reduce(&mine.grads[place], Reduce::Sum).expect("the sum");
                close(
                    "a parameter's gradient",
                    &mine.grads[place],
                    &whole.grads[place],
                    0.0,
                    1e-12,
                );
            }
            for (mine, whole) in mine.running.iter().zip(&whole.running) {
                close("a running statistic", mine, whole, 0.0, 1e-12);
            }
        }
    });
}

#[test]
fn sync_batch_norm_rounds_a_half_precision_gradient_once() {
    on_two_ranks("group::sync_batch_norm_rounds_a_half_precision_gradient_once", |group| {
        let half = |it: tch::Tensor| it.to_kind(Kind::BFloat16);
        let (x, dy) = (half(values([4, 3, 9, 7], 1) + 4.0), half(values([4, 3, 9, 7], 1000)));
        let part = |it: &tch::Tensor| it.narrow(0, 2 * group.rank() as i64, 2).contiguous();
        let double = |it: &tch::Tensor| it.to_kind(Kind::Double);
        let exact = norm(&double(&x), &double(&dy), Activation::None, None, Kind::Double);
        let mine = norm(&part(&x), &part(&dy), Activation::None, Some(group), Kind::Float);
        assert_eq!(
            (mine.y.kind(), mine.grads[0].kind(), mine.grads[1].kind()),
            (Kind::BFloat16, Kind::BFloat16, Kind::Float)
        );
        // bfloat16 has 8 bits of precision: rounding once is off by at most 2^-8 of the value.
        let ulp = 2.0_f64.powi(-8) * 1.01;
        close("the input's gradient", &mine.grads[0], &part(&exact.grads[0]), ulp, 2e-5);
        for (mine, exact) in mine.running.iter().zip(&exact.running) {
            close("a running statistic", mine, exact, 2e-6, 0.0);
        }
    });
}

#[test]
fn texts_flags_and_sums_reach_all_ranks() {
    on_two_ranks("group::texts_flags_and_sums_reach_all_ranks", |group| {
        let rank = group.rank();
        let text = "x".repeat(rank * 70_000);
        let all = group.all_gather_text(&text).expect("texts");
        assert_eq!(all.iter().map(String::len).collect::<Vec<_>>(), [0, 70_000]);
        assert_eq!(
            group.broadcast_text(if rank == 0 { "seven" } else { "" }).expect("a text"),
            "seven"
        );
        assert!(group.any(rank == 1).expect("a flag") && !group.any(false).expect("a flag"));
        let whole = 2.0_f64.powi(51) + rank as f64;
        assert_eq!(group.sums(&[whole, 1.5]).expect("sums"), [2.0_f64.powi(52) + 1.0, 3.0]);
        let before = group.traffic();
        let _ = group
            .all_gather(&tch::Tensor::zeros([250], (Kind::Float, tch::Device::Cpu)))
            .expect("gathers");
        assert_eq!(group.traffic().bytes - before.bytes, 1000);
    });
}
