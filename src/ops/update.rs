//! Steps over lists of tensors in place, as ATen's fused and foreach kernels: one call a step, on
//! the tensors' device, without waiting for it.
//!
//! The tensors of a list live on one device and have one float type. Lists that belong together
//! have one length.

use segslurm_native::NativeError;
use segslurm_native::call::{Arg, call, call1};
use tch::Tensor;

use super::border::Handle;

/// The tensors of a list, as the dispatcher takes them.
fn tensors<'a>(list: &[&'a Handle]) -> Vec<&'a Tensor> {
    list.iter().map(|it| &***it).collect()
}

fn same_length(expected: usize, lists: &[&[&Handle]]) -> Result<(), NativeError> {
    match lists.iter().find(|list| list.len() != expected) {
        Some(list) => Err(NativeError(format!(
            "an optimizer step over {expected} tensors got a list of {}",
            list.len()
        ))),
        None => Ok(()),
    }
}

/// Strides of dimensions that have one element say nothing about where elements are.
fn same_places(size: &[i64], a: &[i64], b: &[i64]) -> bool {
    size.iter().zip(a.iter().zip(b)).all(|(&size, (a, b))| size <= 1 || a == b)
}

/// `grad` laid out like `param`: the fused kernels walk the storage of both side by side. One that
/// is not (channels-last against contiguous, or another float type) is copied.
fn alike(grad: &Tensor, param: &Tensor) -> Result<Tensor, NativeError> {
    let (size, strides, own) = (param.size(), param.stride(), grad.stride());
    if grad.size() != size {
        return Err(NativeError(format!(
            "a gradient has shape {:?}, its parameter {size:?}",
            grad.size()
        )));
    }
    if grad.kind() != param.kind() || !same_places(&size, &strides, &own) {
        let mut copy = param.empty_like();
        copy.copy_(grad);
        return Ok(copy);
    }
    // The kernels compare strides to the letter.
    Ok(if own == strides { grad.shallow_clone() } else { grad.as_strided(&size, &strides, None) })
}

fn all_alike(grads: &[&Handle], params: &[&Handle]) -> Result<Vec<Tensor>, NativeError> {
    grads.iter().zip(params).map(|(grad, param)| alike(grad, param)).collect()
}

/// What one SGD step needs besides the tensors, named as in `torch.optim.SGD`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdStep {
    pub lr: f64,
    pub weight_decay: f64,
    pub momentum: f64,
    pub dampening: f64,
    pub nesterov: bool,
    /// The momentum buffers hold nothing yet: they take the gradients as they are, without
    /// dampening.
    pub first: bool,
}

/// One SGD step in place. `buffers` is empty where the momentum is 0. Where `found_inf` (`[]`,
/// float32) is 1 nothing changes.
pub fn fused_sgd(
    params: &[&Handle],
    grads: &[&Handle],
    buffers: &[&Handle],
    step: &SgdStep,
    found_inf: Option<&Handle>,
) -> Result<(), NativeError> {
    same_length(params.len(), &[grads])?;
    if step.momentum != 0.0 {
        same_length(params.len(), &[buffers])?;
    }
    if params.is_empty() {
        return Ok(());
    }
    let grads = all_alike(grads, params)?;
    let grads: Vec<&Tensor> = grads.iter().collect();
    let buffers = if step.momentum == 0.0 { Vec::new() } else { tensors(buffers) };
    let params = tensors(params);
    let SgdStep { lr, weight_decay, momentum, dampening, nesterov, first } = *step;
    let arguments = [
        Arg::Tensors(&params),
        Arg::Tensors(&grads),
        Arg::Tensors(&buffers),
        weight_decay.into(),
        momentum.into(),
        lr.into(),
        dampening.into(),
        nesterov.into(),
        false.into(),
        first.into(),
        Arg::None,
        found_inf.map(|it| &**it).into(),
    ];
    call(c"aten::_fused_sgd_", &arguments).map(drop)
}

/// What one Adam or `AdamW` step needs besides the tensors, named as in `torch.optim`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamStep {
    pub lr: f64,
    pub betas: [f64; 2],
    pub eps: f64,
    pub weight_decay: f64,
    /// Weight decay shrinks the parameter itself (`AdamW`) instead of joining the gradient (Adam).
    pub decoupled: bool,
}

/// The running state of Adam, one tensor a parameter in each list.
#[derive(Debug)]
pub struct AdamState<'a> {
    pub exp_avgs: Vec<&'a Handle>,
    pub exp_avg_sqs: Vec<&'a Handle>,
    /// Empty without amsgrad.
    pub max_exp_avg_sqs: Vec<&'a Handle>,
    /// `[]` float32 each, the number of steps taken; counted by the step itself.
    pub steps: Vec<&'a Handle>,
}

