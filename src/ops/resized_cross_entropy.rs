//! Cross entropy of logits that are resized to the labels' size, and their accuracy: what every
//! head's loss is.
//!
//! Both come out of one pass that also makes the gradient, and nothing of the labels' size is ever
//! in memory but the labels and, on a CUDA device, one number a pixel. Logits that are hardly
//! enlarged there have nothing to gain from that: resizing, cross entropy and accuracy follow each
//! other.

use burn::tensor::{Int, Tensor};
use segslurm_native::aten::{self, PixelLoss, PixelTotals};
use segslurm_native::{NativeError, cuda};
use tch::Kind;

use super::border::{Handle, from_tch, to_tch};
use super::constant::Constant;
use super::cross_entropy::{
    CrossEntropy, as_labels, cross_entropy, denominator, divided, loss_kind,
};
use super::error::computed;
use super::function::{Function, apply};
use super::grad_tap;
use super::label_map::accuracy;
use super::resize::resize_bilinear;

/// [`cross_entropy`] of `logits` `[n, c, h, w]`, resized to the size of `target` `[n, height,
/// width]`, as `[1]`; and the [`accuracy`] in percent of the pixels that are not ignored, `[1]`,
/// without gradient.
pub fn resized_cross_entropy(
    logits: Tensor<4>,
    target: Tensor<3, Int>,
    options: &CrossEntropy,
    align_corners: bool,
) -> (Tensor<1>, Tensor<1>) {
    let ([n, classes, ..], [labelled, height, width]) = (logits.dims(), target.dims());
    assert_eq!(n, labelled, "cross_entropy: logits of {n} images for labels of {labelled}");
    if let Some(weights) = options.class_weight.as_ref().map(Constant::values) {
        assert_eq!(
            weights.len(),
            classes,
            "cross_entropy: {} class weights for {classes} classes",
            weights.len()
        );
    }
    let values = to_tch(&logits);
    let kind = values.kind();
    let on_cuda = values.device() != tch::Device::Cpu;
    if on_cuda
        && (kind == Kind::Double || !cuda::is_built() || !much_larger(&logits, [height, width]))
    {
        let logits = resize_bilinear(logits, [height, width], align_corners);
        let percent = accuracy(&logits, &target, Some(options.ignore_index));
        return (cross_entropy(logits, target, options), percent);
    }
    let device = logits.device();
    let denominator = denominator(&logits, &target, options);
    let target = as_labels(target);
    let values = values.to_kind(loss_kind(kind));
    let weight = options.class_weight.as_ref().map(|it| it.on(values.device()));
    let with_grad = grad_tap::leaf(&logits).is_some();
    let given =
        (&values, &*target, weight.as_ref(), options.ignore_index, align_corners, with_grad);
    let found = if on_cuda { on_the_device(given) } else { on_the_cpu(given) };
    let Found { loss, grad, percent } = computed("cross_entropy", [&values, &target], found);
    let sum = Known { value: Handle::new(loss), slope: grad.map(Handle::new), kind };
    (divided(apply([logits.into()], sum), denominator), from_tch(percent, &device))
}

/// Whether the labels have at least four pixels for each logit.
fn much_larger(logits: &Tensor<4>, [height, width]: [usize; 2]) -> bool {
    let [_, _, from_height, from_width] = logits.dims();
    height * width >= 4 * from_height * from_width
}

/// What one pass finds: the sum of the losses `[1]`, its gradient, and the accuracy in percent
/// `[1]`.
struct Found {
    loss: tch::Tensor,
    grad: Option<tch::Tensor>,
    percent: tch::Tensor,
}

/// Logits, labels, class weights, `ignore_index`, `align_corners`, and whether a gradient is
/// wanted.
type Given<'a> = (&'a tch::Tensor, &'a tch::Tensor, Option<&'a tch::Tensor>, i64, bool, bool);

