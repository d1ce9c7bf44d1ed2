//! One test binary: it starts the real program, as a user would. See `harness`.

mod architecture;
mod bad_input;
mod group;
mod harness;
mod launchers;
mod ranks;
mod resume;
mod training;
