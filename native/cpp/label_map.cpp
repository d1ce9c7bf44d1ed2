// Label maps on the CPU: bilinear resizing and the maximum over classes in one pass over each
// output row, so that logits at the full size never exist. ATen would write and read [n, c, height,
// width] floats for one byte per pixel.
#include "shim.h"
#include "line.h"

#include <ATen/Parallel.h>
#include <algorithm>
#include <limits>
#include <vector>

namespace {

using Line = segslurm::Line<float>;

SEGSLURM_SIMD void blend(const float* __restrict a, const float* __restrict b, float a_weight,
                         float b_weight, float* __restrict out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = a[i] * a_weight + b[i] * b_weight;
}

SEGSLURM_SIMD void resize_and_keep_best(const float* __restrict row, const int32_t* __restrict left,
                                        const int32_t* __restrict right,
                                        const float* __restrict left_weight,
                                        const float* __restrict right_weight, int32_t label,
                                        float* __restrict best, int32_t* __restrict labels,
                                        int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const float value = row[left[i]] * left_weight[i] + row[right[i]] * right_weight[i];
    const bool better = value > best[i];
    best[i] = better ? value : best[i];
    labels[i] = better ? label : labels[i];
  }
}

SEGSLURM_SIMD void keep_best(const float* __restrict row, int32_t label, float* __restrict best,
                             int32_t* __restrict labels, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const bool better = row[i] > best[i];
    best[i] = better ? row[i] : best[i];
    labels[i] = better ? label : labels[i];
  }
}

SEGSLURM_SIMD void narrow(const int32_t* __restrict labels, uint8_t* __restrict out,
                          int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = static_cast<uint8_t>(labels[i]);
}

}  // namespace

using at::Tensor;

// Label maps from a part of the logits: `logits` [n, c, rows, w] (float, CPU) are the source rows
// from `start` on, of `from_height` in all. The class with the largest logit at each pixel, as
// bytes [n, lines, width], for the output lines from `first` on whose source rows are all given,
// when the whole is resized to height x width.
extern "C" int segslurm_label_map(const Tensor* logits, int64_t start, int64_t from_height,
                                  int64_t height, int64_t width, int64_t first, int align_corners,
                                  Tensor** output) {
  return segslurm::guarded([&] {
    const Tensor input = logits->contiguous();
    TORCH_CHECK(input.dim() == 4 && input.scalar_type() == at::kFloat && input.is_cpu(),
                "expected float logits on the CPU");
    const int64_t n = input.size(0), classes = input.size(1), given = input.size(2),
                  from_width = input.size(3);
    TORCH_CHECK(start >= 0 && start + given <= from_height && first >= 0 && first <= height,
                "expected a part of the rows");
    const Line rows(from_height, height, align_corners != 0),
        columns(from_width, width, align_corners != 0);
    const bool same_height = from_height == height, same_width = from_width == width;
    int64_t end = first;
    while (end < height && (same_height ? rows.left[end] : rows.right[end]) < start + given) ++end;
    TORCH_CHECK(end == first || rows.left[first] >= start, "output line ", first,
                " needs a row before ", start);
    const int64_t lines = end - first;
    const Tensor result = at::empty({n, lines, width}, input.options().dtype(at::kByte));
    const float* values = input.const_data_ptr<float>();
    uint8_t* out = result.mutable_data_ptr<uint8_t>();

    at::parallel_for(0, n * lines, 1, [&](int64_t begin, int64_t stop) {
      std::vector<float> blended(from_width), best(width);
      std::vector<int32_t> labels(width);
      for (int64_t line = begin; line < stop; ++line) {
        const int64_t image = line / lines, y = first + line % lines;
        std::fill(best.begin(), best.end(), -std::numeric_limits<float>::infinity());
        std::fill(labels.begin(), labels.end(), 0);
        for (int64_t label = 0; label < classes; ++label) {
          const float* plane = values + (image * classes + label) * given * from_width;
          const float* row = plane + (rows.left[y] - start) * from_width;
          if (!same_height) {
            const float* next = plane + (rows.right[y] - start) * from_width;
            blend(row, next, rows.left_weight[y], rows.right_weight[y], blended.data(), from_width);
            row = blended.data();
          }
          if (same_width) {
            keep_best(row, static_cast<int32_t>(label), best.data(), labels.data(), width);
          } else {
            resize_and_keep_best(row, columns.left.data(), columns.right.data(),
                                 columns.left_weight.data(), columns.right_weight.data(),
                                 static_cast<int32_t>(label), best.data(), labels.data(), width);
          }
        }
        narrow(labels.data(), out + line * width, width);
      }
    });
    *output = segslurm::own(result);
  });
}
