//! The aten calls that `tch` does not expose.

use std::ffi::c_int;
use std::ptr::{null, null_mut};

use tch::Tensor;

use crate::ffi::{self, RawTensor};
use crate::{NativeError, check};

/// Takes ownership of a tensor that the shim allocated; null means "not computed".
fn own(raw: *mut RawTensor) -> Option<Tensor> {
    if raw.is_null() {
        return None;
    }
    // SAFETY: the shim hands over a fresh `new at::Tensor`, and nobody else holds the pointer.
    Some(unsafe { Tensor::from_ptr(raw.cast()) })
}

fn raw(tensor: &Tensor) -> *const RawTensor {
    tensor.as_ptr().cast()
}

/// Stride, padding, dilation and groups of a 2-d convolution, in (height, width) order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Convolution {
    pub stride: [i64; 2],
    pub padding: [i64; 2],
    pub dilation: [i64; 2],
    pub groups: i64,
}

/// Gradients of a convolution; `None` for those that were not asked for.
#[derive(Debug)]
pub struct ConvolutionGrads {
    pub input: Option<Tensor>,
    pub weight: Option<Tensor>,
    pub bias: Option<Tensor>,
}

/// ATen's own backward of `conv2d`, for `grad` of shape `[n, out, h', w']`, `input` `[n, in, h, w]` and `weight`
/// `[out, in / groups, kh, kw]`. `mask` says which of the gradients of input, weight and bias to compute.
pub fn convolution_backward(
    grad: &Tensor,
    input: &Tensor,
    weight: &Tensor,
    convolution: Convolution,
    mask: [bool; 3],
) -> Result<ConvolutionGrads, NativeError> {
    let mask = mask.map(c_int::from);
    let (mut input_grad, mut weight_grad, mut bias_grad) = (null_mut(), null_mut(), null_mut());
    // SAFETY: the tensors outlive the call, the arrays have the lengths that the shim reads, the outputs are valid places.
    check(unsafe {
        ffi::segslurm_convolution_backward(
            raw(grad),
            raw(input),
            raw(weight),
            convolution.stride.as_ptr(),
            convolution.padding.as_ptr(),
            convolution.dilation.as_ptr(),
            convolution.groups,
            mask.as_ptr(),
            &raw mut input_grad,
            &raw mut weight_grad,
            &raw mut bias_grad,
        )
    })?;
    Ok(ConvolutionGrads { input: own(input_grad), weight: own(weight_grad), bias: own(bias_grad) })
}

/// Whether `tensor` is the only handle to its storage and each of its elements has a place of its own, so that nobody
/// else could notice a write in place.
pub fn is_exclusive(tensor: &Tensor) -> bool {
    let mut exclusive = 0;
    // SAFETY: the tensor outlives the call and the output is a valid place.
    let code = unsafe { ffi::segslurm_is_exclusive(raw(tensor), &raw mut exclusive) };
    code == 0 && exclusive != 0
}

/// The arguments of a batch norm besides its input: weight, bias and running statistics are `[c]`.
#[derive(Debug)]
pub struct BatchNorm<'a> {
    pub weight: &'a Tensor,
    pub bias: &'a Tensor,
    pub running_mean: &'a Tensor,
    pub running_var: &'a Tensor,
    pub training: bool,
    pub momentum: f64,
    pub eps: f64,
}

/// What the forward pass of a batch norm leaves for its backward: the batch's statistics (empty in evaluation), and which
/// of ATen's implementations ran, with that one's own notes.
#[derive(Debug)]
pub struct BatchNormState {
    pub mean: Tensor,
    pub invstd: Tensor,
    pub reserve: Tensor,
    pub implementation: i64,
}

/// Gradients of a batch norm; `None` for those that were not asked for.
#[derive(Debug)]
pub struct BatchNormGrads {
    pub input: Option<Tensor>,
    pub weight: Option<Tensor>,
    pub bias: Option<Tensor>,
}

/// Batch norm of `input` `[n, c, …]`, rectified in place if `relu`. The running statistics are updated in place when
/// training.
pub fn batch_norm(input: &Tensor, norm: &BatchNorm, relu: bool) -> Result<(Tensor, BatchNormState), NativeError> {
    let (mut output, mut mean, mut invstd, mut reserve) = (null_mut(), null_mut(), null_mut(), null_mut());
    let mut implementation = 0;
    // SAFETY: the tensors outlive the call and the outputs are valid places.
    check(unsafe {
        ffi::segslurm_batch_norm(
            raw(input),
            raw(norm.weight),
            raw(norm.bias),
            raw(norm.running_mean),
            raw(norm.running_var),
            norm.training.into(),
            norm.momentum,
            norm.eps,
            relu.into(),
            &raw mut output,
            &raw mut mean,
            &raw mut invstd,
            &raw mut reserve,
            &raw mut implementation,
        )
    })?;
    let defined = |place| own(place).unwrap_or_default();
    let state = BatchNormState { mean: defined(mean), invstd: defined(invstd), reserve: defined(reserve), implementation };
    Ok((defined(output), state))
}

