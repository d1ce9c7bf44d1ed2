//! Optimizer steps over lists of tensors, as ATen's fused and foreach kernels: one call a step, on the tensors' device,
//! without waiting for it.
//!
//! The tensors of a list live on one device and have one float type. Lists that belong together have one length.

use std::ffi::c_int;
use std::ptr::{null, null_mut};

use tch::Tensor;

use crate::ffi::{self, RawTensor};
use crate::{NativeError, check};

/// Pointers to borrowed tensors, for the length of a call.
fn pointers(tensors: &[&Tensor]) -> Vec<*const RawTensor> {
    tensors.iter().map(|tensor| tensor.as_ptr().cast()).collect()
}

fn pointer(tensor: &Tensor) -> *const RawTensor {
    tensor.as_ptr().cast()
}

fn same_length(expected: usize, lists: &[&[&Tensor]]) -> Result<(), NativeError> {
    match lists.iter().find(|list| list.len() != expected) {
        Some(list) => Err(NativeError(format!("an optimizer step over {expected} tensors got a list of {}", list.len()))),
        None => Ok(()),
    }
}

/// What one SGD step needs besides the tensors, named as in `torch.optim.SGD`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
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
    sgd: &Sgd,
    found_inf: Option<&Tensor>,
) -> Result<(), NativeError> {
    same_length(params.len(), &[grads])?;
    if sgd.momentum != 0.0 {
        same_length(params.len(), &[buffers])?;
    }
    if params.is_empty() {
        return Ok(());
    }
    let (param_list, grad_list, buffer_list) = (pointers(params), pointers(grads), pointers(buffers));
    let buffer_start = if sgd.momentum == 0.0 { null() } else { buffer_list.as_ptr() };
    // SAFETY: the lists hold `params.len()` pointers to tensors that outlive the call; found_inf is such a tensor or null.
    check(unsafe {
        ffi::segslurm_fused_sgd(
            param_list.as_ptr(),
            grad_list.as_ptr(),
            buffer_start,
            params.len(),
            sgd.lr,
            sgd.weight_decay,
            sgd.momentum,
            sgd.dampening,
            c_int::from(sgd.nesterov),
            c_int::from(sgd.first),
            found_inf.map_or(null(), pointer),
        )
    })
}

/// What one Adam or `AdamW` step needs besides the tensors, named as in `torch.optim`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adam {
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
    adam: &Adam,
    found_inf: Option<&Tensor>,
) -> Result<(), NativeError> {
    same_length(params.len(), &[grads, &state.exp_avgs, &state.exp_avg_sqs, &state.steps])?;
    if !state.max_exp_avg_sqs.is_empty() {
        same_length(params.len(), &[&state.max_exp_avg_sqs])?;
    }
    if params.is_empty() {
        return Ok(());
    }
    let (param_list, grad_list) = (pointers(params), pointers(grads));
    let (averages, squares) = (pointers(&state.exp_avgs), pointers(&state.exp_avg_sqs));
    let (maxima, steps) = (pointers(&state.max_exp_avg_sqs), pointers(&state.steps));
    // SAFETY: the lists hold `params.len()` pointers to tensors that outlive the call; found_inf is such a tensor or null.
    check(unsafe {
        ffi::segslurm_fused_adam(
            param_list.as_ptr(),
            grad_list.as_ptr(),
            averages.as_ptr(),
            squares.as_ptr(),
            if maxima.is_empty() { null() } else { maxima.as_ptr() },
            steps.as_ptr(),
            params.len(),
            adam.lr,
            adam.betas[0],
            adam.betas[1],
            adam.weight_decay,
            adam.eps,
            c_int::from(adam.decoupled),
            found_inf.map_or(null(), pointer),
        )
    })
}

/// The `norm_type`-norm of all tensors taken as one vector: `[]`, on their device. At least one tensor.
pub fn total_norm(tensors: &[&Tensor], norm_type: f64) -> Result<Tensor, NativeError> {
    let list = pointers(tensors);
    let mut total = null_mut();
    // SAFETY: the list holds `tensors.len()` pointers to tensors that outlive the call; `total` is a valid place.
    check(unsafe { ffi::segslurm_total_norm(list.as_ptr(), list.len(), norm_type, &raw mut total) })?;
    // SAFETY: on success the shim left a fresh `new at::Tensor` there, which nobody else holds.
    Ok(unsafe { Tensor::from_ptr(total.cast()) })
}

/// Multiplies every tensor by `factor`, `[]` on their device, in place.
pub fn scale_all(tensors: &[&Tensor], factor: &Tensor) -> Result<(), NativeError> {
    let list = pointers(tensors);
    // SAFETY: the list holds `list.len()` pointers to tensors that outlive the call, as does `factor`.
    check(unsafe { ffi::segslurm_scale_all(list.as_ptr(), list.len(), pointer(factor)) })
}

/// Limits every element to `[low, high]`, in place.
pub fn clamp_all(tensors: &[&Tensor], low: f64, high: f64) -> Result<(), NativeError> {
    let list = pointers(tensors);
    // SAFETY: the list holds `list.len()` pointers to tensors that outlive the call.
    check(unsafe { ffi::segslurm_clamp_all(list.as_ptr(), list.len(), low, high) })
}

/// Adds each of `others` to the tensor at its place, in place.
pub fn add_all(tensors: &[&Tensor], others: &[&Tensor]) -> Result<(), NativeError> {
    same_length(tensors.len(), &[others])?;
    let (list, other_list) = (pointers(tensors), pointers(others));
    // SAFETY: both lists hold `list.len()` pointers to tensors that outlive the call.
    check(unsafe { ffi::segslurm_add_all(list.as_ptr(), other_list.as_ptr(), list.len()) })
}

/// Multiplies every tensor by `inverse` (`[]`, float32) in place, and sets `found_inf` (`[]`, float32) to 1 if any element of
/// any tensor is not finite; else leaves it.
pub fn unscale_all(tensors: &[&Tensor], found_inf: &Tensor, inverse: &Tensor) -> Result<(), NativeError> {
    if tensors.is_empty() {
        return Ok(());
    }
    let list = pointers(tensors);
    // SAFETY: the list holds `list.len()` pointers to tensors that outlive the call, as do the two scalars.
    check(unsafe { ffi::segslurm_unscale_all(list.as_ptr(), list.len(), pointer(found_inf), pointer(inverse)) })
}

/// Moves a loss scale (`[]`, float32) and its growth tracker (`[]`, int32) on by one step, on their device.
pub fn update_scale(
    scale: &Tensor,
    growth_tracker: &Tensor,
    found_inf: &Tensor,
    growth: f64,
    backoff: f64,
    interval: i64,
) -> Result<(), NativeError> {
    // SAFETY: the three scalars are tensors that outlive the call.
    check(unsafe {
        ffi::segslurm_update_scale(pointer(scale), pointer(growth_tracker), pointer(found_inf), growth, backoff, interval)
    })
}
