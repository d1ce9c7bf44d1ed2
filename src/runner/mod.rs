//! Time: what happens after what. The train loop, validation, testing; resuming and stopping without loss.
//!
//! The parts (model, data, optimizer, checkpoints, metrics) do not know each other; here they meet.

mod build;
mod evaluate;
mod footprint;
mod interrupt;
mod journal;
mod keeping;
mod learner;
mod lone_value;
mod memory_format;
mod mishap;
mod mmengine;
mod outcome;
mod outputs;
mod progress;
mod stages;
mod start;
mod state;
mod stopping;
mod survey;
mod test;
mod train;
mod weights;

pub use build::{Setting, Training};
pub use footprint::Footprint;
pub use interrupt::{Interrupt, ignores_hangups};
pub use learner::Learner;
pub use memory_format::decide as decide_memory_format;
pub use outcome::Outcome;
pub use progress::{Plan, Progress};
pub use start::Asked;
pub use test::{TestOptions, test};
pub use train::train;
