// cpp/pixel_loss.cu from the host's side.
#include "shim.h"
#include "kernels.h"

#include <c10/core/DeviceGuard.h>

#include <algorithm>
#include <stdexcept>

using at::Tensor;

#ifdef SEGSLURM_CUDA
namespace {

constexpr const char* SOURCE =
#include "pixel_loss.cu"
    ;

enum Kernel : size_t { LOSS, CORNERS, GRADIENT };

segslurm::Kernels<3>& kernels() {
  static segslurm::Kernels<3> kernels(SOURCE, "pixel_loss.cu",
                                      {"pixel_loss", "pixel_loss_corners", "pixel_loss_gradient"});
  return kernels;
}

// As in pixel_loss.cu.
struct Sizes {
  int classes, from_height, from_width, height, width, align_corners;
  float row_scale, column_scale;
};

float scale(int64_t from, int64_t to, bool align_corners) {
  if (align_corners)
    return to > 1 ? static_cast<float>(from - 1) / static_cast<float>(to - 1) : 0.0f;
  return static_cast<float>(from) / static_cast<float>(to);
}

unsigned blocks(int64_t count, int64_t size) {
  return static_cast<unsigned>((count + size - 1) / size);
}

}  // namespace
#endif

// What segslurm_resized_cross_entropy finds, for float logits on a CUDA device, without waiting for
// it: `totals` [3] (double) is the sum of the losses, how many labels have the largest logit, and
// how many are not ignored; `grad` that of the sum (null unless `wanted`).
extern "C" int segslurm_cuda_resized_cross_entropy(const Tensor* logits, const Tensor* targets,
                                                   const Tensor* class_weight, int64_t ignore_index,
                                                   int align_corners, int wanted, Tensor** totals,
                                                   Tensor** grad) {
  return segslurm::guarded([&] {
#ifdef SEGSLURM_CUDA
    TORCH_CHECK(logits->dim() == 4 && targets->dim() == 3 && logits->is_cuda() &&
                    targets->is_cuda() && logits->scalar_type() == at::kFloat &&
                    targets->scalar_type() == at::kLong,
                "expected float logits and 64-bit labels on a CUDA device");
    TORCH_CHECK(logits->size(0) == targets->size(0) && logits->numel() > 0 && targets->numel() > 0,
                "logits of shape ", logits->sizes(), " for labels of shape ", targets->sizes());
    const c10::DeviceGuard guard(logits->device());
    const int64_t n = logits->size(0), classes = logits->size(1), from_height = logits->size(2),
                  from_width = logits->size(3);
    const int64_t height = targets->size(1), width = targets->size(2);
    const Tensor labels = targets->contiguous();
    const Tensor weights =
        class_weight == nullptr ? Tensor() : class_weight->to(at::kFloat).contiguous();
    TORCH_CHECK(!weights.defined() || weights.numel() == classes, weights.numel(),
                " class weights for ", classes, " classes");
    const Sizes sizes{static_cast<int>(classes),
                      static_cast<int>(from_height),
                      static_cast<int>(from_width),
                      static_cast<int>(height),
                      static_cast<int>(width),
                      align_corners != 0 ? 1 : 0,
                      scale(from_height, height, align_corners != 0),
                      scale(from_width, width, align_corners != 0)};
    const auto* target_data = reinterpret_cast<const long long*>(labels.const_data_ptr<int64_t>());
    const float* weight_data = weights.defined() ? weights.const_data_ptr<float>() : nullptr;
    const auto ignored = static_cast<long long>(ignore_index);
    const auto floats = logits->options().memory_format(at::MemoryFormat::Contiguous);

    const Tensor planar = logits->contiguous();
    const Tensor log_sums = at::empty({n, height, width}, floats);
    const std::array<unsigned, 3> grid{blocks(width, 32), blocks(height, 8),
                                       static_cast<unsigned>(n)};
    const Tensor partial = at::empty({static_cast<int64_t>(grid[0]) * grid[1] * grid[2], 3},
                                     floats.dtype(at::kDouble));
    kernels().launch(LOSS, grid, {32, 8, 1}, planar.const_data_ptr<float>(), target_data,
                     weight_data, ignored, sizes, log_sums.mutable_data_ptr<float>(),
                     partial.mutable_data_ptr<double>());
    if (wanted != 0) {
      const Tensor last = logits->permute({0, 2, 3, 1}).contiguous();
      const Tensor corners = at::empty({4, n, from_height, from_width, classes}, floats);
      const auto threads = static_cast<unsigned>(std::min<int64_t>(256, (classes + 31) / 32 * 32));
      kernels().launch(CORNERS,
                       {static_cast<unsigned>(from_width), static_cast<unsigned>(from_height),
                        static_cast<unsigned>(n)},
                       {threads, 1, 1}, last.const_data_ptr<float>(), target_data, weight_data,
                       ignored, sizes, log_sums.const_data_ptr<float>(),
                       corners.mutable_data_ptr<float>());
      const Tensor gradient = at::empty_like(last);
      kernels().launch(GRADIENT, {blocks(gradient.numel(), 256), 1, 1}, {256, 1, 1},
                       corners.const_data_ptr<float>(), static_cast<int>(n), sizes,
                       gradient.mutable_data_ptr<float>());
      *grad = segslurm::own(gradient.permute({0, 3, 1, 2}));
    }
    *totals = segslurm::own(partial.sum(0));
#else
    (void)logits, (void)targets, (void)class_weight, (void)ignore_index, (void)align_corners,
        (void)wanted, (void)totals, (void)grad;
    throw std::runtime_error("libtorch's CPU build has no CUDA device");
#endif
  });
}
