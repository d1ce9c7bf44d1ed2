//! What mmseg, mmengine and OpenCV computed, kept in files beside the scripts that made them: a
//! drift is seen without Python.

mod decoding;
mod network;
mod transforms;

use segslurm::data::Raster;
use serde_json::Value;

/// A golden file, built into the test.
macro_rules! golden {
    ($name:literal) => {
        $crate::golden::parse(include_str!($name))
    };
}
use golden;

fn parse(text: &str) -> Value {
    serde_json::from_str(text).expect("a golden file is JSON")
}

/// `count` numbers in [0, 1) with 24 bits each: splitmix64 of the name's CRC-32 and the place, as
/// the scripts make them.
fn numbers(name: &str, count: usize) -> impl Iterator<Item = f64> {
    let start = u64::from(crc32fast::hash(name.as_bytes())) << 32;
    (0..count as u64).map(move |place| {
        let mut z = (start + place).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f64 / f64::from(1 << 24)
    })
}

/// Noise in every channel.
fn noise<const C: usize>(name: &str, height: usize, width: usize) -> Raster<C> {
    Raster {
        height,
        width,
        data: numbers(name, height * width * C).map(|it| (it * 256.0) as u8).collect(),
    }
}

/// Squares of eight pixels, each of one class of `classes`; one in eight or so is ignored.
fn squares(name: &str, height: usize, width: usize, classes: u8) -> Raster<1> {
    let columns = width.div_ceil(8);
    let squares: Vec<u8> = numbers(name, height.div_ceil(8) * columns)
        .map(|it| (it * f64::from(classes + 1)) as u8)
        .collect();
    let label = |at: usize| match squares[at / width / 8 * columns + at % width / 8] {
        label if label == classes => 255,
        label => label,
    };
    Raster { height, width, data: (0..height * width).map(label).collect() }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Fails where the two are further apart than `tolerance` of the larger.
#[track_caller]
fn close(what: &str, ours: f64, golden: f64, tolerance: f64) {
    let apart = (ours - golden).abs() / golden.abs().max(1e-6);
    assert!(apart <= tolerance, "{what}: {ours}, expected {golden} ({apart:.1e} apart)");
}

fn bytes(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().expect("hexadecimal digits");
    (0..hex.len() / 2)
        .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("two digits"))
        .collect()
}

fn integer(value: &Value) -> usize {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count")) as usize
}

fn shape(value: &Value) -> (usize, usize) {
    (integer(&value[0]), integer(&value[1]))
}
