//! What a run runs in: devices, processes, randomness.

use serde::Deserialize;

use crate::dist::DistConfig;

/// `env_cfg`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnvConfig {
    pub cudnn_benchmark: bool,
    /// TF32 on CUDA, in convolutions and matrix products alike. Left out it is as PyTorch has it: in convolutions alone.
    pub allow_tf32: Option<bool>,
    pub memory_format: MemoryFormatChoice,
    pub mp_cfg: Option<MpConfig>,
    pub dist_cfg: DistConfig,
}

/// How images and convolution weights lie in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryFormatChoice {
    /// The faster one: as measured when a run starts on a GPU, as known on the CPU.
    #[default]
    Auto,
    Contiguous,
    ChannelsLast,
}

/// Settings of Python's data workers. The loader's workers are threads: they are accepted and have no effect.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MpConfig {
    pub mp_start_method: Option<String>,
    pub opencv_num_threads: Option<i64>,
}

/// `randomness`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Randomness {
    /// Seeds weights, sampling, augmentation and dropout; drawn anew for each run when absent.
    pub seed: Option<u64>,
    /// On the CPU a seed gives the same run in any case; on GPUs it is asked in vain, and the log says so.
    pub deterministic: bool,
    /// Without effect: every rank draws its own images and dropout in any case.
    pub diff_rank_seed: bool,
}
