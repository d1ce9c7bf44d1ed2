//! A rank over Gloo, PSPNet-R18 with two images, as RANK and the like say: what
//! `scripts/bench/ranks.py` does with torch's DistributedDataParallel.

use anyhow::{Context, bail};
use segslurm::testing::ddp::WrapperConfig;
use segslurm::testing::dist::{Accelerator, DistConfig, Launched, Launcher, join};
use serde_json::json;

use crate::{model, report};

/// Without `overlap` gradients are sent after the backward pass.
pub(crate) fn run(steps: usize, overlap: &str) -> anyhow::Result<()> {
    let overlap = match overlap {
        "overlap" => true,
        "after" => false,
        other => bail!("{other}: expected overlap or after"),
    };
    let config = DistConfig::default();
    let variables = |name: &str| std::env::var(name).ok();
    let accelerator = Accelerator::find(&variables, Launcher::Pytorch)?;
    let launched = Launched::read(Launcher::Pytorch, &variables, None, &config, accelerator.gpus)?;
    let group = join(&launched, &config, None, &accelerator)?;
    let mut learner = model::learner("pspnet_r18", group.clone(), launched.gpu_index())?;
    learner
        .join_ranks(&WrapperConfig { overlap, ..WrapperConfig::default() })
        .context("the ranks do not agree")?;
    let batch = model::batch("pspnet_r18", Some(2))?;
    let mut iteration = 0;
    let before = group.traffic();
    let seconds = report::timed(steps, || {
        learner.step(&batch, iteration, &[0.01])?;
        iteration += 1;
        Ok(())
    })?;
    let after = group.traffic();
    let a_step = |total: f64| total / iteration as f64;
    let waited = a_step(after.waited.saturating_sub(before.waited).as_secs_f64());
    let megabytes = a_step((after.bytes - before.bytes) as f64 / 1e6);
    report::print(json!({ "seconds": seconds, "waited": waited, "megabytes": megabytes }))?;
    group.finish()?;
    Ok(())
}
