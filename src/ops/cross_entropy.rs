//! Cross entropy over classes, fused with its softmax; the backward turns the saved
//! log-probabilities into the gradient in place.

use burn::tensor::{Int, Tensor};
use tch::Kind;

use super::border::{Handle, from_tch, to_tch};
use super::constant::Constant;
use super::error::computed;
use super::function::{Function, apply};

/// How the losses of pixels become one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reduction {
    /// Divide the sum by the number of pixels, ignored ones included (mmseg's `mean`). With class
    /// weights, divide by the sum of the weights of the pixels' classes, in which ignored pixels
    /// count nothing.
    #[default]
    Mean,
    /// Divide the sum by the number of pixels that are not ignored (mmseg's `avg_non_ignore`), or
    /// the sum of their weights.
    MeanNonIgnored,
    Sum,
}

/// Options of [`cross_entropy`].
#[derive(Debug, Clone, PartialEq)]
pub struct CrossEntropy {
    /// A factor for each class.
    pub class_weight: Option<Constant>,
    /// The label that counts nothing.
    pub ignore_index: i64,
    pub reduction: Reduction,
}

impl Default for CrossEntropy {
    fn default() -> Self {
        Self { class_weight: None, ignore_index: 255, reduction: Reduction::Mean }
    }
}

/// Cross entropy of `logits` `[n, c, h, w]` against the labels `target` `[n, h, w]`, as one number
/// `[1]` in `f32`.
///
/// Labels other than `ignore_index` must be below `c`.
pub fn cross_entropy(
    logits: Tensor<4>,
    target: Tensor<3, Int>,
    options: &CrossEntropy,
) -> Tensor<1> {
    let denominator = denominator(&logits, &target, options);
    divided(cross_entropy_per_pixel(logits, target, options).sum(), denominator)
}

/// [`cross_entropy`] with a factor for each pixel, `pixel_weight` `[n, h, w]` (as OHEM's selection
/// gives it), which the denominator does not count.
pub fn cross_entropy_weighted(
    logits: Tensor<4>,
    target: Tensor<3, Int>,
    options: &CrossEntropy,
    pixel_weight: Tensor<3>,
) -> Tensor<1> {
    let denominator = denominator(&logits, &target, options);
    divided((cross_entropy_per_pixel(logits, target, options) * pixel_weight).sum(), denominator)
}

/// The loss of each pixel `[n, h, w]` in `f32`, times its class's weight, and 0 where the label is
/// ignored; `reduction` is not looked at.
pub fn cross_entropy_per_pixel(
    logits: Tensor<4>,
    target: Tensor<3, Int>,
    options: &CrossEntropy,
) -> Tensor<3> {
    let ([n, classes, height, width], labels) = (logits.dims(), target.dims());
    assert_eq!(
        [n, height, width],
        labels,
        "cross_entropy: logits of shape {:?} for labels of shape {labels:?}",
        logits.dims()
    );
    if let Some(weights) = options.class_weight.as_ref().map(Constant::values) {
        assert_eq!(
            weights.len(),
            classes,
            "cross_entropy: {} class weights for {classes} classes",
            weights.len()
        );
    }
    let target = as_labels(target);
    let class_weight = options.class_weight.as_ref().map(|it| Handle::new(it.on(target.device())));
    apply([logits.into()], PerPixel { target, class_weight, ignore_index: options.ignore_index })
}

/// Labels as the kernels want them: 64-bit, sharing storage if they are already.
pub(super) fn as_labels(target: Tensor<3, Int>) -> Handle {
    let target = Handle::of(target);
    target.derive(target.to_kind(Kind::Int64))
}

pub(super) fn divided(sum: Tensor<1>, denominator: Denominator) -> Tensor<1> {
    match denominator {
        Denominator::Known(count) => sum / count,
        Denominator::OnDevice(count) => sum / count,
    }
}

/// A count that depends on labels stays on the device: reading it would stall the host.
pub(super) enum Denominator {
    Known(f64),
    OnDevice(Tensor<1>),
}

pub(super) fn denominator(
    logits: &Tensor<4>,
    target: &Tensor<3, Int>,
    options: &CrossEntropy,
) -> Denominator {
    let pixels = target.dims().iter().product::<usize>() as f64;
    let count = match (options.reduction, &options.class_weight) {
        (Reduction::Sum, _) => return Denominator::Known(1.0),
        (Reduction::Mean, None) => return Denominator::Known(pixels),
        (Reduction::MeanNonIgnored, None) => {
            to_tch(target).not_equal(options.ignore_index).sum(Kind::Float)
        }
        (_, Some(weights)) => {
            let labels = to_tch(target).to_kind(Kind::Int64);
            let valid = labels.not_equal(options.ignore_index);
            weights
                .on(labels.device())
                .index_select(0, &labels.where_scalarother(&valid, 0).flatten(0, -1))
                .dot(&valid.flatten(0, -1).to_kind(Kind::Float))
        }
    };
    // All pixels ignored: the sum is 0, and so is the loss.
    let count = (count + f64::from(f32::EPSILON)).view([1]);
    Denominator::OnDevice(from_tch(count, &logits.device()))
}

