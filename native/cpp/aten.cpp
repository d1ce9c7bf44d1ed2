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

// Whether this handle is the only one to the tensor and to its storage, and every element has a place of its own:
// nobody could notice a write in place.
int segslurm_is_exclusive(const Tensor* tensor, int* exclusive) {
  return guarded([&] {
    *exclusive = tensor->use_count() == 1 && tensor->has_storage() && tensor->storage().use_count() == 1 &&
                 tensor->is_non_overlapping_and_dense();
  });
}

// Batch norm by the implementation (native, cuDNN, MIOpen) that PyTorch would choose; running statistics are updated in
// place when training. With `relu` the output is rectified in place. `implementation` and `reserve` go back to the backward.
int segslurm_batch_norm(const Tensor* input, const Tensor* weight, const Tensor* bias, const Tensor* running_mean,
                        const Tensor* running_var, int training, double momentum, double eps, int relu, Tensor** output,
                        Tensor** mean, Tensor** invstd, Tensor** reserve, int64_t* implementation) {
  return guarded([&] {
    auto result = at::_batch_norm_impl_index(*input, *weight, *bias, *running_mean, *running_var, training != 0, momentum, eps,
                                             at::globalContext().userEnabledCuDNN());
    if (relu != 0) at::relu_(std::get<0>(result));
    *output = own(std::get<0>(result));
    *mean = own(std::get<1>(result));
    *invstd = own(std::get<2>(result));
    *reserve = own(std::get<3>(result));
    *implementation = std::get<4>(result);
  });
}

// Gradients of segslurm_batch_norm (before its ReLU) with respect to input, weight and bias; masked ones stay null.
int segslurm_batch_norm_backward(const Tensor* grad, const Tensor* input, const Tensor* weight, const Tensor* running_mean,
                                 const Tensor* running_var, const Tensor* mean, const Tensor* invstd, const Tensor* reserve,
                                 int64_t implementation, int training, double eps, const int* mask, Tensor** grad_input,
                                 Tensor** grad_weight, Tensor** grad_bias) {
  return guarded([&] {
    // cuDNN wants the gradient in the layout of the input.
    const Tensor dense = grad->contiguous(input->suggest_memory_format());
    auto grads = at::_batch_norm_impl_index_backward(implementation, *input, dense, *weight, *running_mean, *running_var, *mean,
                                                     *invstd, training != 0, eps, {mask[0] != 0, mask[1] != 0, mask[2] != 0},
                                                     *reserve);
    *grad_input = own(std::get<0>(grads));
    *grad_weight = own(std::get<1>(grads));
    *grad_bias = own(std::get<2>(grads));
  });
}

}  // extern "C"
