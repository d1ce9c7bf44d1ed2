//! What a run is judged by: IoU from counts, smoothed scalars, and the files that scalars go to.

mod events;
mod iou;
mod sink;
mod window;

pub(crate) use iou::{Counts, IoUMetricConfig, Metrics};
pub(crate) use sink::{Sink, VisBackendConfig};
pub(crate) use window::Window;
