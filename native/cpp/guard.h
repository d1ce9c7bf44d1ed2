// Every function of the shim is C: it returns 0 and fills its outputs, or returns 1 and leaves a
// message for segslurm_last_error(). guarded() is the only place that catches, and it catches
// everything: no throw crosses into Rust.
#pragma once
#include <ATen/ATen.h>
#include <exception>
#include <string>
#include <utility>

namespace segslurm {

std::string& last_error();

template <typename Body>
int guarded(Body&& body) noexcept {
  try {
    std::forward<Body>(body)();
    return 0;
  } catch (const c10::Error& error) {
    last_error() = error.what_without_backtrace();
  } catch (const std::exception& error) {
    last_error() = error.what();
  } catch (...) {
    last_error() = "an unknown C++ exception";
  }
  return 1;
}

// Hands a tensor to Rust, which owns it from then on. Undefined tensors become null.
inline at::Tensor* own(at::Tensor tensor) {
  return tensor.defined() ? new at::Tensor(std::move(tensor)) : nullptr;
}

inline c10::optional<at::Tensor> maybe(const at::Tensor* tensor) {
  return tensor == nullptr ? c10::optional<at::Tensor>() : c10::optional<at::Tensor>(*tensor);
}

}  // namespace segslurm