fn on_the_cpu(
    (logits, target, weight, ignore_index, align_corners, with_grad): Given,
) -> Result<Found, NativeError> {
    let PixelLoss { loss, grad, counted, correct } = aten::resized_cross_entropy(
        logits,
        target,
        weight,
        ignore_index,
        align_corners,
        with_grad,
    )?;
    let percent = 100.0 * correct as f64 / (counted as f64 + f64::from(f32::EPSILON));
    let loss = tch::Tensor::from_slice(&[loss]).to_kind(logits.kind());
    Ok(Found { loss, grad, percent: tch::Tensor::from_slice(&[percent as f32]) })
}

/// The host waits for nothing.
fn on_the_device(
    (logits, target, weight, ignore_index, align_corners, with_grad): Given,
) -> Result<Found, NativeError> {
    let PixelTotals { totals, grad } = aten::cuda_resized_cross_entropy(
        logits,
        target,
        weight,
        ignore_index,
        align_corners,
        with_grad,
    )?;
    let at = |place: i64| totals.narrow(0, place, 1);
    let percent = at(1) * 100.0 / (at(2) + f64::from(f32::EPSILON));
    Ok(Found { loss: at(0).to_kind(Kind::Float), grad, percent: percent.to_kind(Kind::Float) })
}

/// A number whose gradient is known already.
#[derive(Debug, Clone)]
struct Known {
    value: Handle,
    /// In the type of the value; the input's gradient gets the input's type when it is scaled.
    slope: Option<Handle>,
    kind: Kind,
}

impl Function<1> for Known {
    const NAME: &'static str = "resized_cross_entropy";

    type Saved = ();

    fn forward(&self, _: [Handle; 1], _: [bool; 1]) -> (Handle, ()) {
        (self.value.clone(), ())
    }