#[derive(Debug, Clone)]
struct PerPixel {
    /// `[n, h, w]` in `i64`.
    target: Handle,
    class_weight: Option<Handle>,
    ignore_index: i64,
}

#[derive(Debug, Clone)]
struct Saved {
    /// Log-probabilities, of which this is the only handle.
    log_softmax: Handle,
    logits_kind: Kind,
}

/// `f16` and `bf16` compute in `f32`.
pub(super) fn loss_kind(kind: Kind) -> Kind {
    if kind == Kind::Double { Kind::Double } else { Kind::Float }
}

impl PerPixel {
    fn loss(&self, logits: &tch::Tensor) -> Result<(tch::Tensor, tch::Tensor), tch::TchError> {
        let kind = loss_kind(logits.kind());
        let log_softmax = logits.f_log_softmax(1, kind)?;
        let weight = self.class_weight.as_ref().map(|it| it.to_kind(kind));
        let loss = log_softmax.f_nll_loss2d(
            &self.target,
            weight,
            tch::Reduction::None,
            self.ignore_index,
        )?;
        Ok((loss, log_softmax))
    }

    /// `(softmax - one_hot) · weight · grad`, over the storage of `log_softmax`.
    fn grad(
        &self,
        mut log_softmax: tch::Tensor,
        grad: &tch::Tensor,
    ) -> Result<tch::Tensor, tch::TchError> {
        let target = self.target.f_unsqueeze(1)?;
        let valid = target.f_not_equal(self.ignore_index)?;
        let target = target.f_where_scalarother(&valid, 0)?;
        let mut scale = grad.f_unsqueeze(1)?.f_where_scalarother(&valid, 0.0)?;
        if let Some(weight) = &self.class_weight {
            let weight =
                weight.f_to_kind(scale.kind())?.f_index_select(0, &target.f_flatten(0, -1)?)?;
            scale = scale.f_mul(&weight.f_view_as(&target)?)?;
        }
        let minus_one = tch::Tensor::f_full([1], -1.0, (log_softmax.kind(), log_softmax.device()))?
            .f_expand(target.size(), false)?;
        log_softmax.f_exp_()?.f_scatter_add_(1, &target, &minus_one)?.f_mul_(&scale)
    }
}

impl Function<1> for PerPixel {
    const NAME: &'static str = "cross_entropy";

    type Saved = Saved;

    fn forward(&self, [logits]: [Handle; 1], _: [bool; 1]) -> (Handle, Saved) {
        let logits_kind = logits.kind();
        let (loss, log_softmax) = computed("cross_entropy", [&logits], self.loss(&logits));
        (Handle::new(loss), Saved { log_softmax: Handle::new(log_softmax), logits_kind })
    }

