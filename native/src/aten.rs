//! Label maps and losses of pixels in one pass, by kernels of our own, and what only `at::Tensor`
//! knows of itself.

use std::ptr::{null, null_mut};

use tch::Tensor;

use crate::tensor::{own, raw};
use crate::{NativeError, check, ffi};

/// Whether `tensor` is the only handle to its storage and each of its elements has a place of its
/// own, so that nobody else could notice a write in place.
pub fn is_exclusive(tensor: &Tensor) -> bool {
    let mut exclusive = 0;
    // SAFETY: the tensor outlives the call and the output is a valid place.
    let code = unsafe { ffi::segslurm_is_exclusive(raw(tensor), &raw mut exclusive) };
    code == 0 && exclusive != 0
}

/// Some rows of something: those of a tensor, from `start` on, of `height` in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strip {
    pub start: i64,
    pub height: i64,
}

/// The class with the largest of `logits` `[n, c, h, w]` (`f32`, on the CPU) at each pixel once
/// they are resized bilinearly to `size` (height, width), as bytes `[n, height, width]`; the first
/// where several are largest. The resized logits never exist.
pub fn label_map(
    logits: &Tensor,
    size: [i64; 2],
    align_corners: bool,
) -> Result<Tensor, NativeError> {
    let height = logits.size().get(2).copied().unwrap_or_default();
    label_map_strip(logits, Strip { start: 0, height }, size, 0, align_corners)
}

/// [`label_map`] where `logits` are a part of the rows: the lines of the result from `first` on
/// that need no later row. A line needs two neighbouring rows, so after each strip the next one
/// begins with this one's last row.
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

/// The cross entropy of `logits` `[n, c, h, w]` (`f32` or `f64`, on the CPU), resized bilinearly to
/// the size of `targets` `[n, height, width]` (`i64`), with a factor for each class. Nothing of the
/// resized size exists.
pub fn resized_cross_entropy(
    logits: &Tensor,
    targets: &Tensor,
    class_weight: Option<&Tensor>,
    ignore_index: i64,
    align_corners: bool,
    with_grad: bool,
) -> Result<PixelLoss, NativeError> {
    let (mut loss, mut grad, mut correct, mut counted) = (0.0, null_mut(), 0, 0);
    // SAFETY: the tensors outlive the call (the weights may be null) and the outputs are valid
    // places.
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
    /// `[3]` in `f64`: the sum of all losses, how many labels have the largest logit, how many are
    /// not ignored.
    pub totals: Tensor,
    /// The gradient of the sum, of the logits' shape and channels-last, where it was asked for.
    pub grad: Option<Tensor>,
}

/// [`resized_cross_entropy`] of logits `[n, c, h, w]` (`f32`) on a CUDA device, by kernels of our
/// own; the host does not wait for it.
pub fn cuda_resized_cross_entropy(
    logits: &Tensor,
    targets: &Tensor,
    class_weight: Option<&Tensor>,
    ignore_index: i64,
    align_corners: bool,
    with_grad: bool,
) -> Result<PixelTotals, NativeError> {
    let (mut totals, mut grad) = (null_mut(), null_mut());
    // SAFETY: the tensors outlive the call (the weights may be null) and the outputs are valid
    // places.
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
