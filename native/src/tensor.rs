//! `tch`'s tensors as the shim takes and gives them.

use tch::Tensor;

use crate::ffi::RawTensor;

/// Takes ownership of a tensor that the shim allocated; null means "not computed".
pub(crate) fn own(raw: *mut RawTensor) -> Option<Tensor> {
    if raw.is_null() {
        return None;
    }
    // SAFETY: the shim hands over a fresh `new at::Tensor`, and nobody else holds the pointer.
    Some(unsafe { Tensor::from_ptr(raw.cast()) })
}

/// The tensor as an argument, for as long as `tensor` lives.
pub(crate) fn raw(tensor: &Tensor) -> *const RawTensor {
    tensor.as_ptr().cast()
}
