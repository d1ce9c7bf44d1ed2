//! From logits to labels: which class each pixel is, and how often that was right.

use burn::tensor::{Device, Int, Tensor};
use segslurm_native::aten;
use tch::Kind;

use super::border::{from_tch, to_tch};
use super::error::computed;

/// The class with the largest of `logits` `[n, c, h, w]` at each pixel, `[n, h, w]` stored as
/// bytes; the first where several are largest. No gradient.
pub fn label_map(logits: &Tensor<4>) -> Tensor<3, Int> {
    let [_, _, height, width] = logits.dims();
    resized_label_map(logits, [height, width], false)
}

/// [`label_map`] of the logits resized to `size` (height, width) as
/// [`resize_bilinear`](super::resize_bilinear) would, but without ever holding them at that size
/// (on the CPU, in `f32`).
pub fn resized_label_map(
    logits: &Tensor<4>,
    size: [usize; 2],
    align_corners: bool,
) -> Tensor<3, Int> {
    let [_, classes, ..] = logits.dims();
    assert!((1..=256).contains(&classes), "label_map: expected 1 to 256 classes, got {classes}");
    let values = to_tch(logits);
    let labels = if values.device() == tch::Device::Cpu && values.kind() == Kind::Float {
        computed(
            "label_map",
            [&values],
            aten::label_map(&values, size.map(|it| it as i64), align_corners),
        )
    } else {
        let resized = to_tch(&super::resize_bilinear(logits.clone().inner(), size, align_corners));
        computed(
            "label_map",
            [&resized],
            resized.f_argmax(1, false).and_then(|it| it.f_to_kind(Kind::Uint8)),
        )
    };
    from_tch(labels, &logits.device())
}

/// The label map of logits that come from the top in strips, so that never all of them are there at
/// once. The result is that of [`resized_label_map`] over the whole: to the bit on the CPU in `f32`
/// and where nothing is resized; elsewhere the strips are resized by the CPU's kernel.
#[derive(Debug)]
pub struct LabelStrips {
    /// Height and width of the logits, and of the result.
    from: [usize; 2],
    size: [usize; 2],
    align_corners: bool,
    /// The rows and lines that were taken and made so far.
    taken: usize,
    made: usize,
    /// The last row taken: the next line may lie between it and the next row.
    last: Option<tch::Tensor>,
    /// Finished lines `[1, lines, w]`, as bytes.
    parts: Vec<tch::Tensor>,
}

impl LabelStrips {
    pub fn new(from: [usize; 2], size: [usize; 2], align_corners: bool) -> Self {
        Self { from, size, align_corners, taken: 0, made: 0, last: None, parts: Vec::new() }
    }

    /// Takes the next rows of logits, `[1, c, rows, w]`.
    pub fn push(&mut self, rows: &Tensor<4>) {
        let rows = to_tch(rows);
        let count = rows.size()[2];
        if self.from == self.size {
            self.parts.push(to_tch(&label_map(&rows.into_burn(&Device::libtorch()))).into_tensor());
            self.taken += count as usize;
            return;
        }
        let rows = rows.to_device(tch::Device::Cpu).to_kind(Kind::Float);
        let above = i64::from(self.last.is_some());
        let given = self.last.take().map_or_else(
            || rows.shallow_clone(),
            |last| tch::Tensor::cat(&[last, rows.shallow_clone()], 2),
        );
        let strip = aten::Strip { start: self.taken as i64 - above, height: self.from[0] as i64 };
        let size = self.size.map(|it| it as i64);
        let lines =
            aten::label_map_strip(&given, strip, size, self.made as i64, self.align_corners);
        let lines = computed("label_map", [&given], lines);
        self.made += lines.size()[1] as usize;
        self.taken += count as usize;
        self.last = (count > 0).then(|| rows.narrow(2, count - 1, 1).copy());
        self.parts.push(lines);
    }

    /// The labels `[1, h, w]` as bytes, once all rows were taken.
    pub fn finish(self) -> Tensor<3, Int> {
        let labels = tch::Tensor::cat(&self.parts, 1);
        from_tch(labels, &Device::libtorch())
    }
}

/// 1 where the sigmoid of `logits` `[n, 1, h, w]` exceeds `threshold`, else 0: `[n, h, w]` stored
/// as bytes. No gradient.
pub fn foreground(logits: &Tensor<4>, threshold: f64) -> Tensor<3, Int> {
    let labels = to_tch(logits).sigmoid().gt(threshold).to_kind(Kind::Uint8).squeeze_dim(1);
    from_tch(labels, &logits.device())
}

