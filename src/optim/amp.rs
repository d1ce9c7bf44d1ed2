//! Mixed precision's part of the optimizer: the loss scale that keeps small fp16 gradients from
//! vanishing.
//!
//! Here is what a config says of it; [`GradScaler`] is what moves.

use std::fmt;

use burn::tensor::Device;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::ops::{GradScaler, Half, ScaleRule, gpu_index};

/// `dtype` of `AmpOptimWrapper`: what matrix products and convolutions compute in.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum AmpDtype {
    Float16,
    Bfloat16,
}

impl AmpDtype {
    /// The type, as operations know it.
    pub fn half(self) -> Half {
        match self {
            Self::Float16 => Half::Float16,
            Self::Bfloat16 => Half::Bfloat16,
        }
    }
}

impl fmt::Display for AmpDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Float16 => "float16",
            Self::Bfloat16 => "bfloat16",
        })
    }
}

/// `loss_scale`: `dynamic`, a fixed number, or the keys of torch's `GradScaler`.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum LossScale {
    #[default]
    Dynamic,
    Fixed(f64),
    Custom(DynamicScale),
}

/// How a dynamic loss scale moves, with torch's keys and defaults.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct DynamicScale {
    pub init_scale: f64,
    /// The factor after `growth_interval` steps in a row without an overflow.
    pub growth_factor: f64,
    /// The factor after an overflow.
    pub backoff_factor: f64,
    pub growth_interval: i64,
    pub enabled: bool,
}

impl Default for DynamicScale {
    fn default() -> Self {
        Self {
            init_scale: 65536.0,
            growth_factor: 2.0,
            backoff_factor: 0.5,
            growth_interval: 2000,
            enabled: true,
        }
    }
}

impl<'de> Deserialize<'de> for LossScale {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LossScaleVisitor)
    }
}

struct LossScaleVisitor;

impl<'de> Visitor<'de> for LossScaleVisitor {
    type Value = LossScale;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "\"dynamic\", a positive number, or a mapping with init_scale, growth_factor, \
             backoff_factor, growth_interval",
        )
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<LossScale, E> {
        if text == "dynamic" {
            Ok(LossScale::Dynamic)
        } else {
            Err(E::invalid_value(de::Unexpected::Str(text), &self))
        }
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<LossScale, E> {
        if value > 0.0 {
            Ok(LossScale::Fixed(value))
        } else {
            Err(E::invalid_value(de::Unexpected::Float(value), &self))
        }
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<LossScale, E> {
        self.visit_f64(value as f64)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<LossScale, E> {
        self.visit_f64(value as f64)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<LossScale, A::Error> {
        DynamicScale::deserialize(MapAccessDeserializer::new(map)).map(LossScale::Custom)
    }
}

/// What `AmpOptimWrapper` has beyond `OptimWrapper`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Amp {
    /// None: fp16 on CUDA, bf16 on the CPU, as torch's autocast.
    pub dtype: Option<AmpDtype>,
    pub loss_scale: LossScale,
}

impl Amp {
    pub fn dtype(&self, on_gpu: bool) -> AmpDtype {
        self.dtype.unwrap_or(if on_gpu { AmpDtype::Float16 } else { AmpDtype::Bfloat16 })
    }

    /// The scaler for a device. None where no scale is needed: bf16 has fp32's range, unless a
    /// scale is asked for by number.
    pub fn scaler(&self, device: &Device) -> Option<GradScaler> {
        let motion = match &self.loss_scale {
            LossScale::Dynamic if self.dtype(gpu_index(device).is_some()) == AmpDtype::Bfloat16 => {
                return None;
            }
            LossScale::Dynamic => DynamicScale::default(),
            LossScale::Fixed(scale) => DynamicScale {
                init_scale: *scale,
                growth_factor: 1.0,
                backoff_factor: 1.0,
                ..DynamicScale::default()
            },
            LossScale::Custom(motion) if !motion.enabled => return None,
            LossScale::Custom(motion) => motion.clone(),
        };
        let DynamicScale { init_scale, growth_factor, backoff_factor, growth_interval, .. } =
            motion;
        let rule = ScaleRule {
            initial: init_scale,
            growth: growth_factor,
            backoff: backoff_factor,
            interval: growth_interval,
        };
        Some(GradScaler::new(rule, device))
    }
}
