//! Mixed precision's part of the optimizer: the loss scale that keeps small fp16 gradients from vanishing.
//!
//! The scale, its growth and the overflow flag live on the device, and a step that overflowed is skipped there, so nothing
//! waits; the host reads the scale when it logs or saves.

use std::fmt;

use crate::ops::update::{unscale_all, update_scale};
use segslurm_native::NativeError;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use tch::{Device, Kind, Tensor};

/// `dtype` of `AmpOptimWrapper`: what matrix products and convolutions compute in.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum AmpDtype {
    Float16,
    Bfloat16,
}

impl AmpDtype {
    /// The type of activations.
    pub fn kind(self) -> Kind {
        match self {
            Self::Float16 => Kind::Half,
            Self::Bfloat16 => Kind::BFloat16,
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
        Self { init_scale: 65536.0, growth_factor: 2.0, backoff_factor: 0.5, growth_interval: 2000, enabled: true }
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
            "\"dynamic\", a positive number, or a mapping with init_scale, growth_factor, backoff_factor, growth_interval",
        )
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<LossScale, E> {
        if text == "dynamic" { Ok(LossScale::Dynamic) } else { Err(E::invalid_value(de::Unexpected::Str(text), &self)) }
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<LossScale, E> {
        if value > 0.0 { Ok(LossScale::Fixed(value)) } else { Err(E::invalid_value(de::Unexpected::Float(value), &self)) }
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
    pub fn dtype(&self, device: Device) -> AmpDtype {
        self.dtype.unwrap_or(if device.is_cuda() { AmpDtype::Float16 } else { AmpDtype::Bfloat16 })
    }

    /// The scaler for a device. None where no scale is needed: bf16 has fp32's range, unless a scale is asked for by number.
    pub fn scaler(&self, device: Device) -> Option<GradScaler> {
        let motion = match &self.loss_scale {
            LossScale::Dynamic if self.dtype(device) == AmpDtype::Bfloat16 => return None,
            LossScale::Dynamic => DynamicScale::default(),
            LossScale::Fixed(scale) => {
                DynamicScale { init_scale: *scale, growth_factor: 1.0, backoff_factor: 1.0, ..DynamicScale::default() }
            }
            LossScale::Custom(motion) if !motion.enabled => return None,
            LossScale::Custom(motion) => motion.clone(),
        };
        Some(GradScaler::new(motion, device))
    }
}

/// The scaler's part of a checkpoint.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq)]
pub struct ScalerState {
    pub scale: f64,
    /// Steps since the last overflow or growth.
    pub growth_tracker: i64,
    /// Steps skipped since the training began.
    pub skipped: i64,
}

/// torch's `GradScaler` as a state machine on the device: scale the loss, unscale the gradients, step, update.
#[derive(Debug)]
pub struct GradScaler {
    motion: DynamicScale,
    scale: Tensor,          // [] float32
    growth_tracker: Tensor, // [] int32
    found_inf: Tensor,      // [] float32
    skipped: Tensor,        // [] float64
}

impl GradScaler {
    pub fn new(motion: DynamicScale, device: Device) -> Self {
        Self {
            scale: Tensor::full([], motion.init_scale, (Kind::Float, device)),
            growth_tracker: Tensor::zeros([], (Kind::Int, device)),
            found_inf: Tensor::zeros([], (Kind::Float, device)),
            skipped: Tensor::zeros([], (Kind::Double, device)),
            motion,
        }
    }

    /// What to multiply the loss by before backward: `[]` float32 on the device.
    pub fn scale(&self) -> &Tensor {
        &self.scale
    }

    /// Divides the gradients by the scale in place, and notes on the device whether any element is not finite. For several
    /// ranks: after the gradients were summed, so that all ranks note the same.
    pub(super) fn unscale(&mut self, grads: &[&Tensor]) -> Result<&Tensor, NativeError> {
        let _ = self.found_inf.zero_();
        // The reciprocal is taken in double, as torch does it.
        let inverse = self.scale.to_kind(Kind::Double).reciprocal().to_kind(Kind::Float);
        unscale_all(grads, &self.found_inf, &inverse)?;
        Ok(&self.found_inf)
    }

    /// Moves the scale on after a step.
    pub(super) fn update(&mut self) -> Result<(), NativeError> {
        let DynamicScale { growth_factor, backoff_factor, growth_interval, .. } = self.motion;
        let _ = self.skipped.g_add_(&self.found_inf);
        update_scale(&self.scale, &self.growth_tracker, &self.found_inf, growth_factor, backoff_factor, growth_interval)
    }

    /// The state for a log line or a checkpoint. Waits for the device.
    pub fn state(&self) -> ScalerState {
        ScalerState {
            scale: self.scale.double_value(&[]),
            growth_tracker: self.growth_tracker.int64_value(&[]),
            skipped: self.skipped.double_value(&[]) as i64,
        }
    }

    pub fn load_state(&mut self, state: &ScalerState) {
        let _ = self.scale.fill_(state.scale);
        let _ = self.growth_tracker.fill_(state.growth_tracker);
        let _ = self.skipped.fill_(state.skipped);
    }
}

/// Whether any element of any tensor is not finite: `[]` float32, 1 or 0, on the tensors' device, without waiting for it.
pub fn non_finite(tensors: &[&Tensor]) -> Result<Tensor, NativeError> {
    let device = tensors.first().map_or(Device::Cpu, |tensor| tensor.device());
    let found = Tensor::zeros([], (Kind::Float, device));
    unscale_all(tensors, &found, &Tensor::ones([], (Kind::Float, device)))?;
    Ok(found)
}
