// Optimizer steps over lists of tensors, as ATen's fused and foreach kernels: one call a step, not one an operation.
#include "guard.h"

#include <c10/core/GradMode.h>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_amp_foreach_non_finite_check_and_unscale.h>
#include <ATen/ops/_amp_update_scale.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_clamp_max.h>
#include <ATen/ops/_foreach_clamp_min.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_foreach_sub.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>

using at::Tensor;
using segslurm::guarded;
using segslurm::maybe;
using segslurm::own;

namespace {

using List = const Tensor* const*;

std::vector<Tensor> gather(List tensors, size_t count) {
  std::vector<Tensor> list;
  list.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    list.push_back(*tensors[i]);
  }
  return list;
}

// Strides of dimensions that have one element say nothing about where elements are.
bool same_places(const Tensor& a, const Tensor& b) {
  for (int64_t i = 0; i < a.dim(); ++i) {
    if (a.size(i) > 1 && a.stride(i) != b.stride(i)) return false;
  }
  return true;
}

// The fused kernels walk the storage of a parameter and of its gradient side by side, so both must be laid out alike; a
// gradient that is not (channels-last against contiguous, or another float type) is copied into the parameter's layout.
std::vector<Tensor> gather_like(List tensors, const std::vector<Tensor>& params) {
  std::vector<Tensor> list;
  list.reserve(params.size());
  for (size_t i = 0; i < params.size(); ++i) {
    const Tensor& grad = *tensors[i];
    const Tensor& param = params[i];
    TORCH_CHECK(grad.sizes() == param.sizes(), "gradient ", i, " has shape ", grad.sizes(), ", its parameter ", param.sizes());
    TORCH_CHECK(param.is_non_overlapping_and_dense(), "parameter ", i, " is not dense in memory");
    if (grad.scalar_type() != param.scalar_type() || !same_places(grad, param)) {
      list.push_back(at::empty_like(param).copy_(grad));
    } else {
      // The kernels compare strides to the letter.
      list.push_back(grad.strides() == param.strides() ? grad : grad.as_strided(param.sizes(), param.strides()));
    }
  }
  return list;
}

}  // namespace

extern "C" {

// One SGD step. `momentum` is null where the momentum is 0. With `found_inf` 1, nothing changes.
int segslurm_fused_sgd(List params, List grads, List momentum, size_t count, double lr, double weight_decay, double momentum_factor,
                       double dampening, int nesterov, int first, const Tensor* found_inf) {
  return guarded([&] {
    const c10::NoGradGuard no_grad;
    auto param_list = gather(params, count);
    const auto grad_list = gather_like(grads, param_list);
    std::vector<Tensor> momentum_list;
    if (momentum != nullptr) {
      momentum_list = gather(momentum, count);
    }
    at::_fused_sgd_(param_list, grad_list, momentum_list, weight_decay, momentum_factor, lr, dampening, nesterov != 0, false,
                    first != 0, {}, maybe(found_inf));
  });
}

// One Adam (`decoupled` 0) or AdamW (1) step. `max_exp_avg_sqs` is null without amsgrad. `steps` are float scalars, counted here.
int segslurm_fused_adam(List params, List grads, List exp_avgs, List exp_avg_sqs, List max_exp_avg_sqs, List steps, size_t count,
                        double lr, double beta1, double beta2, double weight_decay, double eps, int decoupled,
                        const Tensor* found_inf) {
  return guarded([&] {
    const c10::NoGradGuard no_grad;
    auto param_list = gather(params, count);
    const auto grad_list = gather_like(grads, param_list);
    const auto averages = gather(exp_avgs, count);
    const auto squares = gather(exp_avg_sqs, count);
    const bool amsgrad = max_exp_avg_sqs != nullptr;
    const auto maxima = amsgrad ? gather(max_exp_avg_sqs, count) : std::vector<Tensor>();
    auto step_list = gather(steps, count);
    at::_foreach_add_(step_list, 1);
    if (decoupled != 0) {
      at::_fused_adamw_(param_list, grad_list, averages, squares, maxima, step_list, lr, beta1, beta2, weight_decay, eps, amsgrad,
                        false, {}, maybe(found_inf));
    } else {
      at::_fused_adam_(param_list, grad_list, averages, squares, maxima, step_list, lr, beta1, beta2, weight_decay, eps, amsgrad,
                       false, {}, maybe(found_inf));
    }
    if (found_inf != nullptr) {
      // A skipped step does not count.
      at::_foreach_sub_(step_list, std::vector<Tensor>(count, *found_inf));
    }
  });
}

// The norm of all gradients as one vector, [] float32, on their device.
int segslurm_total_norm(List grads, size_t count, double norm_type, Tensor** total) {
  return guarded([&] {
    const c10::NoGradGuard no_grad;
    *total = own(at::linalg_vector_norm(at::stack(at::_foreach_norm(gather(grads, count), norm_type)), norm_type));
  });
}

// Multiplies every tensor by the scalar tensor `factor`, in place.
int segslurm_scale_all(List tensors, size_t count, const Tensor* factor) {
  return guarded([&] {
    const c10::NoGradGuard no_grad;
    at::_foreach_mul_(gather(tensors, count), *factor);
  });
}

int segslurm_clamp_all(List tensors, size_t count, double low, double high) {
  return guarded([&] {
    const c10::NoGradGuard no_grad;
    const auto list = gather(tensors, count);
    at::_foreach_clamp_min_(list, low);
    at::_foreach_clamp_max_(list, high);
  });
}

// Adds each of `others` to the tensor at its place, in place.
int segslurm_add_all(List tensors, List others, size_t count) {
  return guarded([&] {
    const c10::NoGradGuard no_grad;
    at::_foreach_add_(gather(tensors, count), gather(others, count));
  });
}

// Multiplies every tensor by `inverse` in place and sets `found_inf` ([] float32) to 1 if any element is not finite.
int segslurm_unscale_all(List tensors, size_t count, const Tensor* found_inf, const Tensor* inverse) {
  return guarded([&] {
    const c10::NoGradGuard no_grad;
    Tensor found = *found_inf;
    at::_amp_foreach_non_finite_check_and_unscale_(gather(tensors, count), found, *inverse);
  });
}

// The loss scale's next value, on its device: backoff after an overflow, growth after `interval` steps without one.
int segslurm_update_scale(const Tensor* scale, const Tensor* growth_tracker, const Tensor* found_inf, double growth,
                          double backoff, int64_t interval) {
  return guarded([&] {
    const c10::NoGradGuard no_grad;
    Tensor scale_out = *scale;
    Tensor tracker_out = *growth_tracker;
    at::_amp_update_scale_(scale_out, tracker_out, *found_inf, growth, backoff, interval);
  });
}

}  // extern "C"
