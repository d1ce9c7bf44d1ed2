//! Our numbers beside mmsegmentation's own, on the same weights and pixels: `make parity` makes the
//! peer's side and runs this.
//!
//! Every test prints what it found, with the limit; a figure beyond its limit fails the test after
//! all of them are printed.

#![allow(clippy::disallowed_methods, reason = "it looks at the program from outside")]

mod inference;
mod metrics;
mod peer;
mod ranks;
mod schedules;
mod training;
mod transforms;
mod zoo;

#[path = "../harness.rs"]
#[expect(dead_code, reason = "the other test binary uses more of it")]
mod harness;
#[path = "../learning.rs"]
mod learning;
#[path = "../two_ranks.rs"]
mod two_ranks;
