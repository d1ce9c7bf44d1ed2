//! What a run shows of itself: painted pictures, scalars, log lines.

use serde::Deserialize;

use crate::config::{NotOffered, OneOrMany, Typed};
use crate::metrics::VisBackendConfig;

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SegLocalVisualizer {
    pub name: String,
    pub vis_backends: OneOrMany<VisBackendConfig>,
    /// The weight of the colours against the image.
    #[serde(deserialize_with = "crate::config::share")]
    pub alpha: f64,
}

impl Typed for SegLocalVisualizer {
    const TYPES: &'static [&'static str] = &["SegLocalVisualizer"];
}

impl Default for SegLocalVisualizer {
    fn default() -> Self {
        Self {
            name: "visualizer".to_owned(),
            vis_backends: OneOrMany::default(),
            alpha: crate::visualization::ALPHA,
        }
    }
}

/// `log_processor.type`, which configs of mmseg leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum LogProcessorType {
    LogProcessor,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogProcessor {
    pub r#type: Option<LogProcessorType>,
    /// Losses and times are means over so many iterations.
    #[serde(deserialize_with = "crate::config::positive")]
    pub window_size: usize,
    /// Without effect: the loop says whether lines count in epochs.
    pub by_epoch: bool,
    /// Other smoothing of single values is not offered.
    pub custom_cfg: Option<NotOffered>,
    /// Without effect: values have four digits behind the point.
    pub num_digits: usize,
    /// Without effect: names are not cut at slashes.
    pub log_with_hierarchy: bool,
    /// Without effect: losses and times are means.
    pub mean_pattern: Option<String>,
}

impl Default for LogProcessor {
    fn default() -> Self {
        Self {
            r#type: None,
            window_size: 10,
            by_epoch: true,
            custom_cfg: None,
            num_digits: 4,
            log_with_hierarchy: false,
            mean_pattern: None,
        }
    }
}
