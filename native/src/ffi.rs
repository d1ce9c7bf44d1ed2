//! Declarations of the functions in `cpp/`, nothing else.

use std::ffi::{c_char, c_int, c_void};

/// Declares types that only the other side knows: pointers to them cannot be mixed up.
macro_rules! opaque {
    ($($(#[$meta:meta])* $name:ident)*) => {$(
        $(#[$meta])*
        #[repr(C)]
        pub(crate) struct $name {
            _private: [u8; 0],
        }
    )*};
}

opaque! {
    /// An `at::Tensor`.
    RawTensor
    /// A `SegslurmStore` of `collective.cpp`.
    RawStore
    /// A `SegslurmGroup` of `collective.cpp`.
    RawGroup
    /// A `SegslurmWork` of `collective.cpp`.
    RawWork
    /// A `SegslurmStream` of `device.cpp`.
    RawStream
    /// A `SegslurmEvent` of `device.cpp`.
    RawEvent
}

/// `SegslurmArgument` of `shim.h`.
#[repr(C)]
pub(crate) struct RawArgument {
    pub(crate) kind: i32,
    pub(crate) integer: i64,
    pub(crate) number: f64,
    pub(crate) data: *const c_void,
    pub(crate) length: usize,
}

/// `SegslurmResult` of `shim.h`.
#[repr(C)]
pub(crate) struct RawResult {
    pub(crate) kind: i32,
    pub(crate) integer: i64,
    pub(crate) number: f64,
    pub(crate) tensor: *mut RawTensor,
}

// The C library's.
unsafe extern "C" {
    pub(crate) fn mallopt(parameter: c_int, value: c_int) -> c_int;
}

unsafe extern "C" {
    pub(crate) fn segslurm_last_error() -> *const c_char;

    pub(crate) fn segslurm_call(
        name: *const c_char,
        arguments: *const RawArgument,
        count: usize,
        results: *mut *const RawResult,
        result_count: *mut usize,
    ) -> c_int;

    pub(crate) fn segslurm_is_exclusive(tensor: *const RawTensor, exclusive: *mut c_int) -> c_int;

    pub(crate) fn segslurm_label_map(
        logits: *const RawTensor,
        start: i64,
        from_height: i64,
        height: i64,
        width: i64,
        first: i64,
        align_corners: c_int,
        output: *mut *mut RawTensor,
    ) -> c_int;

    pub(crate) fn segslurm_resized_cross_entropy(
        logits: *const RawTensor,
        targets: *const RawTensor,
        class_weight: *const RawTensor,
        ignore_index: i64,
        align_corners: c_int,
        wanted: c_int,
        loss: *mut f64,
        grad: *mut *mut RawTensor,
        correct: *mut i64,
        counted: *mut i64,
    ) -> c_int;

    pub(crate) fn segslurm_cuda_resized_cross_entropy(
        logits: *const RawTensor,
        targets: *const RawTensor,
        class_weight: *const RawTensor,
        ignore_index: i64,
        align_corners: c_int,
        wanted: c_int,
        totals: *mut *mut RawTensor,
        grad: *mut *mut RawTensor,
    ) -> c_int;

    pub(crate) fn segslurm_allow_tf32(allow: c_int) -> c_int;
    pub(crate) fn segslurm_tf32(convolutions: *mut c_int, matmuls: *mut c_int) -> c_int;

    pub(crate) fn segslurm_pack(
        parts: *const *const u8,
        sizes: *const usize,
        count: usize,
        pinned: c_int,
        packed: *mut *mut RawTensor,
    ) -> c_int;
    pub(crate) fn segslurm_send(
        host: *const RawTensor,
        device: c_int,
        sent: *mut *mut RawTensor,
    ) -> c_int;
    pub(crate) fn segslurm_forbid_waiting(forbid: c_int) -> c_int;
    pub(crate) fn segslurm_stream_new(device: c_int, out: *mut *mut RawStream) -> c_int;
    pub(crate) fn segslurm_stream_free(stream: *mut RawStream);
    pub(crate) fn segslurm_stream_enter(
        stream: *const RawStream,
        previous: *mut *mut RawStream,
    ) -> c_int;
    pub(crate) fn segslurm_stream_restore(previous: *mut RawStream);
    pub(crate) fn segslurm_download(
        stream: *const RawStream,
        tensor: *const RawTensor,
        host: *mut *mut RawTensor,
        done: *mut *mut RawEvent,
    ) -> c_int;
    pub(crate) fn segslurm_upload(
        stream: *const RawStream,
        host: *const RawTensor,
        tensor: *mut *mut RawTensor,
        done: *mut *mut RawEvent,
    ) -> c_int;
    pub(crate) fn segslurm_event_wait(event: *mut RawEvent) -> c_int;
    pub(crate) fn segslurm_event_before(event: *mut RawEvent, tensor: *const RawTensor) -> c_int;
    pub(crate) fn segslurm_event_free(event: *mut RawEvent);

    pub(crate) fn segslurm_has_cuda() -> c_int;
    pub(crate) fn segslurm_cuda_versions(
        runtime: *mut i64,
        cudnn: *mut i64,
        nccl: *mut i64,
    ) -> c_int;
    pub(crate) fn segslurm_cuda_count(count: *mut c_int) -> c_int;
    pub(crate) fn segslurm_cuda_card(
        index: c_int,
        name: *mut *mut u8,
        size: *mut usize,
        memory: *mut u64,
        major: *mut c_int,
        minor: *mut c_int,
    ) -> c_int;
    pub(crate) fn segslurm_cuda_select(index: c_int) -> c_int;

    pub(crate) fn segslurm_count_memory(count: c_int) -> c_int;
    pub(crate) fn segslurm_memory(now: *mut i64) -> c_int;
    pub(crate) fn segslurm_memory_course(
        course: *mut i64,
        capacity: usize,
        count: *mut usize,
    ) -> c_int;

    pub(crate) fn segslurm_profile_begin() -> c_int;
    pub(crate) fn segslurm_profile_end(
        kernels: *mut i64,
        nanoseconds: *mut i64,
        table: *mut *mut u8,
        size: *mut usize,
    ) -> c_int;

    pub(crate) fn segslurm_exit_now(code: c_int) -> !;
    pub(crate) fn segslurm_libtorch_version() -> *const c_char;
    pub(crate) fn segslurm_quiet_c10d();

    pub(crate) fn segslurm_store_new(
        host: *const c_char,
        port: u16,
        listen_fd: c_int,
        timeout_ms: i64,
        out: *mut *mut RawStore,
    ) -> c_int;
    pub(crate) fn segslurm_store_prefixed(
        store: *const RawStore,
        prefix: *const c_char,
        out: *mut *mut RawStore,
    ) -> c_int;
    pub(crate) fn segslurm_store_set(
        store: *const RawStore,
        key: *const c_char,
        value: *const u8,
        size: usize,
    ) -> c_int;
    pub(crate) fn segslurm_store_get(
        store: *const RawStore,
        key: *const c_char,
        timeout_ms: i64,
        value: *mut *mut u8,
        size: *mut usize,
    ) -> c_int;
    pub(crate) fn segslurm_free(value: *mut u8);
    pub(crate) fn segslurm_store_add(
        store: *const RawStore,
        key: *const c_char,
        amount: i64,
        sum: *mut i64,
    ) -> c_int;
    pub(crate) fn segslurm_store_has(
        store: *const RawStore,
        key: *const c_char,
        found: *mut c_int,
    ) -> c_int;
    pub(crate) fn segslurm_store_free(store: *mut RawStore);

    pub(crate) fn segslurm_group_gloo(
        store: *const RawStore,
        rank: c_int,
        world: c_int,
        timeout_ms: i64,
        interface: *const c_char,
        address: *const c_char,
        out: *mut *mut RawGroup,
    ) -> c_int;
    pub(crate) fn segslurm_group_nccl(
        store: *const RawStore,
        rank: c_int,
        world: c_int,
        timeout_ms: i64,
        device: c_int,
        out: *mut *mut RawGroup,
    ) -> c_int;
    pub(crate) fn segslurm_group_free(group: *mut RawGroup);

    pub(crate) fn segslurm_all_reduce(
        group: *const RawGroup,
        tensor: *mut RawTensor,
        operation: c_int,
        out: *mut *mut RawWork,
    ) -> c_int;
    pub(crate) fn segslurm_broadcast(
        group: *const RawGroup,
        tensor: *mut RawTensor,
        root: c_int,
        out: *mut *mut RawWork,
    ) -> c_int;
    pub(crate) fn segslurm_all_gather(
        group: *const RawGroup,
        input: *mut RawTensor,
        output: *mut RawTensor,
        out: *mut *mut RawWork,
    ) -> c_int;
    pub(crate) fn segslurm_work_wait(work: *const RawWork) -> c_int;
    pub(crate) fn segslurm_work_is_completed(work: *const RawWork, completed: *mut c_int) -> c_int;
    pub(crate) fn segslurm_work_free(work: *mut RawWork);
}
