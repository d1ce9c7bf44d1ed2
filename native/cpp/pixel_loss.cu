R"kernel(
// Cross entropy of logits that are resized bilinearly first, on a CUDA device: what
// cpp/pixel_loss.cpp does on the CPU. Neither the resized logits nor their softmax nor their
// gradient ever exist; per output pixel only one number, the logarithm of the sum of exponentials,
// is kept between the two kernels. Every sum has one order, so the result is the same from run to
// run.

#define INFINITE __int_as_float(0x7f800000)
#define NO_NUMBER __int_as_float(0x7fc00000)

struct Sizes {
  int classes, from_height, from_width, height, width, align_corners;
  float row_scale, column_scale;
};

// Between which two source places an output place lies, as ATen's upsample_bilinear2d has it.
struct Place {
  int left, right;
  float weight;  // Of the right one.
};

__device__ __forceinline__ Place place(int at, int from, float scale, int align_corners) {
  const float source = align_corners ? scale * at : fmaxf(0.0f, scale * (at + 0.5f) - 0.5f);
  Place it;
  it.left = min(static_cast<int>(source), from - 1);
  it.right = min(it.left + 1, from - 1);
  it.weight = fminf(fmaxf(source - it.left, 0.0f), 1.0f);
  return it;
}

// The first output place at or behind the source place `left`.
__device__ __forceinline__ int first(int left, int from, int to, float scale, int align_corners) {
  if (left >= from) return to;
  const float guess = scale > 0.0f ? (align_corners ? left / scale : (left + 0.5f) / scale - 0.5f) : 0.0f;
  int at = min(max(static_cast<int>(guess), 0), to);
  while (at > 0 && place(at - 1, from, scale, align_corners).left >= left) --at;
  while (at < to && place(at, from, scale, align_corners).left < left) ++at;
  return at;
}

__device__ __forceinline__ double over_warp(double value) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_down_sync(0xffffffffu, value, offset);
  return value;
}

// A thread is an output pixel; blocks are 32 x 8, the grid covers [width, height, images]. logits
// [n, c, from_height, from_width]; targets [n, height, width]; class_weight [c] or null. log_sums
// [n, height, width]: of the exponentials. totals [blocks, 3]: losses, pixels whose label has the
// largest logit, pixels that are not ignored. A label that no class has makes the loss NaN.
extern "C" __global__ void pixel_loss(const float* __restrict__ logits, const long long* __restrict__ targets,
                                      const float* __restrict__ class_weight, long long ignore_index, Sizes sizes,
                                      float* __restrict__ log_sums, double* __restrict__ totals) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, image = blockIdx.z;
  double loss = 0, correct = 0, counted = 0;
  if (x < sizes.width && y < sizes.height) {
    const size_t pixel = (static_cast<size_t>(image) * sizes.height + y) * sizes.width + x;
    const long long label = targets[pixel];
    if (label != ignore_index) {
      const Place row = place(y, sizes.from_height, sizes.row_scale, sizes.align_corners);
      const Place column = place(x, sizes.from_width, sizes.column_scale, sizes.align_corners);
      const size_t plane = static_cast<size_t>(sizes.from_height) * sizes.from_width;
      const float* from = logits + image * sizes.classes * plane;
      const int upper = row.left * sizes.from_width, lower = row.right * sizes.from_width;
      const float right = column.weight, left = 1.0f - right, below = row.weight, above = 1.0f - below;
      float best = -INFINITE, sum = 0.0f, own = NO_NUMBER;
      int winner = 0;
      for (int label_of = 0; label_of < sizes.classes; ++label_of, from += plane) {
        const float top = left * from[upper + column.left] + right * from[upper + column.right];
        const float bottom = left * from[lower + column.left] + right * from[lower + column.right];
        const float value = above * top + below * bottom;
        if (label_of == label) own = value;
        if (value > best) {
          sum = sum * expf(best - value) + 1.0f;
          best = value;
          winner = label_of;
        } else {
          sum += expf(value - best);
        }
      }
      const float rest = logf(sum);
      log_sums[pixel] = best + rest;
      const float weight = class_weight == nullptr || own != own ? 1.0f : class_weight[label];
      loss = weight * (rest + (best - own));
      correct = winner == label;
      counted = 1;
    }
  }
  __shared__ double partial[3][8];
  const int thread = threadIdx.y * 32 + threadIdx.x, warp = thread / 32;
  loss = over_warp(loss), correct = over_warp(correct), counted = over_warp(counted);
  if (thread % 32 == 0) partial[0][warp] = loss, partial[1][warp] = correct, partial[2][warp] = counted;
  __syncthreads();
  if (thread < 3) {
    double sum = 0;
    for (int it = 0; it < 8; ++it) sum += partial[thread][it];
    const size_t block = (static_cast<size_t>(image) * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    totals[block * 3 + thread] = sum;
  }
}

