//! The operations that models are made of, as fast as libtorch runs them.
//!
//! Burn's autodiff is the autograd; the tensors underneath are `tch`'s. Here, and nowhere else in
//! this crate, the two meet: every function takes and returns Burn tensors, is differentiable in
//! each float input that is tracked, and calls ATen's own kernels for both directions. [`function`]
//! is the one extension of Burn that all of them go through.
//!
//! # Writing in place
//! An operation writes over an input only when its handle is the last one to that storage
//! ([`relu`], [`add_relu`], [`dropout2d`]): keep a clone and it computes into fresh memory instead.
//! Burn's own operations do the same by a count of their own; a [`Handle`], which is all that
//! leaves this module, is in both.
//!
//! # Failures
//! Burn's operations cannot return errors. Shapes are checked here, with a message that names the
//! operation and both sides; what libtorch itself refuses (such as running out of memory) is a
//! panic with libtorch's words, which the program catches at its top.
//!
//! # Precision
//! In a pass of half precision ([`Autocast`]) activations are `f16` or `bf16` while parameters and
//! running statistics are `f32`: which operation computes in which type is one table (`autocast`).
//! Losses compute in `f32`. Gradients have their input's type.

mod activation;
mod attention;
mod autocast;
mod axis;
mod batch;
mod batch_norm;
mod binary_cross_entropy;
mod border;
mod boundaries;
mod constant;
mod convolution;
mod count;
mod cross_entropy;
mod device;
mod dropout;
mod error;
pub mod flat;
mod function;
mod grad_scaler;
mod grad_tap;
mod hard_pixels;
mod heads;
mod label_map;
mod linear;
mod memory_format;
mod numbers;
mod pool;
mod rearrange;
mod recompute;
mod relu;
mod resize;
mod resized_cross_entropy;
mod sample_norm;
mod scaled_sum;
mod sync_batch_norm;
pub mod update;
mod windows;

#[cfg(test)]
mod reference;

pub use activation::{Activation, activate, prelu};
pub use attention::{attention, softmax};
pub use autocast::{Autocast, Half, in_half};
pub use batch::{Layout, Pixels, Sent, Uploads};
pub use batch_norm::{BatchNorm, batch_norm};
pub use binary_cross_entropy::{
    BinaryCrossEntropy, binary_cross_entropy, binary_cross_entropy_per_element,
    binary_cross_entropy_weighted,
};
pub use border::{Handle, counter, from_tch, gradient, indices, read_npy, to_tch};
pub use boundaries::boundaries;
pub use constant::Constant;
pub use convolution::{Conv, conv_transpose2d, conv2d};
pub use count::multiply_adds;
pub use cross_entropy::{
    CrossEntropy, Reduction, cross_entropy, cross_entropy_per_pixel, cross_entropy_weighted,
};
pub use device::{device, gpu_index, place, set_cudnn_benchmark, threads};
pub use dropout::{drop_path, dropout, dropout2d};
pub use error::OperationError;
pub(crate) use error::refuse;
pub use grad_scaler::{GradScaler, ScaleRule, ScalerState};
pub use grad_tap::{Leaf, LeafId, backward_with, leaf};
pub use hard_pixels::{class_planes, largest, least_probable};
pub use heads::{cross_attention, self_attention};
pub use label_map::{LabelStrips, accuracy, foreground, label_map, resized_label_map};
pub use linear::{linear, matmul};
pub use memory_format::MemoryFormat;
pub use numbers::{gather_numbers, numbers};
pub use pool::{adaptive_avg_pool2d, avg_pool2d, max_pool2d, max_pool2d_with};
pub use rearrange::{gather, grid_sample, pad2d, roll, topk, unfold};
pub use recompute::recomputed;
pub use relu::{add_relu, relu};
pub use resize::{resize_bicubic, resize_bilinear, resize_nearest};
pub use resized_cross_entropy::resized_cross_entropy;
pub use sample_norm::{group_norm, layer_norm};
pub use scaled_sum::scaled_sum;
pub use segslurm_native::NativeError;
pub use segslurm_native::cuda::select as select_gpu;
pub use segslurm_native::device::{CopyStream, allow_tf32};
pub use segslurm_native::memory::{Counted as CountedMemory, keep_freed_pages};
pub use windows::{WindowSums, is_full_precision_on_cpu, window};

use burn::tensor::Tensor;

/// Joins `[n, c_i, h, w]` along the channels; the gradients are views of the output's, not copies.
pub fn concat(xs: Vec<Tensor<4>>) -> Tensor<4> {
    assert!(!xs.is_empty(), "concat: expected at least one tensor, got none");
    Tensor::cat(xs, 1)
}