/// The share of pixels, in percent `[1]`, whose label in `target` `[n, h, w]` has the largest of
/// `logits` `[n, c, h, w]`, among those that are not `ignore_index`. It stays on the device; no
/// gradient.
pub fn accuracy(
    logits: &Tensor<4>,
    target: &Tensor<3, Int>,
    ignore_index: Option<i64>,
) -> Tensor<1> {
    let ([n, _, height, width], labels) = (logits.dims(), target.dims());
    assert_eq!(
        [n, height, width],
        labels,
        "accuracy: logits of shape {:?} for labels of shape {labels:?}",
        logits.dims()
    );
    let target = to_tch(target);
    let correct = to_tch(&label_map(logits)).eq_tensor(&target);
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

#[cfg(test)]
mod tests {
    use super::super::reference::{constant, flat, labels, values};
    use super::*;

    fn bytes(map: &Tensor<3, Int>) -> Vec<u8> {
        let map = to_tch(map);
        assert_eq!(map.kind(), Kind::Uint8);
        Vec::try_from(map.contiguous().view(-1)).expect("bytes")
    }

    fn expected(logits: &Tensor<4>) -> Vec<u8> {
        let [n, classes, height, width] = logits.dims();
        let (values, pixels) = (flat(logits), height * width);
        let at = |image: usize, class: usize, pixel: usize| {
            values[(image * classes + class) * pixels + pixel]
        };
        let best = |image, pixel| {
            (0..classes).fold(0, |best, it| {
                if at(image, it, pixel) > at(image, best, pixel) { it } else { best }
            })
        };
        (0..n).flat_map(|image| (0..pixels).map(move |pixel| best(image, pixel) as u8)).collect()
    }

    #[test]
    fn labels_are_the_largest_logits_in_either_layout_and_type() {
        for device in [Device::libtorch(), Device::libtorch().autodiff()] {
            let logits = constant(&values(2 * 7 * 3 * 11, 1), [2, 7, 3, 11], &device);
            assert_eq!(bytes(&label_map(&logits)), expected(&logits));
            let last = to_tch(&logits)
                .permute([0, 2, 3, 1])
                .contiguous()
                .permute([0, 3, 1, 2])
                .to_kind(Kind::Float);
            let last: Tensor<4> = from_tch(last, &device);
            assert_eq!(bytes(&label_map(&last)), expected(&logits));
        }
    }

    #[test]
    fn the_first_of_equals_wins() {
        let logits = constant(&[1.0, 3.0, 3.0, 3.0, 0.0, 3.0], [1, 3, 1, 2], &Device::libtorch());
        assert_eq!(bytes(&label_map(&logits)), [1, 0]);
        let narrow: Tensor<4> = from_tch(to_tch(&logits).to_kind(Kind::Float), &Device::libtorch());
        assert_eq!(bytes(&label_map(&narrow)), [1, 0]);
    }

    #[test]
    fn resized_labels_are_those_of_resized_logits() {
        let logits = tch::Tensor::from_slice(&values(2 * 5 * 4 * 7, 1))
            .view([2, 5, 4, 7])
            .to_kind(Kind::Float);
        let logits: Tensor<4> = from_tch(logits, &Device::libtorch());
        for align_corners in [false, true] {
            for size in [[17, 23], [3, 5], [4, 7]] {
                let resized = super::super::resize_bilinear(logits.clone(), size, align_corners);
                assert_eq!(
                    bytes(&resized_label_map(&logits, size, align_corners)),
                    expected(&resized)
                );
            }
        }
    }

    #[test]
    fn labels_of_strips_are_those_of_the_whole() {
        let logits = tch::Tensor::from_slice(&values(5 * 11 * 7, 1))
            .view([1, 5, 11, 7])
            .to_kind(Kind::Float);
        let whole: Tensor<4> = from_tch(logits.shallow_clone(), &Device::libtorch());
        for align_corners in [false, true] {
            for size in [[17, 23], [3, 5], [11, 7], [11, 9], [40, 7], [1, 1]] {
                let expected = resized_label_map(&whole, size, align_corners);
                for heights in [vec![11], vec![1; 11], vec![4, 4, 3], vec![10, 1]] {
                    let mut strips = LabelStrips::new([11, 7], size, align_corners);
                    let mut start = 0;
                    for height in heights {
                        strips
                            .push(&from_tch(logits.narrow(2, start, height), &Device::libtorch()));
                        start += height;
                    }
                    let found = strips.finish();
                    assert_eq!(found.dims(), [1, size[0], size[1]]);
                    assert_eq!(
                        bytes(&found),
                        bytes(&expected),
                        "{size:?}, align_corners {align_corners}"
                    );
                }
            }
        }
    }

    #[test]
    fn accuracy_counts_what_is_not_ignored() {
        let device = Device::libtorch();
        // Labels 1, 0, 1, 0 by the logits.
        let logits = constant(&[0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0], [1, 2, 2, 2], &device);
        let target = labels(&[1, 0, 0, 255], [1, 2, 2], &device);
        let percent = |ignored| flat(&accuracy(&logits, &target, ignored))[0];
        assert!((percent(Some(255)) - 200.0 / 3.0).abs() < 1e-4);
        assert!((percent(None) - 50.0).abs() < 1e-4);
    }
}