    fn backward(&self, (): (), grad: Handle, _: [bool; 1]) -> [Option<Handle>; 1] {
        let scaled = |slope: &Handle| {
            let scaled = computed("cross_entropy backward", [slope], slope.f_mul(&grad));
            Handle::new(scaled.to_kind(self.kind))
        };
        [self.slope.as_ref().map(scaled)]
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::super::cross_entropy::Reduction;
    use super::super::reference::{assert_close, check, constant, flat, labels, refused, values};
    use super::super::{gradient, resize_bilinear};
    use super::*;

    const SHAPE: [usize; 4] = [2, 3, 2, 3];

    fn made(size: [usize; 2]) -> Vec<i64> {
        let label = |it: usize| if it % 7 == 3 { 255 } else { (it * it / 3 % 3) as i64 };
        (0..2 * size[0] * size[1]).map(label).collect()
    }

    fn all_options() -> Vec<CrossEntropy> {
        let weights = [None, Some(Constant::from([0.5, 2.0, 1.25]))];
        let reductions = [Reduction::Mean, Reduction::MeanNonIgnored, Reduction::Sum];
        let with = |weights: &Option<Constant>| {
            let class_weight = weights.clone();
            reductions.map(|reduction| CrossEntropy {
                class_weight: class_weight.clone(),
                ignore_index: 255,
                reduction,
            })
        };
        weights.iter().flat_map(with).collect()
    }

    #[test]
    fn one_pass_matches_the_steps_it_stands_for_and_finite_differences() {
        for size in [[9, 140], [5, 7], [2, 3], [1, 2], [2, 129]] {
            for (options, align_corners) in
                all_options().iter().zip([true, false].into_iter().cycle())
            {
                check(
                    &[values(36, 1)],
                    |x| {
                        let target = labels(&made(size), [2, size[0], size[1]], &x[0].device());
                        resized_cross_entropy(
                            x[0].clone().reshape(SHAPE),
                            target,
                            options,
                            align_corners,
                        )
                        .0
                    },
                    |x| {
                        let target = labels(&made(size), [2, size[0], size[1]], &x[0].device());
                        cross_entropy(
                            resize_bilinear(x[0].clone().reshape(SHAPE), size, align_corners),
                            target,
                            options,
                        )
                    },
                );
            }
        }
    }

    #[test]
    fn single_precision_and_accuracy_match_the_steps_too() {
        let (device, size) = (Device::libtorch().autodiff(), [37, 53]);
        let options = CrossEntropy::default();
        let logits = constant(&values(2 * 150 * 35, 1), [2, 150, 5, 7], &device) * 4.0;
        let logits: Tensor<4> =
            from_tch(to_tch(&logits).to_kind(Kind::Float), &device).require_grad();
        let target: Vec<i64> =
            (0..2 * 37 * 53).map(|it| if it % 11 == 0 { 255 } else { it * 31 % 150 }).collect();
        let target = labels(&target, [2, 37, 53], &device);
        let (loss, percent) =
            resized_cross_entropy(logits.clone(), target.clone(), &options, false);
        let resized = resize_bilinear(logits.clone(), size, false);
        assert_close(
            "accuracy",
            &flat(&percent),
            &flat(&accuracy(&resized, &target, Some(255))),
            1e-5,
        );
        let expected = cross_entropy(resized, target, &options);
        assert_close("loss", &flat(&loss), &flat(&expected), 1e-6);
        let (mut grads, mut expected) = (loss.backward(), expected.backward());
        let take = |grads: &mut _| gradient(&logits, grads).expect("a gradient");
        let (grad, expected) = (take(&mut grads), take(&mut expected));
        let error = (&*grad - &*expected).abs().max().double_value(&[])
            / expected.abs().max().double_value(&[]);
        assert!(error < 1e-5, "the gradient differs by {error} of its largest");
    }

    #[test]
    fn large_logits_neither_overflow_nor_vanish() {
        let device = Device::libtorch().autodiff();
        let logits = tch::Tensor::from_slice(&[1e4_f32, -1e4, 500.0, 500.0]).view([1, 2, 1, 2]);
        let logits: Tensor<4> = from_tch(logits, &device).require_grad();
        let target = labels(&[1, 0], [1, 1, 2], &device);
        let options = CrossEntropy { reduction: Reduction::Sum, ..CrossEntropy::default() };
        let (loss, _) = resized_cross_entropy(logits.clone(), target, &options, false);
        assert_close("loss", &flat(&loss), &[9500.0 + 10500.0], 1e-6);
        let grad = gradient(&logits, &mut loss.backward()).expect("a gradient");
        assert_eq!(Vec::<f32>::try_from(grad.view(-1)).expect("flat"), [1.0, -1.0, -1.0, 1.0]);
    }

    #[test]
    fn half_precision_logits_get_half_precision_gradients() {
        let device = Device::libtorch().autodiff();
        let logits =
            tch::Tensor::from_slice(&values(36, 1)).view([2, 3, 2, 3]).to_kind(Kind::BFloat16);
        let logits: Tensor<4> = from_tch(logits, &device).require_grad();
        let target = labels(&made([4, 6]), [2, 4, 6], &device);
        let (loss, _) =
            resized_cross_entropy(logits.clone(), target, &CrossEntropy::default(), false);
        assert_eq!(to_tch(&loss).kind(), Kind::Float);
        assert_eq!(
            gradient(&logits, &mut loss.backward()).expect("a gradient").kind(),
            Kind::BFloat16
        );
    }

    #[test]
    fn a_label_beyond_the_classes_is_named() {
        let device = Device::libtorch();
        let logits = constant(&values(6, 1), [1, 3, 1, 2], &device);
        let target = labels(&[0, 3], [1, 1, 2], &device);
        let error =
            refused(|| resized_cross_entropy(logits, target, &CrossEntropy::default(), false));
        assert!(
            error.contains("the label 3 is out of bounds: there are 3 classes, and 255 is ignored"),
            "{error}"
        );
    }
}
