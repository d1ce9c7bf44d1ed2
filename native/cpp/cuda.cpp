// What libtorch's CUDA half says about itself: its versions, the cards, and why there are none.
// Nothing here starts a CUDA context but the questions for a card's properties. Built against
// libtorch's CPU build, every answer is "not here".
#include "shim.h"

#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <cstdlib>
#include <cstring>
#include <stdexcept>

#ifdef SEGSLURM_CUDA
#include <ATen/cuda/CUDAContextLight.h>
#include <c10/cuda/CUDAFunctions.h>
#include <torch/csrc/cuda/nccl.h>
#endif

using segslurm::guarded;

extern "C" {

int segslurm_has_cuda() {
#ifdef SEGSLURM_CUDA
  return 1;
#else
  return 0;
#endif
}

// CUDA's runtime as 13000 for 13.0, cuDNN as 91900 for 9.19.0 (0: none), NCCL as 2, 28, 9.
int segslurm_cuda_versions(int64_t* runtime, int64_t* cudnn, int64_t nccl[3]) {
  return guarded([&] {
#ifdef SEGSLURM_CUDA
    *runtime = at::detail::getCUDAHooks().versionCUDART();
    *cudnn = at::detail::getCUDAHooks().hasCuDNN()
                 ? at::detail::getCUDAHooks().versionRuntimeCuDNN()
                 : 0;
    const uint64_t version = torch::cuda::nccl::version();
    nccl[0] = static_cast<int64_t>(version >> 32);
    nccl[1] = static_cast<int64_t>(version >> 16 & 0xffff);
    nccl[2] = static_cast<int64_t>(version & 0xffff);
#else
    (void)runtime, (void)cudnn, (void)nccl;
    throw std::runtime_error("libtorch's CPU build");
#endif
  });
}

// How many cards this process may use; an error that says why where it is none.
int segslurm_cuda_count(int* count) {
  return guarded([&] {
#ifdef SEGSLURM_CUDA
    *count = c10::cuda::device_count_ensure_non_zero();
#else
    (void)count;
    throw std::runtime_error("libtorch's CPU build");
#endif
  });
}

// A card's name (malloc'ed, the caller's), its memory in bytes, and its compute capability.
int segslurm_cuda_card(int index, uint8_t** name, size_t* size, uint64_t* memory, int* major,
                       int* minor) {
  return guarded([&] {
#ifdef SEGSLURM_CUDA
    const cudaDeviceProp* properties =
        at::cuda::getDeviceProperties(static_cast<c10::DeviceIndex>(index));
    *size = std::strlen(properties->name);
    *name = static_cast<uint8_t*>(std::malloc(*size + 1));
    if (*name == nullptr) throw std::bad_alloc();
    std::memcpy(*name, properties->name, *size);
    *memory = properties->totalGlobalMem;
    *major = properties->major;
    *minor = properties->minor;
#else
    (void)index, (void)name, (void)size, (void)memory, (void)major, (void)minor;
    throw std::runtime_error("libtorch's CPU build");
#endif
  });
}

// Makes a card this thread's current one: what names no device, such as pinned memory, then opens
// no context on another card.
int segslurm_cuda_select(int index) {
  return guarded([&] {
    const c10::impl::VirtualGuardImpl cuda(c10::DeviceType::CUDA);
    cuda.setDevice(c10::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index)));
  });
}

}  // extern "C"
