// The device's own settings and queues: what PyTorch has in torch.backends and torch.cuda, and tch does not expose.
#include "guard.h"

#include <c10/util/Exception.h>

using segslurm::guarded;

namespace {

// libtorch asks for new names of these settings (since 2.9), which differ from version to version; the old ones set both.
struct Quiet : c10::WarningHandler {
  void process(const c10::Warning&) override {}
};

}  // namespace

extern "C" {

// TF32 in cuDNN's convolutions and in cuBLAS's matrix products.
int segslurm_allow_tf32(int allow) {
  return guarded([&] {
    Quiet quiet;
    const c10::WarningUtils::WarningHandlerGuard guard(&quiet);
    at::globalContext().setAllowTF32CuDNN(allow != 0);
    at::globalContext().setAllowTF32CuBLAS(allow != 0);
  });
}

int segslurm_tf32(int* convolutions, int* matmuls) {
  return guarded([&] {
    Quiet quiet;
    const c10::WarningUtils::WarningHandlerGuard guard(&quiet);
    *convolutions = at::globalContext().allowTF32CuDNN() ? 1 : 0;
    *matmuls = at::globalContext().allowTF32CuBLAS() ? 1 : 0;
  });
}

}  // extern "C"
