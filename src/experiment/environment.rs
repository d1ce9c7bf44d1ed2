//! What a run runs in: devices, processes, randomness.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use crate::config::OneOrMany;
use crate::dist::DistConfig;

/// `env_cfg`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnvConfig {
    pub cudnn_benchmark: bool,
    /// Without effect, as in mmengine, which has `randomness.deterministic` for it.
    pub cudnn_deterministic: Option<bool>,
    /// TF32 on CUDA, in convolutions and matrix products alike. Left out it is as PyTorch has it:
    /// in convolutions alone.
    pub allow_tf32: Option<bool>,
    pub memory_format: MemoryFormatChoice,
    pub mp_cfg: Option<MpConfig>,
    /// Open files of a process, of which Python's workers need many; without effect.
    pub resource_limit: Option<u64>,
    pub dist_cfg: DistConfig,
}

/// How images and convolution weights lie in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryFormatChoice {
    /// The faster one: channels-last on GPUs of compute capability 7.0 and above, contiguous
    /// elsewhere.
    #[default]
    Auto,
    Contiguous,
    ChannelsLast,
}

/// Settings of Python's data workers. The loader's workers are threads: they are accepted and have
/// no effect.
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
    /// On the CPU a seed gives the same run in any case; on GPUs it cannot be had, and the log says
    /// so.
    pub deterministic: bool,
    /// Without effect: every rank draws its own images and dropout in any case.
    pub diff_rank_seed: bool,
}

/// `custom_imports`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CustomImports {
    pub imports: OneOrMany<ImportedModule>,
    pub allow_failed_imports: bool,
}

/// A Python module whose components exist here under the same names, or do not matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedModule(pub String);

impl<'de> Deserialize<'de> for ImportedModule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let package = name.split('.').next().unwrap_or_default();
        // The components of these packages are known by name, one by one: a config that needs one
        // of the others says so itself.
        if name.is_empty()
            || ["mmseg", "mmengine", "mmcv", "mmpretrain", "mmcls", "mmdet"].contains(&package)
        {
            return Ok(Self(name));
        }
        Err(de::Error::custom(format!(
            "segslurm runs no Python: what the module `{name}` defines does not exist here; remove \
             it, and what the config takes from it"
        )))
    }
}

/// `compile`: `true`, `false`, or the arguments of `torch.compile`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compile(pub bool);

impl<'de> Deserialize<'de> for Compile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Compile;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or a mapping")
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Compile, E> {
                Ok(Compile(value))
            }

            fn visit_unit<E: de::Error>(self) -> Result<Compile, E> {
                Ok(Compile(false))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Compile, A::Error> {
                while map.next_entry::<String, de::IgnoredAny>()?.is_some() {}
                Ok(Compile(true))
            }
        }
        deserializer.deserialize_any(Any)
    }
}
