// Cross entropy of logits that are resized bilinearly first, with its gradient, in one pass over
// the logits at their own size: neither the resized logits nor their softmax nor their gradient
// ever exist. ATen would write and read each of them, [n, c, height, width] floats, once an
// operation.
//
// A band is the output rows that lie between two rows of the logits. Its pixels are made in tiles
// that stay in the cache; what they give to the gradient is summed at full width and brought down
// to the logits' width once a band. Bands of even index touch no row of each other, nor do those of
// odd index, so the result does not depend on the number of threads.
#include "shim.h"
#include "line.h"

#include <ATen/Parallel.h>
#include <cmath>
#include <cstring>
#include <limits>

using at::Tensor;

namespace {

constexpr int64_t TILE = 128;

// For arguments that are not positive: 2^n times the series of what is left, good to the last bit
// but one.
inline __attribute__((always_inline)) float exponential(float x) {
  constexpr float NO_FRACTION = 12582912.0f;  // 1.5 * 2^23: adding it leaves no bit for a fraction.
  x = x < -87.0f ? -87.0f : x;
  const float n = (x * 1.44269504f + NO_FRACTION) - NO_FRACTION;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  const float series =
      1.0f +
      r * (1.0f + r * (0.5f + r * (1 / 6.0f +
                                   r * (1 / 24.0f +
                                        r * (1 / 120.0f + r * (1 / 720.0f + r * (1 / 5040.0f)))))));
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return series * power;
}

inline __attribute__((always_inline)) double exponential(double x) { return std::exp(x); }

// One tile of one output row: `values` and the buffers it is made from are [classes, TILE].
template <typename T>
struct Tile {
  int64_t classes, count;
  // The two rows of the logits, at the output's width; and the gradients that go back to them.
  const T *top, *bottom;
  T *top_grad, *bottom_grad;
  T above, below;
  T *values, *best, *sum, *factor;
  int32_t* labels;
};

// values: the logits; best and labels: the largest and its class.
template <typename T>
inline __attribute__((always_inline)) void blend(const Tile<T>& tile) {
  for (int64_t i = 0; i < TILE; ++i) {
    tile.best[i] = -std::numeric_limits<T>::infinity();
    tile.labels[i] = 0;
  }
  for (int64_t label = 0; label < tile.classes; ++label) {
    const T* __restrict top = tile.top + label * TILE, * __restrict bottom =
                                                           tile.bottom + label * TILE;
    T* __restrict values = tile.values + label * TILE, * __restrict best = tile.best;
    int32_t* __restrict labels = tile.labels;
    const T above = tile.above, below = tile.below;
    const int32_t name = static_cast<int32_t>(label);
    for (int64_t i = 0; i < TILE; ++i) {
      const T value = top[i] * above + bottom[i] * below;
      const bool better = value > best[i];
      values[i] = value;
      best[i] = better ? value : best[i];
      labels[i] = better ? name : labels[i];
    }
  }
}

// values: the exponentials of the logits below the largest; sum: their sum.
template <typename T>
inline __attribute__((always_inline)) void exponentials(const Tile<T>& tile) {
  for (int64_t i = 0; i < TILE; ++i) tile.sum[i] = 0;
  for (int64_t label = 0; label < tile.classes; ++label) {
    T* __restrict values = tile.values + label * TILE, * __restrict sum = tile.sum;
    const T* __restrict best = tile.best;
    for (int64_t i = 0; i < TILE; ++i) {
      values[i] = exponential(values[i] - best[i]);
      sum[i] += values[i];
    }
  }
}

// The softmax times each pixel's factor, shared out to the two rows.
template <typename T>
inline __attribute__((always_inline)) void gradients(const Tile<T>& tile) {
  for (int64_t label = 0; label < tile.classes; ++label) {
    const T* __restrict values = tile.values + label * TILE, * __restrict factor = tile.factor;
    T* __restrict top = tile.top_grad + label * TILE, * __restrict bottom =
                                                          tile.bottom_grad + label * TILE;
    const T above = tile.above, below = tile.below;
    for (int64_t i = 0; i < TILE; ++i) {
      const T grad = values[i] * factor[i];
      top[i] += grad * above;
      bottom[i] += grad * below;
    }
  }
}

SEGSLURM_SIMD void blend_all(const Tile<float>& tile) { blend(tile); }
SEGSLURM_SIMD void exponentials_all(const Tile<float>& tile) { exponentials(tile); }
SEGSLURM_SIMD void gradients_all(const Tile<float>& tile) { gradients(tile); }
void blend_all(const Tile<double>& tile) { blend(tile); }
void exponentials_all(const Tile<double>& tile) { exponentials(tile); }
void gradients_all(const Tile<double>& tile) { gradients(tile); }

struct Totals {
  double loss = 0;
  int64_t correct = 0, counted = 0;
};

template <typename T>
struct Pass {
  const T* logits;
  const int64_t* targets;
  const T* class_weight;  // Null: all one.
  int64_t ignore_index, classes, from_height, from_width, height, width;
  const segslurm::Line<T>&rows, &columns;
  T* grads;  // Null: not wanted.

