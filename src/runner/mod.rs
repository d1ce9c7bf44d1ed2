//! Time: what happens after what. The train loop, validation, testing; resuming and stopping
//! without loss.
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

pub(crate) use build::{Setting, Training};
pub(crate) use footprint::Footprint;
pub(crate) use interrupt::{Interrupt, ignores_hangups};
pub use learner::Learner;
pub use memory_format::decide as decide_memory_format;
pub(crate) use outcome::Outcome;

pub(crate) use start::Asked;
pub(crate) use test::{TestOptions, test};
pub(crate) use train::train;
