//! The whole train step, from bytes to new weights. (The peer's step begins with normalised floats.)

use segslurm::dist::Group;
use serde_json::json;

use crate::{model, report};

pub(crate) fn run(name: &str, steps: usize) -> anyhow::Result<()> {
    let mut learner = model::learner(name, Group::alone())?;
    let batch = model::batch(name, None)?;
    let mut iteration = 0;
    let seconds = report::timed(steps, || {
        learner.step(&batch, iteration, &[0.01])?;
        iteration += 1;
        Ok(())
    })?;
    report::print(json!({ "seconds": seconds }))
}