  T weight(int64_t label) const { return class_weight == nullptr ? T(1) : class_weight[label]; }

  // `first` to `last`: the output rows between the logits' rows `upper` and the next.
  Totals band(int64_t image, int64_t upper, int64_t first, int64_t last) const {
    const int64_t lower = std::min(upper + 1, from_height - 1), size = classes * TILE;
    std::vector<T> buffers(5 * size + 3 * TILE);
    std::vector<int32_t> labels(TILE);
    T *top = buffers.data(), *bottom = top + size, *top_grad = bottom + size,
      *bottom_grad = top_grad + size;
    Tile<T> tile{
        classes, 0,       top,     bottom,       top_grad, bottom_grad, 0, 0, bottom_grad + size,
        nullptr, nullptr, nullptr, labels.data()};
    tile.best = tile.values + size, tile.sum = tile.best + TILE, tile.factor = tile.sum + TILE;
    Totals totals;
    for (int64_t start = 0; start < width; start += TILE) {
      tile.count = std::min(TILE, width - start);
      widen(plane(logits, image, 0) + upper * from_width, start, tile.count, top);
      widen(plane(logits, image, 0) + lower * from_width, start, tile.count, bottom);
      std::fill(top_grad, bottom_grad + size, T(0));
      for (int64_t y = first; y < last; ++y) {
        tile.above = rows.left_weight[y], tile.below = rows.right_weight[y];
        row(tile, targets + (image * height + y) * width + start, totals);
      }
      if (grads != nullptr) {
        narrow(top_grad, start, tile.count, plane(grads, image, 0) + upper * from_width);
        narrow(bottom_grad, start, tile.count, plane(grads, image, 0) + lower * from_width);
      }
    }
    return totals;
  }

 private:
  template <typename P>
  P* plane(P* from, int64_t image, int64_t label) const {
    return from + (image * classes + label) * from_height * from_width;
  }

  // One row of every class, from the logits' width to the output's.
  void widen(const T* from, int64_t start, int64_t count, T* to) const {
    for (int64_t label = 0; label < classes;
         ++label, from += from_height * from_width, to += TILE) {
      for (int64_t i = 0; i < count; ++i) {
        const int64_t x = start + i;
        to[i] = from[columns.left[x]] * columns.left_weight[x] +
                from[columns.right[x]] * columns.right_weight[x];
      }
      std::fill(to + count, to + TILE, T(0));
    }
  }

  // The transpose of `widen`, added up.
  void narrow(const T* from, int64_t start, int64_t count, T* to) const {
    for (int64_t label = 0; label < classes;
         ++label, to += from_height * from_width, from += TILE) {
      for (int64_t i = 0; i < count; ++i) {
        const int64_t x = start + i;
        to[columns.left[x]] += from[i] * columns.left_weight[x];
        to[columns.right[x]] += from[i] * columns.right_weight[x];
      }
    }
  }

