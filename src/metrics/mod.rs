//! What a run is judged by: IoU from counts, smoothed scalars, and the files that scalars go to.

mod events;
mod iou;
mod sink;
mod window;

pub use iou::{Counts, IoUMetricConfig, Metrics};
pub use sink::{Sink, VisBackendConfig};
pub use window::Window;
