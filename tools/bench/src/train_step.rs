//! The whole train step, from bytes to new weights. (The peer's step begins with normalised
//! floats.)

use anyhow::bail;
use segslurm::ops::{self, MemoryFormat};
use segslurm::testing::dist::Group;
use serde_json::json;

use crate::{model, report};

/// `name` is a model, or one in a memory format: `pspnet_r18:channels_last`.
pub(crate) fn run(name: &str, steps: usize) -> anyhow::Result<()> {
    let (name, format) = name.split_once(':').unwrap_or((name, "contiguous"));
    let format = match format {
        "contiguous" => MemoryFormat::Contiguous,
        "channels_last" => MemoryFormat::ChannelsLast,
        other => bail!("{other}: expected contiguous or channels_last"),
    };
    let device = ops::device(model::default_gpu()?).autodiff();
    let mut learner = model::learner_with(name, Group::alone(), &device, &[], format)?;
    let batch = model::batch(name, None)?;
    let mut iteration = 0;
    let seconds = report::timed(steps, || {
        learner.step(&batch, iteration, &[0.01])?;
        iteration += 1;
        Ok(())
    })?;
    report::print(json!({ "seconds": seconds }))
}
