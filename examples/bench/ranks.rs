//! Two ranks over Gloo on this machine, PSPNet-R18 with two images and one thread a rank: what `scripts/bench/ranks.py` does with
//! torch's DistributedDataParallel.

use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use segslurm::ddp::WrapperConfig;
use segslurm::dist::{DistConfig, Launched, Launcher, join};
use serde_json::json;

use crate::{model, report};

const MODEL: &str = "pspnet_r18";
const WORLD: usize = 2;

/// Starts both ranks; rank 0 prints. Without `overlap` gradients are sent after the backward pass.
pub(crate) fn run(steps: &str, overlap: &str) -> anyhow::Result<()> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let program = std::env::current_exe()?;
    let rank = |rank: usize| {
        let mut command = Command::new(&program);
        command.args(["rank", steps, overlap]).env("OMP_NUM_THREADS", "1").env("RANK", rank.to_string());
        command.env("LOCAL_RANK", rank.to_string()).env("WORLD_SIZE", WORLD.to_string());
        command.env("LOCAL_WORLD_SIZE", WORLD.to_string());
        command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
        if rank > 0 {
            command.stdout(Stdio::null());
        }
        command.spawn()
    };
    let children: Vec<_> = (0..WORLD).map(rank).collect::<Result<_, _>>()?;
    for mut child in children {
        let status = child.wait()?;
        ensure!(status.success(), "a rank ended with {status}");
    }
    Ok(())
}

/// One of the ranks.
pub(crate) fn rank(steps: usize, overlap: &str) -> anyhow::Result<()> {
    let overlap = match overlap {
        "overlap" => true,
        "after" => false,
        other => bail!("{other}: expected overlap or after"),
    };
    let config = DistConfig::default();
    let launched = Launched::read(Launcher::Pytorch, &|name| std::env::var(name).ok(), None, &config)?;
    let group = join(&launched, &config, None)?;
    let mut learner = model::learner(MODEL, group.clone())?;
    learner.join_ranks(&WrapperConfig { overlap, ..WrapperConfig::default() }).context("the ranks do not agree")?;
    let batch = model::batch(MODEL, Some(2))?;
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
