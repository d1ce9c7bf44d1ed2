// How long a device runs kernels, as CUPTI sees it: through Kineto, the profiler inside libtorch.
#include "guard.h"

#include <kineto/ActivityType.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include <algorithm>
#include <set>
#include <vector>

using segslurm::guarded;

namespace {

using torch::autograd::profiler::ActivityType;
using torch::autograd::profiler::ProfilerConfig;
using torch::autograd::profiler::ProfilerState;

}  // namespace

extern "C" {

// Kernels are traced from here until segslurm_profile_end, on this thread's behalf.
int segslurm_profile_begin() {
  return guarded([&] {
    const ProfilerConfig config(ProfilerState::KINETO);
    const std::set<ActivityType> activities{ActivityType::CUDA};
    torch::autograd::profiler::prepareProfiler(config, activities);
    torch::autograd::profiler::enableProfiler(config, activities);
  });
}

// How many kernels have run, and the nanoseconds in which at least one of them did.
int segslurm_profile_end(int64_t* kernels, int64_t* nanoseconds) {
  return guarded([&] {
    const auto result = torch::autograd::profiler::disableProfiler();
    std::vector<std::pair<uint64_t, uint64_t>> spans;
    for (const auto& event : result->events()) {
      const bool kernel = event.activityType() == static_cast<uint8_t>(libkineto::ActivityType::CONCURRENT_KERNEL);
      if (kernel) spans.emplace_back(event.startNs(), event.endNs());
    }
    std::sort(spans.begin(), spans.end());
    uint64_t busy = 0, until = 0;
    for (const auto& [start, end] : spans) {
      if (end > until) busy += end - std::max(start, until);
      until = std::max(until, end);
    }
    *kernels = static_cast<int64_t>(spans.size());
    *nanoseconds = static_cast<int64_t>(busy);
  });
}

}  // extern "C"