    fn backward(&self, saved: Saved, grad: Handle, _: [bool; 1]) -> [Option<Handle>; 1] {
        let grad = computed(
            "cross_entropy backward",
            [&grad],
            self.grad(saved.log_softmax.into_tensor(), &grad),
        );
        [Some(Handle::new(grad.to_kind(saved.logits_kind)))]
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::super::gradient;
    use super::super::reference::{assert_close, check, constant, flat, labels, nll, values};
    use super::*;

    const SHAPE: [usize; 4] = [2, 3, 2, 5];
    const LABELS: [i64; 20] = [0, 1, 2, 255, 1, 1, 0, 2, 2, 255, 255, 0, 0, 1, 2, 0, 1, 255, 2, 1];
    const WEIGHTS: [f32; 3] = [0.5, 2.0, 1.25];

    fn known() -> Vec<i64> {
        LABELS.iter().map(|&it| if it == 255 { 0 } else { it }).collect()
    }

    /// The factor of each pixel: 0 if ignored, else its class's weight.
    fn factors(weighted: bool) -> Vec<f64> {
        let weight = |&it: &i64| {
            if it == 255 {
                0.0
            } else if weighted {
                f64::from(WEIGHTS[it as usize])
            } else {
                1.0
            }
        };
        LABELS.iter().map(weight).collect()
    }

    fn options(weighted: bool, reduction: Reduction) -> CrossEntropy {
        CrossEntropy {
            class_weight: weighted.then(|| WEIGHTS.into()),
            ignore_index: 255,
            reduction,
        }
    }

    #[test]
    fn each_pixel_matches_the_reference_and_finite_differences() {
        for weighted in [false, true] {
            check(
                &[values(60, 1)],
                |x| {
                    let target = labels(&LABELS, [2, 2, 5], &x[0].device());
                    cross_entropy_per_pixel(
                        x[0].clone().reshape(SHAPE),
                        target,
                        &options(weighted, Reduction::Mean),
                    )
                },
                |x| {
                    let device = x[0].device();
                    nll(x[0].clone().reshape(SHAPE), labels(&known(), [2, 2, 5], &device))
                        * constant(&factors(weighted), [2, 2, 5], &device)
                },
            );
        }
    }

    #[test]
    fn reductions_divide_by_what_they_say() {
        let device = Device::libtorch().autodiff();
        for weighted in [false, true] {
            let factors = factors(weighted);
            let logits = constant(&values(60, 1), SHAPE, &device);
            let losses = flat(&nll(logits.clone(), labels(&known(), [2, 2, 5], &device)));
            let sum: f64 = losses.iter().zip(&factors).map(|(loss, factor)| loss * factor).sum();
            let counted: f64 = factors.iter().sum();
            let all = if weighted { counted } else { 20.0 };
            for (reduction, expected) in [
                (Reduction::Sum, sum),
                (Reduction::Mean, sum / all),
                (Reduction::MeanNonIgnored, sum / counted),
            ] {
                let target = labels(&LABELS, [2, 2, 5], &device);
                let loss = cross_entropy(logits.clone(), target, &options(weighted, reduction));
                assert_close(&format!("{reduction:?}"), &flat(&loss), &[expected], 1e-6);
            }
        }
    }

    #[test]
    fn pixel_weights_scale_the_loss_and_its_gradient() {
        let device = Device::libtorch().autodiff();
        let logits = constant(&values(60, 1), SHAPE, &device).require_grad();
        let half = constant(&[0.5; 20], [2, 2, 5], &device);
        let target = labels(&LABELS, [2, 2, 5], &device);
        let options = options(false, Reduction::Sum);
        let whole = cross_entropy(logits.clone(), target.clone(), &options);
        let halved = cross_entropy_weighted(logits.clone(), target, &options, half);
        assert_close("loss", &flat(&halved), &[flat(&whole)[0] / 2.0], 1e-12);
        let mut whole = whole.backward();
        let mut halved = halved.backward();
        let (whole, halved) = (
            gradient(&logits, &mut whole).expect("whole"),
            gradient(&logits, &mut halved).expect("half"),
        );
        assert!((&*whole - &*halved * 2.0).abs().max().double_value(&[]) < 1e-12);
    }

    #[test]
    fn nothing_but_ignored_pixels_costs_nothing() {
        let device = Device::libtorch().autodiff();
        let logits = constant(&values(12, 1), [1, 3, 2, 2], &device).require_grad();
        for reduction in [Reduction::Mean, Reduction::MeanNonIgnored] {
            let target = labels(&[255; 4], [1, 2, 2], &device);
            let loss = cross_entropy(logits.clone(), target, &options(false, reduction));
            assert_eq!(flat(&loss), [0.0]);
            assert_eq!(
                gradient(&logits, &mut loss.backward())
                    .expect("a gradient")
                    .abs()
                    .max()
                    .double_value(&[]),
                0.0
            );
        }
    }

    #[test]
    fn half_precision_logits_lose_in_full_precision() {
        let device = Device::libtorch().autodiff();
        let logits =
            tch::Tensor::from_slice(&values(60, 1)).view([2, 3, 2, 5]).to_kind(Kind::BFloat16);
        let logits = from_tch::<4, _>(logits, &device).require_grad();
        let loss = cross_entropy(
            logits.clone(),
            labels(&LABELS, [2, 2, 5], &device),
            &CrossEntropy::default(),
        );
        assert_eq!(to_tch(&loss).kind(), Kind::Float);
        assert_eq!(
            gradient(&logits, &mut loss.backward()).expect("a gradient").kind(),
            Kind::BFloat16
        );
    }

    #[test]
    #[should_panic(
        expected = "cross_entropy: logits of shape [2, 3, 2, 5] for labels of shape [2, 5, 2]"
    )]
    fn shapes_that_differ_are_named() {
        let device = Device::libtorch();
        let logits = constant(&values(60, 1), SHAPE, &device);
        cross_entropy(logits, labels(&LABELS, [2, 5, 2], &device), &CrossEntropy::default());
    }
}
