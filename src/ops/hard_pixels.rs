//! Which pixels a model gets most wrong, and labels as planes. Nothing here has a gradient, and the
//! host waits for nothing.

use burn::tensor::{Device, Int, Tensor};
use tch::Kind;

use super::border::{Handle, from_tch, to_tch};

/// 1 for each pixel `[n, h, w]` whose label's probability by `logits` `[n, c, h, w]` is below
/// `thresh`, else 0; below a higher one where those are fewer than `kept`. Ignored pixels are never
/// counted.
pub fn least_probable(
    logits: &Tensor<4>,
    labels: &Tensor<3, Int>,
    ignore_index: i64,
    thresh: f64,
    kept: usize,
) -> Tensor<3> {
    let target = to_tch(labels).to_kind(Kind::Int64);
    let valid = target.not_equal(ignore_index);
    let known = target.where_scalarother(&valid, 0).unsqueeze(1);
    let probability =
        to_tch(logits).softmax(1, Kind::Float).gather(1, &known, false).squeeze_dim(1);
    // The threshold stays on the device; ignored pixels are sorted to the end.
    let ranked =
        probability.where_scalarother(&valid, f64::INFINITY).flatten(0, -1).sort(0, false).0;
    let last = (valid.sum(Kind::Int64) - 1).clamp_max(kept as i64).clamp_min(0).view([1]);
    let threshold = ranked.index_select(0, &last).clamp_min(thresh);
    chosen(&probability.lt_tensor(&threshold), &valid, labels)
}

/// 1 for each of the `kept` pixels `[n, h, w]` with the largest `loss`, else 0. Ignored pixels are
/// never counted.
pub fn largest(
    loss: &Tensor<3>,
    labels: &Tensor<3, Int>,
    ignore_index: i64,
    kept: usize,
) -> Tensor<3> {
    let valid = to_tch(labels).to_kind(Kind::Int64).not_equal(ignore_index);
    let ranked = to_tch(loss).where_scalarother(&valid, f64::NEG_INFINITY).flatten(0, -1);
    let hardest = ranked.topk((kept as i64).min(ranked.numel() as i64), 0, true, false).1;
    let found =
        ranked.zeros_like().index_fill(0, &hardest, 1.0).view_as(&valid).to_kind(Kind::Bool);
    chosen(&found, &valid, labels)
}

fn chosen(found: &tch::Tensor, valid: &tch::Tensor, labels: &Tensor<3, Int>) -> Tensor<3> {
    from_tch(found.logical_and(valid).to_kind(Kind::Float), &labels.device())
}

/// Labels `[n, h, w]` as planes `[n, classes, h, w]` of zeros and ones; a label that is no class is
/// in none. One plane is that of class 1, a foreground's.
pub fn class_planes(labels: &Tensor<3, Int>, classes: usize, device: &Device) -> Tensor<4> {
    let labels: Handle = to_tch(labels);
    let labels = labels.unsqueeze(1);
    let planes = if classes == 1 {
        labels.eq(1)
    } else {
        let values =
            tch::Tensor::arange(classes as i64, (Kind::Int64, labels.device())).view([1, -1, 1, 1]);
        labels.eq_tensor(&values)
    };
    from_tch(planes.to_kind(Kind::Float), device)
}
