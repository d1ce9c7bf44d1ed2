// The device's own settings and queues: what PyTorch has in torch.backends and torch.cuda, and tch
// does not expose.
#include "shim.h"

#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>

#include <cstring>

#ifdef SEGSLURM_CUDA
#include <c10/cuda/CUDAFunctions.h>
#endif

using at::Tensor;
using segslurm::guarded;
using segslurm::own;

// c10's own streams and events: they reach CUDA's runtime through libtorch, so that nothing of it
// is linked here.
struct SegslurmStream {
  c10::Stream stream;
};
struct SegslurmEvent {
  c10::Event event{c10::DeviceType::CUDA};
};

namespace {

// libtorch asks for new names of these settings (since 2.9), which differ from version to version;
// the old ones set both.
struct Quiet : c10::WarningHandler {
  void process(const c10::Warning&) override {}
};

c10::impl::VirtualGuardImpl cuda() { return c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA); }

}  // namespace

extern "C" {

// TF32 in cuDNN's convolutions and in cuBLAS's matrix products.
int segslurm_allow_tf32(int allow) {
  return guarded([&] {
    Quiet quiet;
    const c10::WarningUtils::WarningHandlerGuard guard(&quiet);
    at::globalContext().setAllowTF32CuDNN(allow != 0);
    at::globalContext().setAllowTF32CuBLAS(allow != 0);
  });
}

int segslurm_tf32(int* convolutions, int* matmuls) {
  return guarded([&] {
    Quiet quiet;
    const c10::WarningUtils::WarningHandlerGuard guard(&quiet);
    *convolutions = at::globalContext().allowTF32CuDNN() ? 1 : 0;
    *matmuls = at::globalContext().allowTF32CuBLAS() ? 1 : 0;
  });
}

// The parts one after the other, as bytes [sum of sizes] on the host; in pinned memory if so asked.
int segslurm_pack(const uint8_t* const* parts, const size_t* sizes, size_t count, int pinned,
                  Tensor** packed) {
  return guarded([&] {
    int64_t total = 0;
    for (size_t i = 0; i < count; ++i) total += static_cast<int64_t>(sizes[i]);
    const Tensor bytes =
        at::empty({total}, at::TensorOptions(at::kByte).pinned_memory(pinned != 0));
    uint8_t* place = bytes.mutable_data_ptr<uint8_t>();
    for (size_t i = 0; i < count; ++i) {
      std::memcpy(place, parts[i], sizes[i]);
      place += sizes[i];
    }
    *packed = own(bytes);
  });
}

// A host tensor on a CUDA device, copied by its current stream from pinned memory.
int segslurm_send(const Tensor* host, int device, Tensor** sent) {
  return guarded([&] {
    const at::Device place(at::kCUDA, static_cast<c10::DeviceIndex>(device));
    const Tensor pinned = host->is_pinned() ? *host : host->pin_memory();
    *sent =
        own(pinned.to(host->options().device(place).pinned_memory(false), /*non_blocking=*/true));
  });
}

// With 1, operations that make the host wait for a CUDA device are errors
// (torch.cuda.set_sync_debug_mode). Events may wait.
int segslurm_forbid_waiting(int forbid) {
  return guarded([&] {
#ifdef SEGSLURM_CUDA
    using c10::cuda::SyncDebugMode;
    c10::cuda::warning_state().set_sync_debug_mode(forbid != 0 ? SyncDebugMode::L_ERROR
                                                               : SyncDebugMode::L_DISABLED);
#else
    (void)forbid;
#endif
  });
}

// One of the device's pool of streams; it stays the pool's.
int segslurm_stream_new(int device, SegslurmStream** out) {
  return guarded([&] {
    const c10::Device place(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(device));
    *out = new SegslurmStream{cuda().getStreamFromGlobalPool(place, false)};
  });
}

void segslurm_stream_free(SegslurmStream* stream) { delete stream; }

// Makes `stream` this thread's current one on its device; `previous` is the caller's to restore and
// free.
int segslurm_stream_enter(const SegslurmStream* stream, SegslurmStream** previous) {
  return guarded([&] { *previous = new SegslurmStream{cuda().exchangeStream(stream->stream)}; });
}

void segslurm_stream_restore(SegslurmStream* previous) {
  (void)guarded([&] { cuda().exchangeStream(previous->stream); });
  delete previous;
}

// Copies a device's tensor into pinned memory on `stream`, once the current stream has done what it
// was given so far.
int segslurm_download(const SegslurmStream* stream, const Tensor* tensor, Tensor** host,
                      SegslurmEvent** done) {
  return guarded([&] {
    const c10::Stream copies = stream->stream;
    c10::Event ready(c10::DeviceType::CUDA);
    ready.record(cuda().getStream(copies.device()));
    ready.block(copies);
    const c10::StreamGuard guard(copies);
    const Tensor dense = tensor->contiguous();
    const Tensor place =
        at::empty(dense.sizes(), dense.options().device(at::kCPU).pinned_memory(true));
    place.copy_(dense, /*non_blocking=*/true);
    // The tensor may be freed before the copy has run: its memory is not to be given away until
    // then.
    tensor->record_stream(copies);
    auto event = std::make_unique<SegslurmEvent>();
    event->event.record(copies);
    *host = own(place);
    *done = event.release();
  });
}

// Copies a host tensor (pinned, or the copy waits) to the stream's device on `stream`, which waits
// for nothing.
int segslurm_upload(const SegslurmStream* stream, const Tensor* host, Tensor** tensor,
                    SegslurmEvent** done) {
  return guarded([&] {
    const c10::StreamGuard guard(stream->stream);
    const Tensor place =
        host->to(host->options().device(stream->stream.device()).pinned_memory(false),
                 /*non_blocking=*/true);
    auto event = std::make_unique<SegslurmEvent>();
    event->event.record(stream->stream);
    *tensor = own(place);
    *done = event.release();
  });
}

// The host waits.
int segslurm_event_wait(SegslurmEvent* event) {
  return guarded([&] { event->event.synchronize(); });
}

// The current stream of the tensor's device waits, and the tensor's memory stays its own until that
// stream is done with it.
int segslurm_event_before(SegslurmEvent* event, const Tensor* tensor) {
  return guarded([&] {
    const c10::Stream current = cuda().getStream(tensor->device());
    event->event.block(current);
    tensor->record_stream(current);
  });
}

void segslurm_event_free(SegslurmEvent* event) { delete event; }

}  // extern "C"
