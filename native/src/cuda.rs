//! libtorch's CUDA half: its versions, the cards that this process may use, and why there are none.

use std::ffi::c_int;
use std::fmt;
use std::path::PathBuf;
use std::ptr::null_mut;

use crate::{NativeError, check, ffi};

/// Versions of what libtorch's CUDA build is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    /// CUDA's runtime, `13.0`.
    pub cuda: String,
    /// `9.19.0`.
    pub cudnn: Option<String>,
    /// `2.28.9`.
    pub nccl: String,
}

/// A CUDA device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// In bytes.
    pub memory: u64,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {:.1} GiB", self.name, self.memory as f64 / f64::from(1 << 30))
    }
}

/// Whether this program is linked against libtorch's CUDA build.
pub fn is_built() -> bool {
    // SAFETY: reads a constant.
    unsafe { ffi::segslurm_has_cuda() != 0 }
}

/// `None` in a program on libtorch's CPU build.
pub fn versions() -> Option<Versions> {
    let (mut runtime, mut cudnn, mut nccl) = (0, 0, [0; 3]);
    // SAFETY: the outputs are valid places, the last one of three numbers.
    check(unsafe {
        ffi::segslurm_cuda_versions(&raw mut runtime, &raw mut cudnn, nccl.as_mut_ptr())
    })
    .ok()?;
    Some(Versions {
        cuda: format!("{}.{}", runtime / 1000, runtime % 1000 / 10),
        cudnn: (cudnn > 0)
            .then(|| format!("{}.{}.{}", cudnn / 10_000, cudnn / 100 % 100, cudnn % 100)),
        nccl: nccl.map(|it: i64| it.to_string()).join("."),
    })
}

/// How many cards this process may use. Where it is none, the error says why in libtorch's words.
pub fn count() -> Result<usize, NativeError> {
    let mut count = 0;
    // SAFETY: `count` is a valid place.
    check(unsafe { ffi::segslurm_cuda_count(&raw mut count) })?;
    Ok(count as usize)
}

/// The card of that index among those that this process may use.
pub fn card(index: usize) -> Result<Card, NativeError> {
    let (mut name, mut size, mut memory, mut major, mut minor) = (null_mut(), 0, 0, 0, 0);
    // SAFETY: the outputs are valid places.
    check(unsafe {
        ffi::segslurm_cuda_card(
            index as c_int,
            &raw mut name,
            &raw mut size,
            &raw mut memory,
            &raw mut major,
            &raw mut minor,
        )
    })?;
    // SAFETY: the shim hands over `size` bytes at `name`, freed right here, once.
    let name = unsafe {
        let text = String::from_utf8_lossy(std::slice::from_raw_parts(name, size)).into_owned();
        ffi::segslurm_free(name);
        text
    };
    Ok(Card { name, memory, capability: (major, minor) })
}

/// Makes a card this thread's current one.
pub fn select(index: usize) -> Result<(), NativeError> {
    // SAFETY: touches no memory of ours.
    check(unsafe { ffi::segslurm_cuda_select(index as c_int) })
}

/// The folder of the libtorch that this process runs on, as the system's loader found it.
pub fn libtorch_folder() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let path = maps
        .lines()
        .filter_map(|line| line.find('/').map(|at| &line[at..]))
        .find(|it| it.ends_with("/libtorch_cpu.so"))?;
    PathBuf::from(path).parent().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libtorch_in_use_is_found_and_without_cuda_it_has_no_cards() {
        let folder = libtorch_folder().expect("a folder");
        assert!(folder.join("libtorch_cpu.so").exists(), "{}", folder.display());
        assert_eq!(is_built(), versions().is_some());
        if !is_built() {
            assert!(count().is_err() && card(0).is_err());
        }
    }

    #[test]
    fn a_card_is_told_in_a_line() {
        let card = Card {
            name: "NVIDIA H100 80GB HBM3".into(),
            memory: 85_017_493_504,
            capability: (9, 0),
        };
        assert_eq!(card.to_string(), "NVIDIA H100 80GB HBM3, 79.2 GiB");
    }
}
