//! Declarations of the functions in `cpp/`, nothing else.

use std::ffi::{c_char, c_int, c_void};

/// An `at::Tensor` on the C++ side.
pub(crate) type RawTensor = c_void;

unsafe extern "C" {
    pub(crate) fn segslurm_last_error() -> *const c_char;

    pub(crate) fn segslurm_convolution_backward(
        grad: *const RawTensor,
        input: *const RawTensor,
        weight: *const RawTensor,
        stride: *const i64,
        padding: *const i64,
        dilation: *const i64,
        groups: i64,
        mask: *const c_int,
        grad_input: *mut *mut RawTensor,
        grad_weight: *mut *mut RawTensor,
        grad_bias: *mut *mut RawTensor,
    ) -> c_int;
}