/// One Adam or `AdamW` step in place. Where `found_inf` (`[]`, float32) is 1 nothing changes.
pub fn fused_adam(
    params: &[&Handle],
    grads: &[&Handle],
    state: &AdamState<'_>,
    step: &AdamStep,
    found_inf: Option<&Handle>,
) -> Result<(), NativeError> {
    same_length(params.len(), &[grads, &state.exp_avgs, &state.exp_avg_sqs, &state.steps])?;
    if !state.max_exp_avg_sqs.is_empty() {
        same_length(params.len(), &[&state.max_exp_avg_sqs])?;
    }
    if params.is_empty() {
        return Ok(());
    }
    let grads = all_alike(grads, params)?;
    let grads: Vec<&Tensor> = grads.iter().collect();
    let (params, counted) = (tensors(params), tensors(&state.steps));
    let [exp_avgs, exp_avg_sqs, maxima] =
        [&state.exp_avgs, &state.exp_avg_sqs, &state.max_exp_avg_sqs].map(|it| tensors(it));
    let steps = Arg::Tensors(&counted);
    call(c"aten::_foreach_add_.Scalar", &[steps, Arg::Int(1)])?;
    let AdamStep { lr, betas, eps, weight_decay, decoupled } = *step;
    let found_inf = found_inf.map(|it| &**it);
    let arguments = [
        Arg::Tensors(&params),
        Arg::Tensors(&grads),
        Arg::Tensors(&exp_avgs),
        Arg::Tensors(&exp_avg_sqs),
        Arg::Tensors(&maxima),
        steps,
        lr.into(),
        betas[0].into(),
        betas[1].into(),
        weight_decay.into(),
        eps.into(),
        (!maxima.is_empty()).into(),
        false.into(),
        Arg::None,
        found_inf.into(),
    ];
    call(if decoupled { c"aten::_fused_adamw_" } else { c"aten::_fused_adam_" }, &arguments)?;
    if let Some(found_inf) = found_inf {
        // A skipped step does not count.
        call(c"aten::_foreach_sub_.List", &[steps, Arg::Tensors(&vec![found_inf; params.len()])])?;
    }
    Ok(())
}

/// The `norm_type`-norm of all tensors taken as one vector: `[]`, on their device. At least one
/// tensor.
fn total_norm(list: &[&Tensor], norm_type: f64) -> Result<Tensor, NativeError> {
    let norms = call(c"aten::_foreach_norm.Scalar", &[list.into(), norm_type.into()])?.tensors()?;
    let stacked = call1(c"aten::stack", &[Arg::Tensors(&norms.iter().collect::<Vec<_>>())])?;
    call1(c"aten::linalg_vector_norm", &[(&stacked).into(), norm_type.into()])
}

/// Scales all tensors so that their common norm is at most `max`, in place, as
/// `torch.nn.utils.clip_grad_norm_` does. Returns the norm before: `[]`, on their device. At least
/// one tensor.
pub fn clip_norm(list: &[&Handle], max: f64, norm_type: f64) -> Result<Handle, NativeError> {
    let list = tensors(list);
    let total = total_norm(&list, norm_type)?;
    let factor = ((&total + 1e-6).reciprocal() * max).clamp_max(1.0);
    call(c"aten::_foreach_mul_.Tensor", &[Arg::Tensors(&list), (&factor).into()])?;
    Ok(Handle::new(total))
}

/// Limits every element to `[low, high]`, in place.
pub fn clamp_all(list: &[&Handle], low: f64, high: f64) -> Result<(), NativeError> {
    let list = tensors(list);
    call(c"aten::_foreach_clamp_min_.Scalar", &[Arg::Tensors(&list), low.into()])?;
    call(c"aten::_foreach_clamp_max_.Scalar", &[Arg::Tensors(&list), high.into()]).map(drop)
}

/// Adds each of `others` to the tensor at its place, in place.
pub fn add_all(list: &[&Handle], others: &[&Handle]) -> Result<(), NativeError> {
    same_length(list.len(), &[others])?;
    call(
        c"aten::_foreach_add_.List",
        &[Arg::Tensors(&tensors(list)), Arg::Tensors(&tensors(others))],
    )
    .map(drop)
}

/// Multiplies every tensor by `inverse` (`[]`, float32) in place, and sets `found_inf` (`[]`,
/// float32) to 1 if any element of any tensor is not finite; else leaves it.
pub(super) fn unscale_all(
    list: &[&Handle],
    found_inf: &Tensor,
    inverse: &Tensor,
) -> Result<(), NativeError> {
    if list.is_empty() {
        return Ok(());
    }
    let list = tensors(list);
    let arguments = [Arg::Tensors(&list), found_inf.into(), inverse.into()];
    call(c"aten::_amp_foreach_non_finite_check_and_unscale_", &arguments).map(drop)
}

/// Moves a loss scale (`[]`, float32) and its growth tracker (`[]`, int32) on by one step, on their
/// device: backoff after an overflow, growth after `interval` steps without one.
pub(super) fn update_scale(
    scale: &Tensor,
    growth_tracker: &Tensor,
    found_inf: &Tensor,
    growth: f64,
    backoff: f64,
    interval: i64,
) -> Result<(), NativeError> {
    let arguments = [
        scale.into(),
        growth_tracker.into(),
        found_inf.into(),
        growth.into(),
        backoff.into(),
        interval.into(),
    ];
    call(c"aten::_amp_update_scale_", &arguments).map(drop)
}
