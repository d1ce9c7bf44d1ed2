//! Settings of the device that libtorch keeps for the whole process and `tch` does not expose.

use crate::{NativeError, check, ffi};

/// Whether products of `f32` may be computed in TF32 on CUDA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tf32 {
    /// In cuDNN's convolutions; PyTorch's default is true.
    pub convolutions: bool,
    /// In cuBLAS's matrix products; PyTorch's default is false.
    pub matmuls: bool,
}

/// Allows TF32 in convolutions and matrix products, or forbids it in both.
pub fn allow_tf32(allow: bool) -> Result<(), NativeError> {
    // SAFETY: takes a number, touches no memory of ours.
    check(unsafe { ffi::segslurm_allow_tf32(allow.into()) })
}

/// Where TF32 is allowed now.
pub fn tf32() -> Result<Tf32, NativeError> {
    let (mut convolutions, mut matmuls) = (0, 0);
    // SAFETY: the outputs are valid places.
    check(unsafe { ffi::segslurm_tf32(&raw mut convolutions, &raw mut matmuls) })?;
    Ok(Tf32 { convolutions: convolutions != 0, matmuls: matmuls != 0 })
}
