//! The loss scale of mixed precision, which keeps small fp16 gradients from vanishing: torch's
//! `GradScaler` as a state machine on the device. Scale the loss, unscale the gradients, step,
//! update; a step that overflowed is skipped there, so nothing waits. The host reads the scale when
//! it logs or saves.

use burn::tensor::{Device, Tensor as BurnTensor};
use segslurm_native::NativeError;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::border::{Handle, from_tch};
use super::device::place;
use super::update::{unscale_all, update_scale};

/// How a scale moves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScaleRule {
    pub initial: f64,
    /// What it is multiplied by after `interval` steps without an overflow.
    pub growth: f64,
    /// What it is multiplied by after an overflow.
    pub backoff: f64,
    pub interval: i64,
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

/// A loss scale in motion.
#[derive(Debug)]
pub struct GradScaler {
    rule: ScaleRule,
    scale: Tensor,          // [] float32
    growth_tracker: Tensor, // [] int32
    found_inf: Handle,      // [] float32
    skipped: Tensor,        // [] float64
}

impl GradScaler {
    pub fn new(rule: ScaleRule, device: &Device) -> Self {
        let device = place(device);
        Self {
            scale: Tensor::full([], rule.initial, (Kind::Float, device)),
            growth_tracker: Tensor::zeros([], (Kind::Int, device)),
            found_inf: Handle::new(Tensor::zeros([], (Kind::Float, device))),
            skipped: Tensor::zeros([], (Kind::Double, device)),
            rule,
        }
    }

    /// What to multiply the loss by before the backward pass: `[1]`, a constant on `device`'s side
    /// of autodiff.
    pub fn scale(&self, device: &Device) -> BurnTensor<1> {
        from_tch(self.scale.copy().reshape([1]), device)
    }

    /// Divides the gradients by the scale in place, and notes on the device whether any element is
    /// not finite: `[]` float32, 1 or 0. For several ranks: after the gradients were summed, so
    /// that all ranks note the same.
    pub fn unscale(&mut self, grads: &[&Handle]) -> Result<Handle, NativeError> {
        self.found_inf.fill_with(0.0);
        // The reciprocal is taken in double, as torch does it.
        let inverse = self.scale.to_kind(Kind::Double).reciprocal().to_kind(Kind::Float);
        unscale_all(grads, &self.found_inf, &inverse)?;
        Ok(self.found_inf.clone())
    }

    /// Moves the scale on after a step.
    pub fn update(&mut self) -> Result<(), NativeError> {
        let ScaleRule { growth, backoff, interval, .. } = self.rule;
        let _ = self.skipped.g_add_(&self.found_inf);
        update_scale(&self.scale, &self.growth_tracker, &self.found_inf, growth, backoff, interval)
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