// A block is one square between four logits (an interval of rows and one of columns) of one image,
// a thread one class or some. logits [n, from_height, from_width, c]; corners [4, n, from_height,
// from_width, c]: what the square's pixels give to its upper left, upper right, lower left and
// lower right logit.
extern "C" __global__ void pixel_loss_corners(const float* __restrict__ logits, const long long* __restrict__ targets,
                                              const float* __restrict__ class_weight, long long ignore_index, Sizes sizes,
                                              const float* __restrict__ log_sums, float* __restrict__ corners) {
  constexpr int CHUNK = 64;
  __shared__ float weights[4][CHUNK], log_sum[CHUNK], factor[CHUNK];
  __shared__ int labels[CHUNK];
  const int column = blockIdx.x, row = blockIdx.y, image = blockIdx.z;
  const int top = first(row, sizes.from_height, sizes.height, sizes.row_scale, sizes.align_corners);
  const int bottom = first(row + 1, sizes.from_height, sizes.height, sizes.row_scale, sizes.align_corners);
  const int start = first(column, sizes.from_width, sizes.width, sizes.column_scale, sizes.align_corners);
  const int end = first(column + 1, sizes.from_width, sizes.width, sizes.column_scale, sizes.align_corners);
  const int wide = end - start, pixels = (bottom - top) * wide;
  const int lower = min(row + 1, sizes.from_height - 1), right = min(column + 1, sizes.from_width - 1);
  const size_t line = static_cast<size_t>(image) * sizes.from_height;
  const size_t places[4] = {((line + row) * sizes.from_width + column) * sizes.classes, ((line + row) * sizes.from_width + right) * sizes.classes,
                            ((line + lower) * sizes.from_width + column) * sizes.classes,
                            ((line + lower) * sizes.from_width + right) * sizes.classes};
  const size_t all = static_cast<size_t>(gridDim.z) * sizes.from_height * sizes.from_width * sizes.classes;
  for (int first_class = 0; first_class < sizes.classes; first_class += blockDim.x) {
    const int label = first_class + threadIdx.x;
    const bool mine = label < sizes.classes;
    float value[4], sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int it = 0; it < 4; ++it) value[it] = mine ? logits[places[it] + label] : 0.0f;
    for (int chunk = 0; chunk < pixels; chunk += CHUNK) {
      const int count = min(CHUNK, pixels - chunk);
      __syncthreads();
      for (int it = threadIdx.x; it < count; it += blockDim.x) {
        const int y = top + (chunk + it) / wide, x = start + (chunk + it) % wide;
        const size_t pixel = (static_cast<size_t>(image) * sizes.height + y) * sizes.width + x;
        const long long target = targets[pixel];
        const bool counts = target != ignore_index && target >= 0 && target < sizes.classes;
        const float below = place(y, sizes.from_height, sizes.row_scale, sizes.align_corners).weight;
        const float behind = place(x, sizes.from_width, sizes.column_scale, sizes.align_corners).weight;
        weights[0][it] = (1.0f - below) * (1.0f - behind), weights[1][it] = (1.0f - below) * behind;
        weights[2][it] = below * (1.0f - behind), weights[3][it] = below * behind;
        labels[it] = counts ? static_cast<int>(target) : -1;
        factor[it] = !counts ? 0.0f : class_weight == nullptr ? 1.0f : class_weight[target];
        log_sum[it] = counts ? log_sums[pixel] : INFINITE;
      }
      __syncthreads();
      for (int it = 0; it < count; ++it) {
        const float a = weights[0][it], b = weights[1][it], c = weights[2][it], d = weights[3][it];
        const float logit = value[0] * a + value[1] * b + value[2] * c + value[3] * d;
        const float grad = factor[it] * (expf(logit - log_sum[it]) - (labels[it] == label ? 1.0f : 0.0f));
        sum[0] += grad * a, sum[1] += grad * b, sum[2] += grad * c, sum[3] += grad * d;
      }
    }
    if (mine) {
      for (int it = 0; it < 4; ++it) corners[it * all + places[0] + label] = sum[it];
    }
  }
}

// A thread is one logit: the sum of what the squares around it give. gradient [n, from_height,
// from_width, c].
extern "C" __global__ void pixel_loss_gradient(const float* __restrict__ corners, int images, Sizes sizes, float* __restrict__ gradient) {
  const size_t all = static_cast<size_t>(images) * sizes.from_height * sizes.from_width * sizes.classes;
  const size_t index = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= all) return;
  const size_t cell = index / sizes.classes;
  const int column = cell % sizes.from_width, row = cell / sizes.from_width % sizes.from_height;
  const bool last_row = row == sizes.from_height - 1, last_column = column == sizes.from_width - 1;
  const size_t left = sizes.classes, up = static_cast<size_t>(sizes.from_width) * sizes.classes;
  // The last interval has no place behind it: both its ends are the last logit.
  const float *upper_left = corners, *upper_right = corners + all, *lower_left = corners + 2 * all, *lower_right = corners + 3 * all;
  float sum = upper_left[index];
  if (column > 0) sum += upper_right[index - left];
  if (last_column) sum += upper_right[index];
  if (row > 0) sum += lower_left[index - up];
  if (last_row) sum += lower_left[index];
  if (row > 0 && column > 0) sum += lower_right[index - up - left];
  if (row > 0 && last_column) sum += lower_right[index - up];
  if (last_row && column > 0) sum += lower_right[index - left];
  if (last_row && last_column) sum += lower_right[index];
  gradient[index] = sum;
}
)kernel"
