//! One test binary: it starts the real program. See `harness.rs`.
