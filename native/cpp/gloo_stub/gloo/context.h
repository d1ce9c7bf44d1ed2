// c10d keeps shared pointers to contexts and passes timeouts on; libtorch_cpu.so defines the rest.
#pragma once
#include <chrono>
#include <memory>

namespace gloo {
class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};
}  // namespace gloo