/// ATen's own backward of [`batch_norm`] (before its ReLU). `mask` says which of the gradients of input, weight and bias to
/// compute.
pub fn batch_norm_backward(
    grad: &Tensor,
    input: &Tensor,
    norm: &BatchNorm,
    state: &BatchNormState,
    mask: [bool; 3],
) -> Result<BatchNormGrads, NativeError> {
    let mask = mask.map(c_int::from);
    let (mut input_grad, mut weight_grad, mut bias_grad) = (null_mut(), null_mut(), null_mut());
    // SAFETY: the tensors outlive the call, the mask has the three entries that the shim reads, the outputs are valid places.
    check(unsafe {
        ffi::segslurm_batch_norm_backward(
            raw(grad),
            raw(input),
            raw(norm.weight),
            raw(norm.running_mean),
            raw(norm.running_var),
            raw(&state.mean),
            raw(&state.invstd),
            raw(&state.reserve),
            state.implementation,
            norm.training.into(),
            norm.eps,
            mask.as_ptr(),
            &raw mut input_grad,
            &raw mut weight_grad,
            &raw mut bias_grad,
        )
    })?;
    Ok(BatchNormGrads { input: own(input_grad), weight: own(weight_grad), bias: own(bias_grad) })
}

/// Some rows of something: those of a tensor, from `start` on, of `height` in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strip {
    pub start: i64,
    pub height: i64,
}

/// The class with the largest of `logits` `[n, c, h, w]` (`f32`, on the CPU) at each pixel once they are resized bilinearly to
/// `size` (height, width), as bytes `[n, height, width]`; the first where several are largest. The resized logits never exist.
pub fn label_map(logits: &Tensor, size: [i64; 2], align_corners: bool) -> Result<Tensor, NativeError> {
    let height = logits.size().get(2).copied().unwrap_or_default();
    label_map_strip(logits, Strip { start: 0, height }, size, 0, align_corners)
}

/// [`label_map`] where `logits` are a part of the rows: the lines of the result from `first` on that need no later row. A line
/// needs two neighbouring rows, so after each strip the next one begins with this one's last row.
pub fn label_map_strip(
    logits: &Tensor,
    strip: Strip,
    [height, width]: [i64; 2],
    first: i64,
    align_corners: bool,
) -> Result<Tensor, NativeError> {
    let mut output = null_mut();
    // SAFETY: the tensor outlives the call and the output is a valid place.
    check(unsafe {
        ffi::segslurm_label_map(
            raw(logits),
            strip.start,
            strip.height,
            height,
            width,
            first,
            align_corners.into(),
            &raw mut output,
        )
    })?;
    Ok(own(output).unwrap_or_default())
}

/// What [`resized_cross_entropy`] finds in one pass.
#[derive(Debug)]
pub struct PixelLoss {
    /// The sum over all pixels.
    pub loss: f64,
    /// Its gradient, of the logits' shape, where it was asked for.
    pub grad: Option<Tensor>,
    /// Labels that are not ignored, and how many of them have the largest logit.
    pub counted: i64,
    pub correct: i64,
}

/// The cross entropy of `logits` `[n, c, h, w]` (`f32` or `f64`, on the CPU), resized bilinearly to the size of `targets`
/// `[n, height, width]` (`i64`), with a factor for each class. Nothing of the resized size exists.
pub fn resized_cross_entropy(
    logits: &Tensor,
    targets: &Tensor,
    class_weight: Option<&Tensor>,
    ignore_index: i64,
    align_corners: bool,
    with_grad: bool,
) -> Result<PixelLoss, NativeError> {
    let (mut loss, mut grad, mut correct, mut counted) = (0.0, null_mut(), 0, 0);
    // SAFETY: the tensors outlive the call (the weights may be null) and the outputs are valid places.
    check(unsafe {
        ffi::segslurm_resized_cross_entropy(
            raw(logits),
            raw(targets),
            class_weight.map_or(null(), raw),
            ignore_index,
            align_corners.into(),
            with_grad.into(),
            &raw mut loss,
            &raw mut grad,
            &raw mut correct,
            &raw mut counted,
        )
    })?;
    Ok(PixelLoss { loss, grad: own(grad), counted, correct })
}

/// What [`cuda_resized_cross_entropy`] finds, on the device.
#[derive(Debug)]
pub struct PixelTotals {
    /// `[3]` in `f64`: the sum of all losses, how many labels have the largest logit, how many are not ignored.
    pub totals: Tensor,
    /// The gradient of the sum, of the logits' shape and channels-last, where it was asked for.
    pub grad: Option<Tensor>,
}

/// [`resized_cross_entropy`] of logits `[n, c, h, w]` (`f32`) on a CUDA device, by kernels of our own; the host does not wait for it.
pub fn cuda_resized_cross_entropy(
    logits: &Tensor,
    targets: &Tensor,
    class_weight: Option<&Tensor>,
    ignore_index: i64,
    align_corners: bool,
    with_grad: bool,
) -> Result<PixelTotals, NativeError> {
    let (mut totals, mut grad) = (null_mut(), null_mut());
    // SAFETY: the tensors outlive the call (the weights may be null) and the outputs are valid places.
    check(unsafe {
        ffi::segslurm_cuda_resized_cross_entropy(
            raw(logits),
            raw(targets),
            class_weight.map_or(null(), raw),
            ignore_index,
            align_corners.into(),
            with_grad.into(),
            &raw mut totals,
            &raw mut grad,
        )
    })?;
    let totals = own(totals).ok_or_else(|| NativeError("no totals".to_owned()))?;
    Ok(PixelTotals { totals, grad: own(grad) })
}
