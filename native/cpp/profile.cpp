// How long a device runs kernels, as CUPTI sees it: through Kineto, the profiler inside libtorch.
#include "shim.h"

#include <kineto/ActivityType.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <string>
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

// How many kernels have run, the nanoseconds in which at least one of them did, and a line
// `nanoseconds count name` for each kernel by name, the longest first. The text is malloc'ed and
// the caller's.
int segslurm_profile_end(int64_t* kernels, int64_t* nanoseconds, uint8_t** table, size_t* size) {
  return guarded([&] {
    const auto result = torch::autograd::profiler::disableProfiler();
    std::vector<std::pair<uint64_t, uint64_t>> spans;
    std::map<std::string, std::pair<uint64_t, uint64_t>> by_name;
    for (const auto& event : result->events()) {
      if (event.activityType() != static_cast<uint8_t>(libkineto::ActivityType::CONCURRENT_KERNEL))
        continue;
      spans.emplace_back(event.startNs(), event.endNs());
      auto& [spent, count] = by_name[event.name()];
      spent += event.endNs() - event.startNs();
      ++count;
    }
    std::sort(spans.begin(), spans.end());
    uint64_t busy = 0, until = 0;
    for (const auto& [start, end] : spans) {
      if (end > until) busy += end - std::max(start, until);
      until = std::max(until, end);
    }
    std::vector<std::pair<uint64_t, std::string>> lines;
    for (const auto& [name, spent] : by_name)
      lines.emplace_back(spent.first, std::to_string(spent.first) + ' ' +
                                          std::to_string(spent.second) + ' ' + name + '\n');
    std::sort(lines.rbegin(), lines.rend());
    std::string text;
    for (const auto& line : lines) text += line.second;
    *kernels = static_cast<int64_t>(spans.size());
    *nanoseconds = static_cast<int64_t>(busy);
    *table = static_cast<uint8_t*>(std::malloc(text.size() + 1));
    if (*table == nullptr) throw std::bad_alloc();
    std::memcpy(*table, text.data(), text.size());
    *size = text.size();
  });
}

}  // extern "C"
