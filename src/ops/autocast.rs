//! Mixed precision: in which type an operation computes, where a pass is one of half precision.
//!
//! One table, after torch's lists for autocast, applied where operations are dispatched: inputs are
//! cast there, and gradients come back in the type of what they belong to. An operation never casts
//! its own parameters.

use std::cell::Cell;

use burn::tensor::{Device, Tensor};
use tch::Kind;

use super::border::{from_tch, to_tch};

thread_local! {
    /// The half-precision type of the pass that runs on this thread.
    static HALF: Cell<Option<Half>> = const { Cell::new(None) };
}

/// A type of half precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    Float16,
    Bfloat16,
}

impl Half {
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Float16 => Kind::Half,
            Self::Bfloat16 => Kind::BFloat16,
        }
    }
}

/// In which type an operation computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Precision {
    /// In the half type of the pass: products, which the hardware is fast at and which add up in
    /// full precision.
    Half,
    /// In `f32`: what sums many numbers or takes exponentials.
    Full,
    /// In the widest of its inputs' types.
    Widest,
    /// As they come: elementwise operations, and those whose kernels take half-precision values
    /// with full-precision parameters.
    AsGiven,
}

/// The table, by the names of operations: all of them.
const TABLE: &[(&str, Precision)] = &[
    ("conv2d", Precision::Half),
    ("conv_transpose2d", Precision::Half),
    ("linear", Precision::Half),
    ("matmul", Precision::Half),
    ("attention", Precision::Half),
    ("self_attention", Precision::Half),
    ("cross_attention", Precision::Half),
    ("layer_norm", Precision::Full),
    ("group_norm", Precision::Full),
    ("softmax", Precision::Full),
    ("grid_sample", Precision::Full),
    ("add_relu", Precision::Widest),
    ("scaled_sum", Precision::Widest),
    ("activation", Precision::AsGiven),
    ("adaptive_avg_pool2d", Precision::AsGiven),
    ("avg_pool2d", Precision::AsGiven),
    ("batch_norm", Precision::AsGiven),
    ("binary_cross_entropy", Precision::AsGiven),
    ("cross_entropy", Precision::AsGiven),
    ("dropout", Precision::AsGiven),
    ("gather", Precision::AsGiven),
    ("max_pool2d", Precision::AsGiven),
    ("pad", Precision::AsGiven),
    ("prelu", Precision::AsGiven),
    ("recomputed", Precision::AsGiven),
    ("relu", Precision::AsGiven),
    ("resize_bicubic", Precision::AsGiven),
    ("resize_bilinear", Precision::AsGiven),
    ("resize_nearest", Precision::AsGiven),
    ("resized_cross_entropy", Precision::AsGiven),
    ("roll", Precision::AsGiven),
    ("seed", Precision::AsGiven),
    ("unfold", Precision::AsGiven),
];

pub(super) fn precision(operation: &str) -> Precision {
    let row = TABLE.iter().find(|(name, _)| *name == operation);
    // No test of an operation passes without its row.
    row.unwrap_or_else(|| {
        panic!("the operation {operation} has no row in the table of mixed precision")
    })
    .1
}

/// The type that the floats of an operation are cast to, if any; `kinds` are those of its inputs.
pub(super) fn target(operation: &str, kinds: &[Kind]) -> Option<Kind> {
    let narrow = |kind: Kind| matches!(kind, Kind::Half | Kind::BFloat16);
    let double = kinds.contains(&Kind::Double);
    match precision(operation) {
        Precision::AsGiven => None,
        _ if double => None,
        Precision::Half => HALF.get().map(Half::kind).or_else(|| mixed(kinds).then_some(kinds[0])),
        Precision::Full => kinds.iter().any(|&it| narrow(it)).then_some(Kind::Float),
        Precision::Widest => mixed(kinds).then_some(Kind::Float),
    }
}

fn mixed(kinds: &[Kind]) -> bool {
    kinds.iter().any(|it| *it != kinds[0])
}

/// The half-precision type in force on this thread.
pub(super) fn current() -> Option<Half> {
    HALF.get()
}

/// Computes in half precision for as long as it lives, on this thread; `None` in full.
#[derive(Debug)]
pub struct Autocast(Option<Half>);

impl Autocast {
    #[must_use]
    pub fn new(half: Option<Half>) -> Self {
        Self(HALF.replace(half))
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        HALF.set(self.0);
    }
}

/// `x` in the half type of a pass, if it has one.
pub fn in_half<const D: usize>(x: Tensor<D>, half: Option<Half>, device: &Device) -> Tensor<D> {
    match half {
        Some(half) => from_tch(to_tch(&x).to_kind(half.kind()), device),
        None => x,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_is_cast_and_to_what() {
        let both = [Kind::BFloat16, Kind::Float];
        assert_eq!(
            target("conv2d", &both),
            Some(Kind::BFloat16),
            "a parameter follows the activation without a pass's type"
        );
        assert_eq!(target("conv2d", &[Kind::Float; 2]), None);
        assert_eq!(target("batch_norm", &both), None);
        let half = Autocast::new(Some(Half::Bfloat16));
        assert_eq!(target("linear", &[Kind::Float; 3]), Some(Kind::BFloat16));
        assert_eq!(target("layer_norm", &both), Some(Kind::Float));
        assert_eq!(target("layer_norm", &[Kind::Double; 2]), None, "double stays double");
        assert_eq!(target("add_relu", &both), Some(Kind::Float));
        drop(half);
        assert_eq!(current(), None);
    }
}
