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

    pub(crate) fn segslurm_is_exclusive(tensor: *const RawTensor, exclusive: *mut c_int) -> c_int;

    pub(crate) fn segslurm_batch_norm(
        input: *const RawTensor,
        weight: *const RawTensor,
        bias: *const RawTensor,
        running_mean: *const RawTensor,
        running_var: *const RawTensor,
        training: c_int,
        momentum: f64,
        eps: f64,
        relu: c_int,
        output: *mut *mut RawTensor,
        mean: *mut *mut RawTensor,
        invstd: *mut *mut RawTensor,
        reserve: *mut *mut RawTensor,
        implementation: *mut i64,
    ) -> c_int;

    pub(crate) fn segslurm_batch_norm_backward(
        grad: *const RawTensor,
        input: *const RawTensor,
        weight: *const RawTensor,
        running_mean: *const RawTensor,
        running_var: *const RawTensor,
        mean: *const RawTensor,
        invstd: *const RawTensor,
        reserve: *const RawTensor,
        implementation: i64,
        training: c_int,
        eps: f64,
        mask: *const c_int,
        grad_input: *mut *mut RawTensor,
        grad_weight: *mut *mut RawTensor,
        grad_bias: *mut *mut RawTensor,
    ) -> c_int;
}
