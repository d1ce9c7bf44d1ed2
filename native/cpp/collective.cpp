// c10d: TCPStore, Gloo and, in builds on a CUDA libtorch, NCCL.
#include "shim.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#ifdef USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include <c10/util/Logging.h>
#include <torch/version.h>

#include <chrono>
#include <cstdlib>
#include <cstring>

using at::Tensor;
using segslurm::guarded;
using segslurm::own;
using std::chrono::milliseconds;

struct SegslurmStore {
  c10::intrusive_ptr<c10d::Store> store;
};
struct SegslurmGroup {
  c10::intrusive_ptr<c10d::Backend> backend;
};
struct SegslurmWork {
  c10::intrusive_ptr<c10d::Work> work;
};

namespace {

std::vector<uint8_t> bytes(const uint8_t* data, size_t size) {
  return std::vector<uint8_t>(data, data + size);
}

SegslurmWork* start(c10::intrusive_ptr<c10d::Work> work) {
  return new SegslurmWork{std::move(work)};
}

}  // namespace

extern "C" {

// Ends the process without running destructors: threads of c10d may be blocked for good.
void segslurm_exit_now(int code) { std::_Exit(code); }

const char* segslurm_libtorch_version() { return TORCH_VERSION; }

// c10d warns on every failed attempt to connect; those that matter come back as errors.
// TORCH_CPP_LOG_LEVEL still wins.
void segslurm_quiet_c10d() {
  if (std::getenv("TORCH_CPP_LOG_LEVEL") == nullptr) FLAGS_caffe2_log_level = 2;
}

// The server takes over `listen_fd`, a listening socket; with -1 this is a client.
int segslurm_store_new(const char* host, uint16_t port, int listen_fd, int64_t timeout_ms,
                       SegslurmStore** out) {
  return guarded([&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = listen_fd >= 0;
    if (listen_fd >= 0) options.masterListenFd = listen_fd;
    options.waitWorkers = false;
    options.timeout = milliseconds(timeout_ms);
    *out = new SegslurmStore{c10::make_intrusive<c10d::TCPStore>(host, options)};
  });
}

// The same store with every key under `prefix`.
int segslurm_store_prefixed(const SegslurmStore* store, const char* prefix, SegslurmStore** out) {
  return guarded([&] {
    *out = new SegslurmStore{c10::make_intrusive<c10d::PrefixStore>(prefix, store->store)};
  });
}

int segslurm_store_set(const SegslurmStore* store, const char* key, const uint8_t* value,
                       size_t size) {
  return guarded([&] { store->store->set(key, bytes(value, size)); });
}

// Waits for the key; the value's memory is malloc'ed and the caller's.
int segslurm_store_get(const SegslurmStore* store, const char* key, int64_t timeout_ms,
                       uint8_t** value, size_t* size) {
  return guarded([&] {
    store->store->wait({key}, milliseconds(timeout_ms));
    const auto found = store->store->get(key);
    *value = static_cast<uint8_t*>(std::malloc(found.size() + 1));
    if (*value == nullptr) throw std::bad_alloc();
    std::memcpy(*value, found.data(), found.size());
    *size = found.size();
  });
}

void segslurm_free(uint8_t* value) { std::free(value); }

int segslurm_store_add(const SegslurmStore* store, const char* key, int64_t amount, int64_t* sum) {
  return guarded([&] { *sum = store->store->add(key, amount); });
}

int segslurm_store_has(const SegslurmStore* store, const char* key, int* found) {
  return guarded([&] { *found = store->store->check({key}) ? 1 : 0; });
}

void segslurm_store_free(SegslurmStore* store) { delete store; }

// Gloo over the interface of that name, or else over the interface that has this address.
int segslurm_group_gloo(const SegslurmStore* store, int rank, int world, int64_t timeout_ms,
                        const char* interface, const char* address, SegslurmGroup** out) {
  return guarded([&] {
    auto options = c10d::ProcessGroupGloo::Options::create(milliseconds(timeout_ms));
    options->devices.push_back(interface != nullptr
                                   ? c10d::ProcessGroupGloo::createDeviceForInterface(interface)
                                   : c10d::ProcessGroupGloo::createDeviceForHostname(address));
    store->store->setTimeout(milliseconds(timeout_ms));
    *out = new SegslurmGroup{
        c10::make_intrusive<c10d::ProcessGroupGloo>(store->store, rank, world, options)};
  });
}

int segslurm_group_nccl(const SegslurmStore* store, int rank, int world, int64_t timeout_ms,
                        int device, SegslurmGroup** out) {
  return guarded([&] {
#ifdef USE_C10D_NCCL
    auto options = c10d::ProcessGroupNCCL::Options::create();
    options->timeout = milliseconds(timeout_ms);
    store->store->setTimeout(milliseconds(timeout_ms));
    auto group = c10::make_intrusive<c10d::ProcessGroupNCCL>(store->store, rank, world, options);
    group->setBoundDeviceId(at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(device)));
    *out = new SegslurmGroup{group};
#else
    (void)store, (void)rank, (void)world, (void)timeout_ms, (void)device, (void)out;
    throw std::runtime_error(
        "NCCL comes with libtorch's CUDA build, and this segslurm is linked against its CPU build");
#endif
  });
}

void segslurm_group_free(SegslurmGroup* group) { delete group; }

int segslurm_all_reduce(const SegslurmGroup* group, Tensor* tensor, int operation,
                        SegslurmWork** out) {
  return guarded([&] {
    std::vector<Tensor> tensors{*tensor};
    c10d::AllreduceOptions options;
    options.reduceOp = static_cast<c10d::ReduceOp::RedOpType>(operation);
    *out = start(group->backend->allreduce(tensors, options));
  });
}

int segslurm_broadcast(const SegslurmGroup* group, Tensor* tensor, int root, SegslurmWork** out) {
  return guarded([&] {
    std::vector<Tensor> tensors{*tensor};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    *out = start(group->backend->broadcast(tensors, options));
  });
}

// `output` has one more dimension in front, of the group's size.
int segslurm_all_gather(const SegslurmGroup* group, Tensor* input, Tensor* output,
                        SegslurmWork** out) {
  return guarded([&] {
    // Gloo splits the output along its first dimension and wants pieces of the input's very shape:
    // flat ones fit.
    Tensor flat_output = output->view(-1), flat_input = input->view(-1);
    *out = start(group->backend->_allgather_base(flat_output, flat_input));
  });
}

int segslurm_work_wait(const SegslurmWork* work) {
  return guarded([&] { work->work->wait(); });
}

int segslurm_work_is_completed(const SegslurmWork* work, int* completed) {
  return guarded([&] { *completed = work->work->isCompleted() ? 1 : 0; });
}

void segslurm_work_free(SegslurmWork* work) { delete work; }

}  // extern "C"
