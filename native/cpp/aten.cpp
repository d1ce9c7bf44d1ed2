// The aten calls that tch does not expose.
#include "guard.h"

namespace segslurm {
std::string& last_error() {
  static thread_local std::string message;
  return message;
}
}  // namespace segslurm

using at::Tensor;
using segslurm::guarded;
using segslurm::own;

extern "C" {

const char* segslurm_last_error() { return segslurm::last_error().c_str(); }

// Gradients of conv2d with respect to its input, weight and bias; outputs whose mask is 0 stay null.
int segslurm_convolution_backward(const Tensor* grad, const Tensor* input, const Tensor* weight, const int64_t* stride,
                                  const int64_t* padding, const int64_t* dilation, int64_t groups, const int* mask,
                                  Tensor** grad_input, Tensor** grad_weight, Tensor** grad_bias) {
  return guarded([&] {
    const at::IntArrayRef bias_size = weight->sizes().slice(0, 1);
    auto grads = at::convolution_backward(*grad, *input, *weight, bias_size, {stride[0], stride[1]}, {padding[0], padding[1]},
                                          {dilation[0], dilation[1]}, false, {0, 0}, groups,
                                          {mask[0] != 0, mask[1] != 0, mask[2] != 0});
    *grad_input = own(std::get<0>(grads));
    *grad_weight = own(std::get<1>(grads));
    *grad_bias = own(std::get<2>(grads));
  });
}

}  // extern "C"
