// Devices and buffers are only held by pointer on this side of libtorch.
#pragma once
#include <memory>

namespace gloo::transport {
class Device;

class UnboundBuffer {
 public:
  virtual ~UnboundBuffer() = 0;
};
}  // namespace gloo::transport
