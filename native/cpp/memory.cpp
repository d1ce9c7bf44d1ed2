// How many bytes a thread's tensors take on the CPU: an allocator that counts, around libtorch's
// own.
#include "shim.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

using segslurm::guarded;

namespace {

// What one thread counts. Its blocks may be freed by any thread, so it outlives the counting.
struct Account {
  std::atomic<int64_t> taken{0};
  // What was taken after each allocation of the thread's.
  std::vector<int64_t> course;
};

thread_local std::shared_ptr<Account> account;

// A counted block by its address. libtorch also takes blocks as bare pointers (raw_allocate, in
// mkldnn's scratch space), so what belongs to one cannot travel in its context.
struct Block {
  std::shared_ptr<Account> account;
  int64_t size;
};

// Never destroyed: tensors are freed until the process has ended.
struct Blocks {
  std::mutex mutex;
  std::unordered_map<void*, Block> by_address;

  static Blocks& get() {
    static Blocks& blocks = *new Blocks;
    return blocks;
  }
};

struct Counting final : c10::Allocator {
  c10::Allocator* inner = nullptr;

  c10::DataPtr allocate(size_t size) override {
    c10::DataPtr data = inner->allocate(size);
    void* place = data.get();
    if (!account || place == nullptr) return data;
    {
      Blocks& blocks = Blocks::get();
      const std::lock_guard<std::mutex> lock(blocks.mutex);
      blocks.by_address.insert_or_assign(place, Block{account, static_cast<int64_t>(size)});
    }
    account->course.push_back(account->taken += static_cast<int64_t>(size));
    const bool exchanged = data.compare_exchange_deleter(inner->raw_deleter(), raw_deleter());
    TORCH_CHECK(exchanged, "the CPU's allocator frees in a way of its own");
    return data;
  }

  c10::DeleterFnPtr raw_deleter() const override { return &give_back; }

  void copy_data(void* to, const void* from, std::size_t count) const override {
    default_copy_data(to, from, count);
  }

  static Counting& get() {
    static Counting& counting = *new Counting;
    return counting;
  }

  // Of counted blocks and of others: a bare pointer does not tell.
  static void give_back(void* place) {
    {
      Blocks& blocks = Blocks::get();
      const std::lock_guard<std::mutex> lock(blocks.mutex);
      if (const auto found = blocks.by_address.find(place); found != blocks.by_address.end()) {
        found->second.account->taken -= found->second.size;
        blocks.by_address.erase(found);
      }
    }
    get().inner->raw_deleter()(place);
  }
};

// Above the priority of every allocator that libtorch sets itself.
constexpr uint8_t kPriority = 100;

void install() {
  static std::once_flag once;
  std::call_once(once, [] {
    Counting::get().inner = c10::GetCPUAllocator();
    c10::SetCPUAllocator(&Counting::get(), kPriority);
  });
}

}  // namespace

extern "C" {

// From here on the blocks of this thread are counted, from nothing, or no longer.
int segslurm_count_memory(int count) {
  return guarded([&] {
    if (count != 0) install();
    account = count != 0 ? std::make_shared<Account>() : nullptr;
  });
}

// The bytes that this thread's counted blocks take.
int segslurm_memory(int64_t* now) {
  return guarded([&] {
    TORCH_CHECK(account, "nothing is counted on this thread");
    *now = account->taken;
  });
}

// Writes what was taken after each of the thread's first `capacity` allocations since the last
// call, and how many there were.
int segslurm_memory_course(int64_t* course, size_t capacity, size_t* count) {
  return guarded([&] {
    TORCH_CHECK(account, "nothing is counted on this thread");
    *count = account->course.size();
    if (capacity < *count) return;
    std::copy(account->course.begin(), account->course.end(), course);
    account->course.clear();
  });
}

}  // extern "C"
