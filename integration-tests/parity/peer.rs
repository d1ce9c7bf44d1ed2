//! What the peer wrote, and figures against their limits.

use std::path::PathBuf;

use segslurm::data::Raster;
use segslurm::testing::checkpoint::{Checkpoint, StateDict};
use segslurm::testing::config;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A file of the peer's, below the folder of one part.
pub(crate) fn path(name: &str) -> PathBuf {
    let folder = std::env::var_os("SEGSLURM_PARITY_DATA")
        .expect("SEGSLURM_PARITY_DATA names the peer's results: run `make parity`");
    PathBuf::from(folder).join(name)
}

/// The tensors of a `.safetensors` or `.pth`.
pub(crate) fn tensors(name: &str) -> StateDict {
    Checkpoint::read(&path(name)).unwrap_or_else(|error| panic!("{error}")).model
}

pub(crate) fn json(name: &str) -> Value {
    let text =
        std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A config that the peer wrote, to be changed before it is read.
pub(crate) fn yaml(name: &str) -> Value {
    let text =
        std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A section of a config as its type.
pub(crate) fn section<T: DeserializeOwned>(value: &Value) -> T {
    config::parse_str(&value.to_string()).unwrap_or_else(|error| panic!("{value}: {error}"))
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list"))
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

pub(crate) fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

pub(crate) fn size(value: &Value) -> usize {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no size")) as usize
}

/// Two sizes, in the order in which they are written.
pub(crate) fn pair(value: &Value) -> (usize, usize) {
    (size(&value[0]), size(&value[1]))
}

/// Bytes `[h, w]` or `[h, w, 3]`.
pub(crate) fn raster<const C: usize>(tensor: &tch::Tensor) -> Raster<C> {
    let size = tensor.size();
    assert_eq!(size.get(2).copied().unwrap_or(1) as usize, C, "{size:?}");
    let mut data = vec![0; tensor.numel()];
    tensor.contiguous().copy_data_u8(&mut data, tensor.numel());
    Raster { height: size[0] as usize, width: size[1] as usize, data }
}

/// The largest difference, over the peer's largest value.
pub(crate) fn apart(ours: &tch::Tensor, theirs: &tch::Tensor) -> f64 {
    assert_eq!(ours.size(), theirs.size());
    let (ours, theirs) = (ours.to_kind(tch::Kind::Double), theirs.to_kind(tch::Kind::Double));
    (ours - &theirs).abs().max().double_value(&[]) / theirs.abs().max().double_value(&[]).max(1e-30)
}

/// The figures of one test.
pub(crate) struct Figures {
    title: String,
    beyond: Vec<String>,
}

impl Figures {
    pub(crate) fn new(title: &str) -> Self {
        Self { title: title.to_owned(), beyond: Vec::new() }
    }

    /// A figure that has to be at most `limit`.
    pub(crate) fn at_most(&mut self, what: &str, figure: f64, limit: f64) {
        self.note(what, format!("{figure:.2e} (limit {limit:.0e})"), figure <= limit);
    }

    /// A figure that has to be at least `limit`.
    pub(crate) fn at_least(&mut self, what: &str, figure: f64, limit: f64) {
        self.note(what, format!("{figure:.4} (limit {limit})"), figure >= limit);
    }

    fn note(&mut self, what: &str, told: String, good: bool) {
        let line = format!("{}: {what}: {told}", self.title);
        println!("{line}{}", if good { "" } else { "  BEYOND ITS LIMIT" });
        if !good {
            self.beyond.push(line);
        }
    }

    pub(crate) fn done(self) {
        assert!(self.beyond.is_empty(), "beyond their limits:\n{}", self.beyond.join("\n"));
    }
}
