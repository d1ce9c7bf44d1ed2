//! The aten calls that `tch` does not expose.

use std::ffi::c_int;
use std::ptr::null_mut;

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
