//! Cross entropy of each class on its own, over sigmoids (mmseg's `use_sigmoid`).

use burn::tensor::{Int, Tensor};
use tch::Kind;

use super::border::{Handle, from_tch, to_tch};
use super::constant::Constant;
use super::cross_entropy::{Reduction, as_labels};
use super::error::computed;
use super::function::{Function, apply};

/// Options of [`binary_cross_entropy`].
#[derive(Debug, Clone, PartialEq)]
pub struct BinaryCrossEntropy {
    /// A factor for each class's positives.
    pub class_weight: Option<Constant>,
    /// The label that counts nothing; labels below 0 never count.
    pub ignore_index: i64,
    /// `Mean` divides by all elements, `MeanNonIgnored` by those of pixels that count.
    pub reduction: Reduction,
}

/// Binary cross entropy of `logits` `[n, c, h, w]` against the one-hot planes of `target` `[n, h,
/// w]`, as one number `[1]`. With one class the labels themselves (0 or 1) are the plane.
pub fn binary_cross_entropy(
    logits: Tensor<4>,
    target: Tensor<3, Int>,
    options: &BinaryCrossEntropy,
) -> Tensor<1> {
    let [n, classes, height, width] = logits.dims();
    let device = logits.device();
    let valid = (options.reduction == Reduction::MeanNonIgnored).then(|| {
        let count = valid(&to_tch(&target), options.ignore_index).sum(Kind::Float) * classes as f64;
        from_tch::<1, _>((count + f64::from(f32::EPSILON)).view([1]), &device)
    });
    let sum = binary_cross_entropy_per_element(logits, target, options).sum();
    match (options.reduction, valid) {
        (_, Some(count)) => sum / count,
        (Reduction::Sum, None) => sum,
        (_, None) => sum / (n * classes * height * width) as f64,
    }
}

/// The loss of each element `[n, c, h, w]` in `f32`, and 0 where the label is ignored; `reduction`
/// is not looked at.
pub fn binary_cross_entropy_per_element(
    logits: Tensor<4>,
    target: Tensor<3, Int>,
    options: &BinaryCrossEntropy,
) -> Tensor<4> {
    let ([n, classes, height, width], labels) = (logits.dims(), target.dims());
    assert_eq!(
        [n, height, width],
        labels,
        "binary_cross_entropy: logits of shape {:?} for labels of shape {labels:?}",
        logits.dims()
    );
    if let Some(weights) = options.class_weight.as_ref().map(Constant::values) {
        assert_eq!(
            weights.len(),
            classes,
            "binary_cross_entropy: {} class weights for {classes} classes",
            weights.len()
        );
    }
    let target = as_labels(target);
    let place = target.device();
    let class_weight =
        options.class_weight.as_ref().map(|it| Handle::new(it.on(place).view([-1, 1, 1])));
    apply([logits.into()], PerElement { target, class_weight, ignore_index: options.ignore_index })
}

/// [`binary_cross_entropy`] with a factor for each pixel, `pixel_weight` `[n, h, w]` (as OHEM's
/// selection gives it), which the denominator does not count.
pub fn binary_cross_entropy_weighted(
    logits: Tensor<4>,
    target: Tensor<3, Int>,
    options: &BinaryCrossEntropy,
    pixel_weight: Tensor<3>,
) -> Tensor<1> {
    let ([_, channels, ..], device) = (logits.dims(), logits.device());
    let per_element = binary_cross_entropy_per_element(logits, target.clone(), options);
    let per_element = per_element * pixel_weight.unsqueeze_dim::<4>(1);
    let count = per_element.shape().num_elements();
    let sum = per_element.sum();
    match options.reduction {
        Reduction::Sum => sum,
        Reduction::Mean => sum / count as f64,
        Reduction::MeanNonIgnored => {
            let labels = to_tch(&target);
            let valid = valid(&labels, options.ignore_index).sum(Kind::Float);
            let count = (valid * channels as f64 + f64::from(f32::EPSILON)).view([1]);
            sum / from_tch::<1, burn::tensor::Float>(count, &device)
        }
    }
}

fn valid(target: &tch::Tensor, ignore_index: i64) -> tch::Tensor {
    target.ge(0).logical_and(&target.not_equal(ignore_index))
}

#[derive(Debug, Clone)]
struct PerElement {
    /// `[n, h, w]` in `i64`.
    target: Handle,
    /// `[c, 1, 1]`.
    class_weight: Option<Handle>,
    ignore_index: i64,
}

impl PerElement {
    /// The planes to match `[n, c, h, w]`, and which pixels count `[n, 1, h, w]`.
    fn planes(&self, logits: &tch::Tensor) -> Result<(tch::Tensor, tch::Tensor), tch::TchError> {
        let target = self.target.f_unsqueeze(1)?;
        let valid = valid(&target, self.ignore_index);
        let classes = logits.size()[1];
        let planes = if classes == 1 {
            target.f_where_scalarother(&valid, 0)?
        } else {
            target.f_eq_tensor(
                &tch::Tensor::f_arange(classes, (Kind::Int64, logits.device()))?
                    .f_view([-1, 1, 1])?,
            )?
        };
        Ok((planes.f_to_kind(logits.kind())?, valid.f_to_kind(logits.kind())?))
    }

