//! Where operations run, and what of libtorch's own is set for a process.

use burn::tensor::{Device, Tensor};

use super::border::to_tch;

/// Where libtorch puts what Burn puts on `device`.
pub fn place(device: &Device) -> tch::Device {
    to_tch(&Tensor::<1>::zeros([1], device)).device()
}

/// The index of a CUDA device; `None` for the CPU.
pub fn gpu_index(device: &Device) -> Option<usize> {
    match place(device) {
        tch::Device::Cuda(index) => Some(index),
        _ => None,
    }
}

/// The CUDA device of that index, or the CPU.
pub fn device(gpu: Option<usize>) -> Device {
    gpu.map_or_else(Device::libtorch, Device::libtorch_cuda)
}

/// Whether cuDNN tries its convolutions and takes the fastest (`cudnn_benchmark`).
pub fn set_cudnn_benchmark(on: bool) {
    tch::Cuda::cudnn_set_benchmark(on);
}

/// libtorch's threads for one operation.
pub fn threads() -> usize {
    usize::try_from(tch::get_num_threads()).unwrap_or(1)
}
