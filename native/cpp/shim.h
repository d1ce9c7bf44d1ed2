// Every function of the shim, as its callers in Rust know it: each file that defines one includes
// this, so that a definition which disagrees does not compile, and a test holds src/ffi.rs against
// it.
#pragma once
#include "guard.h"

#include <cstddef>
#include <cstdint>

struct SegslurmStore;
struct SegslurmGroup;
struct SegslurmWork;
struct SegslurmStream;
struct SegslurmEvent;

enum SegslurmKind : int32_t {
  SEGSLURM_NONE = 0,
  SEGSLURM_TENSOR = 1,
  SEGSLURM_TENSORS = 2,
  SEGSLURM_INT = 3,
  SEGSLURM_INTS = 4,
  SEGSLURM_FLOAT = 5,
  SEGSLURM_BOOL = 6,
  SEGSLURM_BOOLS = 7,
  SEGSLURM_TEXT = 8,
};

// An argument of segslurm_call: one of the three values, or `length` of them at `data`.
struct SegslurmArgument {
  int32_t kind;
  int64_t integer;
  double number;
  const void* data;
  size_t length;
};

struct SegslurmResult {
  int32_t kind;
  int64_t integer;
  double number;
  at::Tensor* tensor;
};

extern "C" {

// tensor.cpp
const char* segslurm_last_error();
int segslurm_is_exclusive(const at::Tensor* tensor, int* exclusive);

// dispatch.cpp
int segslurm_call(const char* name, const SegslurmArgument* arguments, size_t count,
                  const SegslurmResult** results, size_t* result_count);

// label_map.cpp
int segslurm_label_map(const at::Tensor* logits, int64_t start, int64_t from_height, int64_t height,
                       int64_t width, int64_t first, int align_corners, at::Tensor** output);

// pixel_loss.cpp
int segslurm_resized_cross_entropy(const at::Tensor* logits, const at::Tensor* targets,
                                   const at::Tensor* class_weight, int64_t ignore_index,
                                   int align_corners, int wanted, double* loss, at::Tensor** grad,
                                   int64_t* correct, int64_t* counted);

// pixel_loss_cuda.cpp
int segslurm_cuda_resized_cross_entropy(const at::Tensor* logits, const at::Tensor* targets,
                                        const at::Tensor* class_weight, int64_t ignore_index,
                                        int align_corners, int wanted, at::Tensor** totals,
                                        at::Tensor** grad);

// device.cpp
int segslurm_allow_tf32(int allow);
int segslurm_tf32(int* convolutions, int* matmuls);
int segslurm_pack(const uint8_t* const* parts, const size_t* sizes, size_t count, int pinned,
                  at::Tensor** packed);
int segslurm_send(const at::Tensor* host, int device, at::Tensor** sent);
int segslurm_forbid_waiting(int forbid);
int segslurm_stream_new(int device, SegslurmStream** out);
void segslurm_stream_free(SegslurmStream* stream);
int segslurm_stream_enter(const SegslurmStream* stream, SegslurmStream** previous);
void segslurm_stream_restore(SegslurmStream* previous);
int segslurm_download(const SegslurmStream* stream, const at::Tensor* tensor, at::Tensor** host,
                      SegslurmEvent** done);
int segslurm_upload(const SegslurmStream* stream, const at::Tensor* host, at::Tensor** tensor,
                    SegslurmEvent** done);
int segslurm_event_wait(SegslurmEvent* event);
int segslurm_event_before(SegslurmEvent* event, const at::Tensor* tensor);
void segslurm_event_free(SegslurmEvent* event);

// cuda.cpp
int segslurm_has_cuda();
int segslurm_cuda_versions(int64_t* runtime, int64_t* cudnn, int64_t nccl[3]);
int segslurm_cuda_count(int* count);
int segslurm_cuda_card(int index, uint8_t** name, size_t* size, uint64_t* memory, int* major,
                       int* minor);
int segslurm_cuda_select(int index);

// memory.cpp
int segslurm_count_memory(int count);
int segslurm_memory(int64_t* now);
int segslurm_memory_course(int64_t* course, size_t capacity, size_t* count);

// profile.cpp
int segslurm_profile_begin();
int segslurm_profile_end(int64_t* kernels, int64_t* nanoseconds, uint8_t** table, size_t* size);

// collective.cpp
void segslurm_exit_now(int code);
const char* segslurm_libtorch_version();
void segslurm_quiet_c10d();
int segslurm_store_new(const char* host, uint16_t port, int listen_fd, int64_t timeout_ms,
                       SegslurmStore** out);
int segslurm_store_prefixed(const SegslurmStore* store, const char* prefix, SegslurmStore** out);
int segslurm_store_set(const SegslurmStore* store, const char* key, const uint8_t* value,
                       size_t size);
int segslurm_store_get(const SegslurmStore* store, const char* key, int64_t timeout_ms,
                       uint8_t** value, size_t* size);
void segslurm_free(uint8_t* value);
int segslurm_store_add(const SegslurmStore* store, const char* key, int64_t amount, int64_t* sum);
int segslurm_store_has(const SegslurmStore* store, const char* key, int* found);
void segslurm_store_free(SegslurmStore* store);
int segslurm_group_gloo(const SegslurmStore* store, int rank, int world, int64_t timeout_ms,
                        const char* interface, const char* address, SegslurmGroup** out);
int segslurm_group_nccl(const SegslurmStore* store, int rank, int world, int64_t timeout_ms,
                        int device, SegslurmGroup** out);
void segslurm_group_free(SegslurmGroup* group);
int segslurm_all_reduce(const SegslurmGroup* group, at::Tensor* tensor, int operation,
                        SegslurmWork** out);
int segslurm_broadcast(const SegslurmGroup* group, at::Tensor* tensor, int root,
                       SegslurmWork** out);
int segslurm_all_gather(const SegslurmGroup* group, at::Tensor* input, at::Tensor* output,
                        SegslurmWork** out);
int segslurm_work_wait(const SegslurmWork* work);
int segslurm_work_is_completed(const SegslurmWork* work, int* completed);
void segslurm_work_free(SegslurmWork* work);

}  // extern "C"
