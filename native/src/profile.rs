//! How long a CUDA device runs kernels while something is done, traced by CUPTI through libtorch's own profiler.

use std::time::Duration;

use crate::{NativeError, check, ffi};

/// What [`kernels`] traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernels {
    pub count: u64,
    /// The time in which at least one kernel ran, on any stream; copies are not among them.
    pub busy: Duration,
}

/// Does `work`, waits for the device, and tells which kernels ran meanwhile. Tracing slows the host down, not the kernels.
pub fn kernels<T>(work: impl FnOnce() -> T) -> Result<(T, Kernels), NativeError> {
    // SAFETY: touches no memory of ours.
    check(unsafe { ffi::segslurm_profile_begin() })?;
    let done = work();
    if tch::Cuda::is_available() {
        // The current device.
        tch::Cuda::synchronize(-1);
    }
    let (mut count, mut nanoseconds) = (0, 0);
    // SAFETY: the outputs are valid places.
    check(unsafe { ffi::segslurm_profile_end(&raw mut count, &raw mut nanoseconds) })?;
    Ok((done, Kernels { count: count as u64, busy: Duration::from_nanos(nanoseconds as u64) }))
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    #[test]
    fn the_cpu_runs_no_kernels_of_a_device() {
        for _ in 0..2 {
            let work =
                || Tensor::ones([64, 64], (Kind::Float, Device::Cpu)).matmul(&Tensor::ones([64, 1], (Kind::Float, Device::Cpu)));
            let (product, kernels) = kernels(work).expect("a trace");
            assert_eq!(product.double_value(&[3, 0]), 64.0);
            assert_eq!(kernels, Kernels { count: 0, busy: Duration::ZERO });
        }
    }
}
