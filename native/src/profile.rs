//! How long a CUDA device runs kernels while something is done, traced by CUPTI through libtorch's
//! own profiler.

use std::ptr::null_mut;
use std::time::Duration;

use crate::{NativeError, check, ffi};

/// What [`kernels`] traced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernels {
    pub count: u64,
    /// The time in which at least one kernel ran, on any stream; copies are not among them.
    pub busy: Duration,
    /// Kernels by name, the longest first.
    pub by_name: Vec<Kernel>,
}

/// All runs of the kernel of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    pub name: String,
    pub count: u64,
    pub spent: Duration,
}

/// Does `work`, waits for the device, and tells which kernels ran meanwhile. Tracing slows the host
/// down, not the kernels.
pub fn kernels<T>(work: impl FnOnce() -> T) -> Result<(T, Kernels), NativeError> {
    // SAFETY: touches no memory of ours.
    check(unsafe { ffi::segslurm_profile_begin() })?;
    let done = work();
    if tch::Cuda::is_available() {
        // The current device.
        tch::Cuda::synchronize(-1);
    }
    let (mut count, mut nanoseconds, mut table, mut size) = (0, 0, null_mut(), 0);
    // SAFETY: the outputs are valid places.
    check(unsafe {
        ffi::segslurm_profile_end(
            &raw mut count,
            &raw mut nanoseconds,
            &raw mut table,
            &raw mut size,
        )
    })?;
    // SAFETY: the shim hands over `size` bytes at `table`, freed right here, once.
    let text = unsafe {
        let text = String::from_utf8_lossy(std::slice::from_raw_parts(table, size)).into_owned();
        ffi::segslurm_free(table);
        text
    };
    let by_name = text.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ' ');
        let (spent, count, name) =
            (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?);
        Some(Kernel { name: name.to_owned(), count, spent: Duration::from_nanos(spent) })
    });
    let busy = Duration::from_nanos(nanoseconds as u64);
    Ok((done, Kernels { count: count as u64, busy, by_name: by_name.collect() }))
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    #[test]
    fn the_cpu_runs_no_kernels_of_a_device() {
        for _ in 0..2 {
            let work = || {
                Tensor::ones([64, 64], (Kind::Float, Device::Cpu))
                    .matmul(&Tensor::ones([64, 1], (Kind::Float, Device::Cpu)))
            };
            let (product, kernels) = kernels(work).expect("a trace");
            assert_eq!(product.double_value(&[3, 0]), 64.0);
            assert_eq!(kernels, Kernels { count: 0, busy: Duration::ZERO, by_name: Vec::new() });
        }
    }
}