    fn loss(&self, logits: &tch::Tensor) -> Result<tch::Tensor, tch::TchError> {
        let (planes, valid) = self.planes(logits)?;
        let positive = self.class_weight.as_ref().map(|it| it.to_kind(logits.kind()));
        logits
            .f_binary_cross_entropy_with_logits(
                &planes,
                None::<tch::Tensor>,
                positive,
                tch::Reduction::None,
            )?
            .f_mul_(&valid)
    }

    /// With target y and positive weight p: `(1 - y) - (1 + (p - 1) y) · sigmoid(-x)`.
    fn grad(&self, logits: &tch::Tensor, grad: &tch::Tensor) -> Result<tch::Tensor, tch::TchError> {
        let (planes, valid) = self.planes(logits)?;
        let mut missed = logits.f_neg()?.f_sigmoid_()?;
        if let Some(positive) = &self.class_weight {
            let excess = (positive.to_kind(logits.kind()) - 1.0).f_mul(&planes)?;
            missed = missed.f_mul_(&(excess + 1.0))?;
        }
        let slope = planes.f_neg()?.f_add_scalar_(1.0)?.f_sub_(&missed)?;
        let mut slope = slope;
        slope.f_mul_(grad)?.f_mul_(&valid)
    }
}

/// `f16` and `bf16` compute in `f32`.
fn widened(logits: &tch::Tensor) -> tch::Tensor {
    if logits.kind() == Kind::Double { logits.shallow_clone() } else { logits.to_kind(Kind::Float) }
}

impl Function<1> for PerElement {
    const NAME: &'static str = "binary_cross_entropy";

    type Saved = Handle;

    fn forward(&self, [logits]: [Handle; 1], _: [bool; 1]) -> (Handle, Handle) {
        let loss = computed("binary_cross_entropy", [&logits], self.loss(&widened(&logits)));
        (Handle::new(loss), logits)
    }

    fn backward(&self, logits: Handle, grad: Handle, _: [bool; 1]) -> [Option<Handle>; 1] {
        let result = computed(
            "binary_cross_entropy backward",
            [&logits, &grad],
            self.grad(&widened(&logits), &grad),
        );
        [Some(Handle::new(result.to_kind(logits.kind())))]
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, activation};

    use super::super::reference::{assert_close, check, constant, flat, labels, values};
    use super::*;

    const LABELS: [i64; 6] = [0, 1, 255, 2, -1, 1];

    fn options(class_weight: Option<Vec<f32>>, reduction: Reduction) -> BinaryCrossEntropy {
        BinaryCrossEntropy {
            class_weight: class_weight.map(Constant::from),
            ignore_index: 255,
            reduction,
        }
    }

    /// One-hot planes and which elements count, both `[1, classes, 2, 3]`.
    fn planes(classes: usize) -> (Vec<f64>, Vec<f64>) {
        let elements =
            (0..classes).flat_map(|class| LABELS.iter().map(move |&label| (class as i64, label)));
        let hit = |(class, label)| if classes == 1 { label == 1 } else { class == label };
        elements.map(|it| (f64::from(hit(it)), f64::from(it.1 >= 0 && it.1 != 255))).unzip()
    }

    #[test]
    fn each_element_matches_the_reference_and_finite_differences() {
        for (classes, weights) in [(3, None), (3, Some(vec![0.5, 2.0, 3.0])), (1, None)] {
            let shape = [1, classes, 2, 3];
            check(
                &[values(6 * classes, 1)],
                |x| {
                    let target = labels(
                        &LABELS.map(|it| if classes == 1 && it == 2 { 0 } else { it }),
                        [1, 2, 3],
                        &x[0].device(),
                    );
                    binary_cross_entropy_per_element(
                        x[0].clone().reshape(shape),
                        target,
                        &options(weights.clone(), Reduction::Mean),
                    )
                },
                |x| {
                    let (x, device) = (x[0].clone().reshape(shape), x[0].device());
                    let (hit, counts) = planes(classes);
                    let weights: Vec<f64> = weights
                        .clone()
                        .unwrap_or(vec![1.0; classes])
                        .into_iter()
                        .map(f64::from)
                        .collect();
                    let (hit, counts) =
                        (constant(&hit, shape, &device), constant(&counts, shape, &device));
                    let positive = activation::sigmoid(x.clone()).log()
                        * hit.clone()
                        * constant(&weights, [1, classes, 1, 1], &device);
                    let negative = activation::sigmoid(x.neg()).log() * (hit.neg() + 1.0);
                    (positive + negative).neg() * counts
                },
            );
        }
    }

    #[test]
    fn reductions_divide_by_what_they_say() {
        let device = Device::libtorch();
        let logits = constant(&values(18, 1), [1, 3, 2, 3], &device);
        let target = labels(&LABELS, [1, 2, 3], &device);
        let loss = |reduction| {
            flat(&binary_cross_entropy(logits.clone(), target.clone(), &options(None, reduction)))
                [0]
        };
        let each = binary_cross_entropy_per_element(
            logits.clone(),
            target.clone(),
            &options(None, Reduction::Mean),
        );
        let sum: f64 = flat(&each).iter().sum();
        let losses = [loss(Reduction::Sum), loss(Reduction::Mean), loss(Reduction::MeanNonIgnored)];
        assert_close(
            "sum, mean, mean of non-ignored",
            &losses,
            &[sum, sum / 18.0, sum / 12.0],
            1e-7,
        );
    }
}
