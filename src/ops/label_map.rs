//! From logits to labels: which class each pixel is, and how often that was right.

use burn::tensor::{Int, Tensor};
use tch::Kind;

use super::border::{from_tch, to_tch};
use super::function::computed;

/// The class with the largest of `logits` `[n, c, h, w]` at each pixel, `[n, h, w]` stored as bytes; the first where
/// several are largest. No gradient.
pub fn label_map(logits: &Tensor<4>) -> Tensor<3, Int> {
    let [_, classes, ..] = logits.dims();
    assert!((1..=256).contains(&classes), "label_map: expected 1 to 256 classes, got {classes}");
    let labels = to_tch(logits).f_argmax(1, false).and_then(|it| it.f_to_kind(Kind::Uint8));
    from_tch(computed("label_map", labels), &logits.device())
}

/// [`label_map`] of the logits resized to `size` (height, width) as [`resize_bilinear`](super::resize_bilinear) would.
pub fn resized_label_map(logits: &Tensor<4>, size: [usize; 2], align_corners: bool) -> Tensor<3, Int> {
    label_map(&super::resize_bilinear(logits.clone().inner(), size, align_corners))
}

/// The share of pixels, in percent `[1]`, whose label in `target` `[n, h, w]` has the largest of `logits` `[n, c, h, w]`,
/// among those that are not `ignore_index`. It stays on the device; no gradient.
pub fn accuracy(logits: &Tensor<4>, target: &Tensor<3, Int>, ignore_index: Option<i64>) -> Tensor<1> {
    let ([n, _, height, width], labels) = (logits.dims(), target.dims());
    assert_eq!([n, height, width], labels, "accuracy: logits of shape {:?} for labels of shape {labels:?}", logits.dims());
    let target = to_tch(target).to_kind(Kind::Int64);
    let correct = to_tch(logits).argmax(1, false).eq_tensor(&target);
    let percent = match ignore_index {
        None => correct.mean(Kind::Float) * 100.0,
        Some(ignored) => {
            let valid = target.not_equal(ignored);
            let total = valid.sum(Kind::Float) + f64::from(f32::EPSILON);
            correct.logical_and(&valid).sum(Kind::Float) * 100.0 / total
        }
    };
    from_tch(percent.view([1]), &logits.device())
}
