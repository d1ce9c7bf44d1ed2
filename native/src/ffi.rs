//! Declarations of the functions in `cpp/`, nothing else.

use std::ffi::{c_char, c_int, c_void};

/// An `at::Tensor` on the C++ side.
pub(crate) type RawTensor = c_void;
/// A `SegslurmStore`, `SegslurmGroup` and `SegslurmWork` of `collective.cpp`.
pub(crate) type RawStore = c_void;
pub(crate) type RawGroup = c_void;
pub(crate) type RawWork = c_void;
/// A `SegslurmStream` and `SegslurmEvent` of `device.cpp`.
pub(crate) type RawStream = c_void;
pub(crate) type RawEvent = c_void;

// The C library's.
unsafe extern "C" {
    pub(crate) fn mallopt(parameter: c_int, value: c_int) -> c_int;
}

unsafe extern "C" {
    pub(crate) fn segslurm_last_error() -> *const c_char;

    pub(crate) fn segslurm_convolution_backward(
        grad: *const RawTensor,
        input: *const RawTensor,
        weight: *const RawTensor,
        stride: *const i64,
        padding: *const i64,
        dilation: *const i64,
        groups: i64,
        mask: *const c_int,
        grad_input: *mut *mut RawTensor,
        grad_weight: *mut *mut RawTensor,
        grad_bias: *mut *mut RawTensor,
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

    pub(crate) fn segslurm_batch_norm(
        input: *const RawTensor,
        weight: *const RawTensor,
        bias: *const RawTensor,
        running_mean: *const RawTensor,
        running_var: *const RawTensor,
        training: c_int,
        momentum: f64,
        eps: f64,
        relu: c_int,
        output: *mut *mut RawTensor,
        mean: *mut *mut RawTensor,
        invstd: *mut *mut RawTensor,
        reserve: *mut *mut RawTensor,
        implementation: *mut i64,
    ) -> c_int;

    pub(crate) fn segslurm_batch_norm_backward(
        grad: *const RawTensor,
        input: *const RawTensor,
        weight: *const RawTensor,
        running_mean: *const RawTensor,
        running_var: *const RawTensor,
        mean: *const RawTensor,
        invstd: *const RawTensor,
        reserve: *const RawTensor,
        implementation: i64,
        training: c_int,
        eps: f64,
        mask: *const c_int,
        grad_input: *mut *mut RawTensor,
        grad_weight: *mut *mut RawTensor,
        grad_bias: *mut *mut RawTensor,
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
    pub(crate) fn segslurm_send(host: *const RawTensor, device: c_int, sent: *mut *mut RawTensor) -> c_int;
    pub(crate) fn segslurm_forbid_waiting(forbid: c_int) -> c_int;
    pub(crate) fn segslurm_stream_new(device: c_int, out: *mut *mut RawStream) -> c_int;
    pub(crate) fn segslurm_stream_free(stream: *mut RawStream);
    pub(crate) fn segslurm_stream_enter(stream: *const RawStream, previous: *mut *mut RawStream) -> c_int;
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
    pub(crate) fn segslurm_cuda_versions(runtime: *mut i64, cudnn: *mut i64, nccl: *mut i64) -> c_int;
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

    pub(crate) fn segslurm_profile_begin() -> c_int;
    pub(crate) fn segslurm_profile_end(kernels: *mut i64, nanoseconds: *mut i64, table: *mut *mut u8, size: *mut usize) -> c_int;

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
    pub(crate) fn segslurm_store_prefixed(store: *const RawStore, prefix: *const c_char, out: *mut *mut RawStore) -> c_int;
    pub(crate) fn segslurm_store_set(store: *const RawStore, key: *const c_char, value: *const u8, size: usize) -> c_int;
    pub(crate) fn segslurm_store_get(
        store: *const RawStore,
        key: *const c_char,
        timeout_ms: i64,
        value: *mut *mut u8,
        size: *mut usize,
    ) -> c_int;
    pub(crate) fn segslurm_free(value: *mut u8);
    pub(crate) fn segslurm_store_add(store: *const RawStore, key: *const c_char, amount: i64, sum: *mut i64) -> c_int;
    pub(crate) fn segslurm_store_has(store: *const RawStore, key: *const c_char, found: *mut c_int) -> c_int;
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
    pub(crate) fn segslurm_reduce_scatter(
        group: *const RawGroup,
        input: *mut RawTensor,
        output: *mut RawTensor,
        operation: c_int,
        out: *mut *mut RawWork,
    ) -> c_int;
    pub(crate) fn segslurm_work_wait(work: *const RawWork) -> c_int;
    pub(crate) fn segslurm_work_is_completed(work: *const RawWork, completed: *mut c_int) -> c_int;
    pub(crate) fn segslurm_work_free(work: *mut RawWork);

    pub(crate) fn segslurm_fused_sgd(
        params: *const *const RawTensor,
        grads: *const *const RawTensor,
        momentum: *const *const RawTensor,
        count: usize,
        lr: f64,
        weight_decay: f64,
        momentum_factor: f64,
        dampening: f64,
        nesterov: c_int,
        first: c_int,
        found_inf: *const RawTensor,
    ) -> c_int;

    pub(crate) fn segslurm_fused_adam(
        params: *const *const RawTensor,
        grads: *const *const RawTensor,
        exp_avgs: *const *const RawTensor,
        exp_avg_sqs: *const *const RawTensor,
        max_exp_avg_sqs: *const *const RawTensor,
        steps: *const *const RawTensor,
        count: usize,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
        decoupled: c_int,
        found_inf: *const RawTensor,
    ) -> c_int;

    pub(crate) fn segslurm_total_norm(
        grads: *const *const RawTensor,
        count: usize,
        norm_type: f64,
        total: *mut *mut RawTensor,
    ) -> c_int;

    pub(crate) fn segslurm_scale_all(tensors: *const *const RawTensor, count: usize, factor: *const RawTensor) -> c_int;

    pub(crate) fn segslurm_clamp_all(tensors: *const *const RawTensor, count: usize, low: f64, high: f64) -> c_int;

    pub(crate) fn segslurm_add_all(tensors: *const *const RawTensor, others: *const *const RawTensor, count: usize) -> c_int;

    pub(crate) fn segslurm_unscale_all(
        tensors: *const *const RawTensor,
        count: usize,
        found_inf: *const RawTensor,
        inverse: *const RawTensor,
    ) -> c_int;

    pub(crate) fn segslurm_update_scale(
        scale: *const RawTensor,
        growth_tracker: *const RawTensor,
        found_inf: *const RawTensor,
        growth: f64,
        backoff: f64,
        interval: i64,
    ) -> c_int;
}
