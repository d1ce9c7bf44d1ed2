// Bilinear resizing along one axis, and how loops are compiled for the processor that runs them.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define SEGSLURM_SIMD __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define SEGSLURM_SIMD
#endif

namespace segslurm {

// Between which two source places each target place lies, and their weights, as ATen's
// upsample_bilinear2d has them.
template <typename T>
struct Line {
  std::vector<int32_t> left, right;
  std::vector<T> left_weight, right_weight;

  Line(int64_t from, int64_t to, bool align_corners)
      : left(to), right(to), left_weight(to), right_weight(to) {
    const T corners = to > 1 ? static_cast<T>(from - 1) / static_cast<T>(to - 1) : T(0);
    const T scale = align_corners ? corners : static_cast<T>(from) / static_cast<T>(to);
    for (int64_t place = 0; place < to; ++place) {
      const T index = static_cast<T>(place);
      const T source =
          align_corners ? scale * index : std::max(T(0), scale * (index + T(0.5)) - T(0.5));
      left[place] = static_cast<int32_t>(std::min(static_cast<int64_t>(source), from - 1));
      right[place] = static_cast<int32_t>(std::min<int64_t>(left[place] + 1, from - 1));
      right_weight[place] = std::min(std::max(source - static_cast<T>(left[place]), T(0)), T(1));
      left_weight[place] = T(1) - right_weight[place];
    }
  }
};

}  // namespace segslurm
