//! The wall between segslurm and C++: every `unsafe` block and every foreign function of the
//! project is in this crate.
//!
//! The other side of the wall is `cpp/`, a thin C interface over libtorch: its dispatcher, through
//! which every ATen operation is called by name, kernels of our own, settings and queues of the
//! device, and the collectives of `c10d`. What this crate exports is safe.

mod ffi;
mod tensor;
mod waiting;

pub mod aten;
pub mod call;
pub mod collective;
pub mod cuda;
pub mod device;
pub mod memory;
pub mod profile;

pub mod words;

use thiserror::Error;

/// What libtorch said when a call failed, on one line.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct NativeError(pub String);

/// Turns the shim's return code into a result, fetching this thread's last message.
fn check(code: std::ffi::c_int) -> Result<(), NativeError> {
    if code == 0 {
        return Ok(());
    }
    // SAFETY: the shim returns a NUL-terminated string owned by this thread, valid until its next
    // failing call.
    let message = unsafe { std::ffi::CStr::from_ptr(ffi::segslurm_last_error()) };
    Err(NativeError(words::sentence(&message.to_string_lossy())))
}
