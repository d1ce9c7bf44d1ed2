//! Defaults of keys, for `#[serde(default = …)]`, which takes a path.

/// A number, such as `n::<3>`.
pub(crate) fn n<const N: usize>() -> usize {
    N
}

/// The same number so many times, such as `list::<1, 4>`.
pub(crate) fn list<const N: usize, const TIMES: usize>() -> Vec<usize> {
    vec![N; TIMES]
}

/// A number that may be negative.
pub(crate) fn i<const N: i64>() -> i64 {
    N
}

/// A whole number where any is read.
pub(crate) fn f<const N: i64>() -> f64 {
    N as f64
}

pub(crate) fn yes() -> bool {
    true
}
