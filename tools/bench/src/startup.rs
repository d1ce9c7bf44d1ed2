//! From the process's start (`BENCH_STARTED`, seconds since the epoch, set by who starts it) until
//! the first step could begin.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use segslurm::testing::dist::Group;
use serde_json::json;

use crate::{model, report};

pub(crate) fn run(name: &str) -> anyhow::Result<()> {
    let learner = model::learner(name, Group::alone(), model::default_gpu()?)?;
    let batch = model::batch(name, None)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    let started: f64 =
        std::env::var("BENCH_STARTED").context("BENCH_STARTED is not set")?.parse()?;
    drop((learner, batch));
    report::print(json!({ "seconds": [now - started] }))
}
