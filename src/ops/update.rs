//! Steps over lists of tensors in place, as ATen's fused and foreach kernels: one call a step, on the tensors' device, without
//! waiting for it.
//!
//! The tensors of a list live on one device and have one float type. Lists that belong together have one length.

use segslurm_native::NativeError;
use segslurm_native::call::{Arg, call, call1};
use tch::Tensor;

fn same_length(expected: usize, lists: &[&[&Tensor]]) -> Result<(), NativeError> {
    match lists.iter().find(|list| list.len() != expected) {
        Some(list) => Err(NativeError(format!("an optimizer step over {expected} tensors got a list of {}", list.len()))),
        None => Ok(()),
    }
}

/// Strides of dimensions that have one element say nothing about where elements are.
fn same_places(size: &[i64], a: &[i64], b: &[i64]) -> bool {
    size.iter().zip(a.iter().zip(b)).all(|(&size, (a, b))| size <= 1 || a == b)
}

/// `grad` laid out like `param`: the fused kernels walk the storage of both side by side. One that is not (channels-last against
/// contiguous, or another float type) is copied.
fn alike(grad: &Tensor, param: &Tensor) -> Result<Tensor, NativeError> {
    let (size, strides, own) = (param.size(), param.stride(), grad.stride());
    if grad.size() != size {
        return Err(NativeError(format!("a gradient has shape {:?}, its parameter {size:?}", grad.size())));
    }
    if grad.kind() != param.kind() || !same_places(&size, &strides, &own) {
        let mut copy = param.empty_like();
        copy.copy_(grad);
        return Ok(copy);
    }
    // The kernels compare strides to the letter.
    Ok(if own == strides { grad.shallow_clone() } else { grad.as_strided(&size, &strides, None) })
}

fn all_alike(grads: &[&Tensor], params: &[&Tensor]) -> Result<Vec<Tensor>, NativeError> {
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
    /// The momentum buffers hold nothing yet: they take the gradients as they are, without dampening.
    pub first: bool,
}

/// One SGD step in place. `buffers` is empty where the momentum is 0. Where `found_inf` (`[]`, float32) is 1 nothing changes.
pub fn fused_sgd(
    params: &[&Tensor],
    grads: &[&Tensor],
    buffers: &[&Tensor],
    step: &SgdStep,
    found_inf: Option<&Tensor>,
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
    let buffers = if step.momentum == 0.0 { &[] } else { buffers };
    let SgdStep { lr, weight_decay, momentum, dampening, nesterov, first } = *step;
    let arguments = [
        params.into(),
        Arg::Tensors(&grads),
        buffers.into(),
        weight_decay.into(),
        momentum.into(),
        lr.into(),
        dampening.into(),
        nesterov.into(),
        false.into(),
        first.into(),
        Arg::None,
        found_inf.into(),
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
    pub exp_avgs: Vec<&'a Tensor>,
    pub exp_avg_sqs: Vec<&'a Tensor>,
    /// Empty without amsgrad.
    pub max_exp_avg_sqs: Vec<&'a Tensor>,
    /// `[]` float32 each, the number of steps taken; counted by the step itself.
    pub steps: Vec<&'a Tensor>,
}

/// One Adam or `AdamW` step in place. Where `found_inf` (`[]`, float32) is 1 nothing changes.
pub fn fused_adam(
    params: &[&Tensor],
    grads: &[&Tensor],
    state: &AdamState<'_>,
    step: &AdamStep,
    found_inf: Option<&Tensor>,
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
    let steps = Arg::Tensors(&state.steps);
    call(c"aten::_foreach_add_.Scalar", &[steps, Arg::Int(1)])?;
    let AdamStep { lr, betas, eps, weight_decay, decoupled } = *step;
    let arguments = [
        params.into(),
        Arg::Tensors(&grads),
        Arg::Tensors(&state.exp_avgs),
        Arg::Tensors(&state.exp_avg_sqs),
        Arg::Tensors(&state.max_exp_avg_sqs),
        steps,
        lr.into(),
        betas[0].into(),
        betas[1].into(),
        weight_decay.into(),
        eps.into(),
        (!state.max_exp_avg_sqs.is_empty()).into(),
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

/// The `norm_type`-norm of all tensors taken as one vector: `[]`, on their device. At least one tensor.
pub fn total_norm(tensors: &[&Tensor], norm_type: f64) -> Result<Tensor, NativeError> {
    let norms = call(c"aten::_foreach_norm.Scalar", &[tensors.into(), norm_type.into()])?.tensors()?;
    let stacked = call1(c"aten::stack", &[Arg::Tensors(&norms.iter().collect::<Vec<_>>())])?;
    call1(c"aten::linalg_vector_norm", &[(&stacked).into(), norm_type.into()])
}

/// Multiplies every tensor by `factor`, `[]` on their device, in place.
pub fn scale_all(tensors: &[&Tensor], factor: &Tensor) -> Result<(), NativeError> {
    call(c"aten::_foreach_mul_.Tensor", &[tensors.into(), factor.into()]).map(drop)
}

/// Limits every element to `[low, high]`, in place.
pub fn clamp_all(tensors: &[&Tensor], low: f64, high: f64) -> Result<(), NativeError> {
    call(c"aten::_foreach_clamp_min_.Scalar", &[tensors.into(), low.into()])?;
    call(c"aten::_foreach_clamp_max_.Scalar", &[tensors.into(), high.into()]).map(drop)
}

/// Adds each of `others` to the tensor at its place, in place.
pub fn add_all(tensors: &[&Tensor], others: &[&Tensor]) -> Result<(), NativeError> {
    same_length(tensors.len(), &[others])?;
    call(c"aten::_foreach_add_.List", &[tensors.into(), others.into()]).map(drop)
}

/// Multiplies every tensor by `inverse` (`[]`, float32) in place, and sets `found_inf` (`[]`, float32) to 1 if any element of
/// any tensor is not finite; else leaves it.
pub fn unscale_all(tensors: &[&Tensor], found_inf: &Tensor, inverse: &Tensor) -> Result<(), NativeError> {
    if tensors.is_empty() {
        return Ok(());
    }
    let arguments = [tensors.into(), found_inf.into(), inverse.into()];
    call(c"aten::_amp_foreach_non_finite_check_and_unscale_", &arguments).map(drop)
}

/// Moves a loss scale (`[]`, float32) and its growth tracker (`[]`, int32) on by one step, on their device: backoff after an
/// overflow, growth after `interval` steps without one.
pub fn update_scale(
    scale: &Tensor,
    growth_tracker: &Tensor,
    found_inf: &Tensor,
    growth: f64,
    backoff: f64,
    interval: i64,
) -> Result<(), NativeError> {
    let arguments = [scale.into(), growth_tracker.into(), found_inf.into(), growth.into(), backoff.into(), interval.into()];
    call(c"aten::_amp_update_scale_", &arguments).map(drop)
}
