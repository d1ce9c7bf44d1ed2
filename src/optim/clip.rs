//! Gradient clipping: `clip_grad` of mmengine's `OptimWrapper`, on the gradients' device and
//! without waiting for it.

use serde::Deserialize;

use crate::ops::update::{clamp_all, clip_norm};
use crate::ops::{Handle, NativeError};

/// `clip_grad`: `{max_norm: 35, norm_type: 2}`, or `{type: value, clip_value: 0.5}`.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ClipGradConfig {
    #[serde(default)]
    pub r#type: ClipType,
    /// The norm that all gradients together may have. With `type: norm`.
    #[serde(default)]
    #[serde(deserialize_with = "crate::config::above_zero")]
    pub max_norm: Option<f64>,
    /// Which norm; `.inf` for the largest element.
    #[serde(default = "crate::config::default::f::<2>")]
    pub norm_type: f64,
    /// What one element of a gradient may be. With `type: value`.
    #[serde(default)]
    #[serde(deserialize_with = "crate::config::above_zero")]
    pub clip_value: Option<f64>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ClipType {
    #[default]
    Norm,
    Value,
}

/// A `clip_grad` whose parts fit together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Clip {
    Norm { max: f64, norm_type: f64 },
    Value { max: f64 },
}

impl ClipGradConfig {
    pub(super) fn resolve(&self) -> Result<Clip, &'static str> {
        match (self.r#type, self.max_norm, self.clip_value) {
            (ClipType::Norm, Some(max), None) => Ok(Clip::Norm { max, norm_type: self.norm_type }),
            (ClipType::Value, None, Some(max)) => Ok(Clip::Value { max }),
            (ClipType::Norm, None, None) => Err("clip_grad: `max_norm` is missing"),
            (ClipType::Norm, _, Some(_)) => Err(
                "clip_grad: `clip_value` needs `type: value`, which in turn takes no `max_norm`",
            ),
            (ClipType::Value, _, None) => Err("clip_grad: `type: value` needs `clip_value`"),
            (ClipType::Value, Some(_), Some(_)) => {
                Err("clip_grad: `type: value` takes no `max_norm`")
            }
        }
    }
}

impl Clip {
    /// Clips in place. Returns the norm before clipping (`[]`, on the device), which mmengine logs
    /// as `grad_norm`.
    pub(super) fn apply(self, grads: &[&Handle]) -> Result<Option<Handle>, NativeError> {
        match self {
            _ if grads.is_empty() => Ok(None),
            Self::Value { max } => clamp_all(grads, -max, max).map(|()| None),
            Self::Norm { max, norm_type } => clip_norm(grads, max, norm_type).map(Some),
        }
    }
}
