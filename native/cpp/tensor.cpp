// What every other file leans on: the last error, and who else holds a tensor.
#include "shim.h"

namespace segslurm {
std::string& last_error() {
  static thread_local std::string message;
  return message;
}
}  // namespace segslurm

using at::Tensor;
using segslurm::guarded;

extern "C" {

const char* segslurm_last_error() { return segslurm::last_error().c_str(); }

// Whether this handle is the only one to the tensor and to its storage, and every element has a
// place of its own: nobody could notice a write in place.
int segslurm_is_exclusive(const Tensor* tensor, int* exclusive) {
  return guarded([&] {
    *exclusive = tensor->use_count() == 1 && tensor->has_storage() &&
                 tensor->storage().use_count() == 1 && tensor->is_non_overlapping_and_dense();
  });
}

}  // extern "C"
