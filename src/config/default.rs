//! Defaults of keys, for `#[serde(default = …)]`, which takes a path.

/// A number, such as `n::<3>`.
pub(crate) fn n<const N: usize>() -> usize {
    N
}

/// A whole number of 64 bits.
pub(crate) fn u<const N: u64>() -> u64 {
    N
}

/// A fraction, such as `ratio::<1, 1000>` for 0.001: the very number, since a quotient of whole
/// numbers is rounded once.
pub(crate) fn ratio<const N: i64, const D: i64>() -> f64 {
    N as f64 / D as f64
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