  void row(const Tile<T>& tile, const int64_t* target, Totals& totals) const {
    blend_all(tile);
    T logit[TILE];
    for (int64_t i = 0; i < tile.count; ++i) {
      const int64_t label = target[i];
      if (label == ignore_index) continue;
      TORCH_CHECK(label >= 0 && label < classes, "the label ", label,
                  " is out of bounds: there are ", classes, " classes, and ", ignore_index,
                  " is ignored");
      logit[i] = tile.values[label * TILE + i];
    }
    exponentials_all(tile);
    std::fill(tile.factor, tile.factor + TILE, T(0));
    for (int64_t i = 0; i < tile.count; ++i) {
      const int64_t label = target[i];
      if (label == ignore_index) continue;
      const T factor = weight(label);
      totals.loss += factor * (std::log(tile.sum[i]) - (logit[i] - tile.best[i]));
      totals.correct += tile.labels[i] == label;
      totals.counted += 1;
      tile.factor[i] = factor / tile.sum[i];
      tile.top_grad[label * TILE + i] -= factor * tile.above;
      tile.bottom_grad[label * TILE + i] -= factor * tile.below;
    }
    if (grads != nullptr) gradients_all(tile);
  }
};

template <typename T>
Totals run(const Tensor& logits, const Tensor& targets, const Tensor& class_weight,
           int64_t ignore_index, bool align_corners, const Tensor& grads) {
  const int64_t n = logits.size(0), from_height = logits.size(2), height = targets.size(1),
                width = targets.size(2);
  const segslurm::Line<T> rows(from_height, height, align_corners),
      columns(logits.size(3), width, align_corners);
  const Pass<T> pass{logits.const_data_ptr<T>(),
                     targets.const_data_ptr<int64_t>(),
                     class_weight.defined() ? class_weight.const_data_ptr<T>() : nullptr,
                     ignore_index,
                     logits.size(1),
                     from_height,
                     logits.size(3),
                     height,
                     width,
                     rows,
                     columns,
                     grads.defined() ? grads.mutable_data_ptr<T>() : nullptr};
  std::vector<Totals> found(n * from_height);
  for (int64_t parity = 0; parity < 2; ++parity) {
    const int64_t bands = (from_height + 1 - parity) / 2;
    at::parallel_for(0, n * bands, 1, [&](int64_t begin, int64_t end) {
      for (int64_t index = begin; index < end; ++index) {
        const int64_t image = index / bands, upper = index % bands * 2 + parity;
        const auto lines =
            std::equal_range(rows.left.begin(), rows.left.end(), static_cast<int32_t>(upper));
        found[image * from_height + upper] = pass.band(
            image, upper, lines.first - rows.left.begin(), lines.second - rows.left.begin());
      }
    });
  }
  Totals totals;
  for (const Totals& it : found) {
    totals.loss += it.loss;
    totals.correct += it.correct;
    totals.counted += it.counted;
  }
  return totals;
}

}  // namespace

// The sum of the cross entropies of `logits` [n, c, h, w] (float or double, CPU), resized to the
// size of `targets` [n, height, width] (int64), times each label's weight; `grad`, its gradient
// (null unless `wanted`); how many labels are not ignored, and of these how many have the largest
// logit.
extern "C" int segslurm_resized_cross_entropy(const Tensor* logits, const Tensor* targets,
                                              const Tensor* class_weight, int64_t ignore_index,
                                              int align_corners, int wanted, double* loss,
                                              Tensor** grad, int64_t* correct, int64_t* counted) {
  return segslurm::guarded([&] {
    const Tensor input = logits->contiguous(), labels = targets->contiguous();
    TORCH_CHECK(input.dim() == 4 && labels.dim() == 3 && input.is_cpu() && labels.is_cpu() &&
                    labels.scalar_type() == at::kLong,
                "expected logits and 64-bit labels on the CPU");
    TORCH_CHECK(input.size(0) == labels.size(0) && input.numel() > 0 && labels.numel() > 0,
                "logits of shape ", input.sizes(), " for labels of shape ", labels.sizes());
    const Tensor weights =
        class_weight == nullptr ? Tensor() : class_weight->to(input.scalar_type()).contiguous();
    TORCH_CHECK(!weights.defined() || weights.numel() == input.size(1), weights.numel(),
                " class weights for ", input.size(1), " classes");
    const Tensor grads = wanted != 0 ? at::zeros_like(input) : Tensor();
    const auto pass = input.scalar_type() == at::kDouble ? run<double> : run<float>;
    TORCH_CHECK(input.scalar_type() == at::kDouble || input.scalar_type() == at::kFloat,
                "expected logits in float or double");
    const Totals totals = pass(input, labels, weights, ignore_index, align_corners != 0, grads);
    *loss = totals.loss;
    *grad = segslurm::own(grads);
    *correct = totals.correct;
    *counted = totals.counted;
  });
}
