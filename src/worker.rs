//! One rank: from a command line to a group of ranks, a run, and an exit code.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rand::{RngCore, SeedableRng};

use crate::checkpoint::{Places, Source};
use crate::config::Config;
use crate::dist::{self, Accelerator, Group, Launched, Launcher};
use crate::exit::{Exit, Failure};
use crate::experiment::Experiment;
use crate::lock::{Holder, Lock};
use crate::logging::Console;
use crate::ops;
use crate::rundir::{RunDir, checkpoints, stamp_now, writable, write_atomically};
use crate::runner::{self, Asked, Interrupt, Outcome, Setting, TestOptions, Training};
use crate::slurm::env::{Context, Job, Place, StepDaemon};
use crate::terminal;
use crate::variables::{Variables, text};

/// What a rank was asked to do, and by whom it was started.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub config: PathBuf,
    /// `--cfg-options`, with those that other flags stand for.
    pub overrides: Vec<String>,
    pub work_dir: Option<PathBuf>,
    pub launcher: Launcher,
    pub local_rank: Option<usize>,
}

/// Trains as one rank.
pub(crate) fn train(task: &Task, variables: Variables) -> Result<Exit, Failure> {
    dist::tether(variables)?;
    let interrupt = Interrupt::listen()
        .map_err(|error| Failure::fault(format!("cannot listen to signals: {error}")))?;
    let config = Experiment::load_config(&task.config, &task.overrides)?;
    let setting = prepare(task, &config, variables, Purpose::Train)?;
    let (group, console) = (setting.group.clone(), setting.console.clone());
    let result =
        Training::new(setting, interrupt).and_then(|mut training| runner::train(&mut training));
    let outcome = leave(&group, &console, result)?;
    Ok(match outcome {
        Outcome::Finished => Exit::Done,
        Outcome::Interrupted => Exit::Interrupted,
    })
}

/// Tests a checkpoint as one rank. Returns where this start's files are, on the rank that writes
/// for all.
pub(crate) fn test(
    task: &Task,
    options: &TestOptions,
    variables: Variables,
) -> Result<Option<RunDir>, Failure> {
    dist::tether(variables)?;
    let config = Experiment::load_config(&task.config, &task.overrides)?;
    // Found before anything is built or made: a wrong path is the most common mistake.
    Source::parse(&options.checkpoint, &Places::of(variables))?.local()?;
    let setting = prepare(task, &config, variables, Purpose::Test)?;
    let (group, console) = (setting.group.clone(), setting.console.clone());
    let rundir = setting.rundir.clone();
    leave(&group, &console, runner::test(&setting, options))?;
    Ok(group.is_main().then_some(rundir))
}

/// Tells the other ranks how this one ended, so that none waits for it, and the log file.
fn leave<T>(group: &Group, console: &Console, result: Result<T, Failure>) -> Result<T, Failure> {
    match &result {
        Ok(_) => group.finish()?,
        Err(error) => {
            console.keep(error);
            group.fail(&error.message);
        }
    }
    result
}

/// The config of a task as a type; what is odd in it is noted on standard error.
pub(crate) fn typed(task: &Task) -> Result<Experiment, Failure> {
    let experiment =
        Experiment::from_config(&Experiment::load_config(&task.config, &task.overrides)?)?;
    experiment.remarks.iter().for_each(|it| terminal::note(format!("segslurm: {it}")));
    Ok(experiment)
}

/// What a rank is prepared for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// It writes checkpoints, so its folders are its own.
    Train,
    Test,
}

/// The config as a type, the group of ranks, the device, the work dir and the log.
fn prepare(
    task: &Task,
    config: &Config,
    variables: Variables,
    purpose: Purpose,
) -> Result<Setting, Failure> {
    let experiment = Experiment::from_config(config)?;
    let dist_config = &experiment.env_cfg.dist_cfg;
    let accelerator = Accelerator::find(variables, task.launcher)?;
    let launched =
        Launched::read(task.launcher, variables, task.local_rank, dist_config, accelerator.gpus)?;
    let console = Console::start(
        experiment.log_level,
        text(variables, "SEGSLURM_LOG").as_deref(),
        launched.rank == 0,
    )?;
    if launched.rank == 0 {
        let remarks = experiment.remarks.iter().chain(&launched.port_remark);
        remarks.for_each(|it| tracing::warn!("{it}"));
    }
    if task.launcher == Launcher::None {
        warn_of_a_step(variables);
    }
    let interface = text(variables, "GLOO_SOCKET_IFNAME");
    let group = dist::join(&launched, dist_config, interface.as_deref(), &accelerator)?;
    let settled = settle(
        task,
        config,
        experiment,
        console,
        &group,
        (accelerator, launched.gpu_index()),
        variables,
        purpose,
    );
    settled.inspect_err(|error| group.fail(&error.message))
}

/// Without `--launcher` every task of a step is a run of its own. That is rarely meant.
fn warn_of_a_step(variables: Variables) {
    let place = Place::derive(variables, StepDaemon::of_this_process().as_ref());
    if let Ok(Place { context: Context::Step(step), .. }) = place
        && step.world > 1
    {
        tracing::warn!(
            "this is task {} of {} in step {}.{} of Slurm, and without --launcher slurm each of \
             them is a run of its own",
            step.rank,
            step.world,
            step.job.address,
            step.step
        );
    }
}

/// Rank 0 does something for all of them, and what it could not do is an error of each.
fn by_rank_0<T>(
    group: &Group,
    work: impl FnOnce() -> Result<(T, String), Failure>,
) -> Result<(Option<T>, String), Failure> {
    let done = if group.is_main() { Some(work()) } else { None };
    let told = match &done {
        Some(Ok((_, text))) => format!("0 {text}"),
        Some(Err(failure)) => format!("{} {}", failure.exit.code(), failure.message),
        None => String::new(),
    };
    let told = group.broadcast_text(&told)?;
    let (code, text) = told.split_once(' ').unwrap_or(("70", &told));
    match code.parse().ok().and_then(Exit::from_code).unwrap_or(Exit::Software) {
        Exit::Done => Ok((done.and_then(Result::ok).map(|it| it.0), text.to_owned())),
        exit => Err(Failure::new(exit, text)),
    }
}

/// Holds the folders that a training writes checkpoints into, before anything is written there.
fn hold(
    work_dir: &Path,
    experiment: &Experiment,
    job: Option<&Job>,
    variables: Variables,
) -> Result<Vec<Lock>, Failure> {
    let own = Holder::this_process(job, text(variables, "SLURM_CLUSTER_NAME"));
    let otherwise = "choose another with --work-dir or change its permissions";
    writable(work_dir, "the work dir", otherwise)?;
    let mut locks = vec![Lock::take(work_dir, &own, "--work-dir")?];
    if let Some(out_dir) = &experiment.checkpoint_hook().out_dir {
        let folder = checkpoints(work_dir, Some(out_dir));
        writable(
            &folder,
            "default_hooks.checkpoint.out_dir",
            "choose another folder or change its permissions",
        )?;
        let whole = |path: &Path| std::fs::canonicalize(path).ok();
        if whole(&folder) != whole(work_dir) {
            locks.push(Lock::take(&folder, &own, "default_hooks.checkpoint.out_dir")?);
        }
    }
    Ok(locks)
}

/// What comes once the ranks have met.
#[expect(
    clippy::too_many_arguments,
    reason = "it joins what one function could as well do in one go"
)]
fn settle(
    task: &Task,
    config: &Config,
    experiment: Experiment,
    console: Console,
    group: &Group,
    (accelerator, gpu): (Accelerator, Option<usize>),
    variables: Variables,
    purpose: Purpose,
) -> Result<Setting, Failure> {
    let device = ops::device(gpu);
    if let Some(gpu) = gpu {
        ops::select_gpu(gpu)?;
    }
    let config_text = config.to_yaml();
    let facts = [
        ("segslurm", env!("CARGO_PKG_VERSION").to_owned()),
        ("libtorch", dist::libtorch_version().to_owned()),
        ("config", config_text.clone()),
    ];
    group.agree(&facts)?;

    let work_dir =
        RunDir::choose(task.work_dir.as_deref(), experiment.work_dir.as_deref(), &task.config);
    let place = Place::derive(variables, StepDaemon::of_this_process().as_ref()).ok();
    let job = place.as_ref().and_then(Place::job);
    let (made, stamp) = by_rank_0(group, || {
        let locks = if purpose == Purpose::Train {
            hold(&work_dir, &experiment, job, variables)?
        } else {
            Vec::new()
        };
        let rundir = RunDir::create(&work_dir, &stamp_now())?;
        let stamp = rundir.stamp().to_owned();
        Ok(((locks, rundir), stamp))
    })?;
    let (locks, rundir) = match made {
        Some(made) => made,
        None => (Vec::new(), RunDir::join(&work_dir, &stamp)?),
    };
    console.also_to(&rundir.log(group.rank()))?;
    for dead in locks.iter().filter_map(|it| it.replaced.as_ref()) {
        tracing::warn!("took over the folder of a training that has ended without a word: {dead}");
    }
    let named = |key: &str| config.root.get(key).is_some_and(|it| it.origin.is_command_line());
    let asked = Asked {
        file: named("load_from"),
        resume: named("resume"),
        job: job.map(|it| it.address.clone()),
        again: job.is_some_and(|it| it.restart > 0),
    };
    let seed = match experiment.randomness.seed {
        Some(seed) => seed,
        None => {
            let drawn = rand::rngs::StdRng::from_os_rng().next_u64() >> 32;
            group.broadcast_text(&drawn.to_string())?.parse().unwrap_or(drawn)
        }
    };
    if group.is_main() {
        keep_config(&config_text, &rundir, &task.config)?;
    }
    describe(group, &accelerator, gpu, seed, &rundir)?;
    ops::set_cudnn_benchmark(experiment.env_cfg.cudnn_benchmark);
    if let Some(allow) = experiment.env_cfg.allow_tf32 {
        ops::allow_tf32(allow)?;
    }
    if experiment.randomness.deterministic && gpu.is_some() {
        tracing::warn!(
            "randomness.deterministic: libtorch's GPU kernels are taken as they are, and some vary \
             in the last bits"
        );
    }
    let checkpoints =
        checkpoints(rundir.work_dir(), experiment.checkpoint_hook().out_dir.as_deref());
    Ok(Setting {
        experiment,
        config_text,
        rundir,
        checkpoints,
        asked,
        locks,
        console,
        group: group.clone(),
        device,
        seed,
        places: Places::of(variables),
    })
}

/// The merged config lies in the work dir and in this start's folder, as mmengine leaves it.
fn keep_config(text: &str, rundir: &RunDir, config: &Path) -> Result<(), Failure> {
    let name = Path::new(config.file_stem().unwrap_or_default()).with_extension("yaml");
    for path in [rundir.work_dir().join(name), rundir.vis_data().join("config.yaml")] {
        write_atomically(&path, text.as_bytes()).map_err(|error| {
            Failure::new(Exit::CannotWrite, format!("cannot write {}: {error}", path.display()))
        })?;
    }
    Ok(())
}

/// What this run runs on: the first lines of its log. A collective.
fn describe(
    group: &Group,
    accelerator: &Accelerator,
    gpu: Option<usize>,
    seed: u64,
    rundir: &RunDir,
) -> Result<(), Failure> {
    tracing::info!("segslurm {} on {}", env!("CARGO_PKG_VERSION"), dist::libtorch());
    let hosts: Vec<&str> = (0..group.world()).map(|rank| group.host(rank)).collect();
    if group.world() > 1 {
        let distinct: BTreeSet<&str> = hosts.iter().copied().collect();
        let distinct = distinct.into_iter().collect::<Vec<_>>().join(", ");
        tracing::info!("{} ranks over {} on {distinct}", group.world(), group.backend());
    }
    let own = match gpu {
        Some(gpu) => format!("cuda:{gpu}, {}", dist::card(gpu)?),
        None => "the CPU".to_owned(),
    };
    let devices = group.all_gather_text(&own)?;
    for line in by_device(&hosts, &devices) {
        tracing::info!("{line}");
    }
    let cards: BTreeSet<_> = hosts.iter().zip(&devices).collect();
    if gpu.is_some() && cards.len() < devices.len() {
        tracing::warn!(
            "{} ranks share {} GPUs: start as many as there are GPUs",
            devices.len(),
            cards.len()
        );
    }
    if let Some(missed) = &accelerator.missed {
        tracing::warn!("{missed}");
    } else if let (None, Some(reason)) = (gpu, &accelerator.reason) {
        tracing::info!("no GPU is used: {reason}");
    }
    tracing::info!(
        "rank {} of {}, seed {seed}, {} threads, work dir {}",
        group.rank(),
        group.world(),
        ops::threads(),
        rundir.work_dir().display()
    );
    Ok(())
}

/// A line for each rank's device; ranks of one machine on the same kind of device share one.
fn by_device(hosts: &[&str], devices: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    let place =
        |rank: usize| (hosts[rank], devices[rank].split_once(", ").map_or("", |(_, card)| card));
    let mut start = 0;
    while start < devices.len() {
        let end = (start..devices.len())
            .find(|&rank| place(rank) != place(start))
            .unwrap_or(devices.len());
        let (host, card) = place(start);
        let on = if host.is_empty() { String::new() } else { format!(" on {host}") };
        let names: Vec<&str> = devices[start..end]
            .iter()
            .map(|it| it.split(", ").next().unwrap_or_default())
            .collect();
        let names = if names.windows(2).all(|it| it[0] == it[1]) {
            names[0].to_owned()
        } else {
            names.join(" ")
        };
        let ranks = if end - start == 1 {
            format!("rank {start}")
        } else {
            format!("ranks {start} to {}", end - 1)
        };
        let card = if card.is_empty() { String::new() } else { format!(": {card}") };
        lines.push(format!("{ranks}{on} on {names}{card}"));
        start = end;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_of_a_machine_on_one_kind_of_card_share_a_line() {
        let told = |hosts: &[&str], devices: &[&str]| {
            by_device(hosts, &devices.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(told(&[""], &["the CPU"]), ["rank 0 on the CPU"]);
        assert_eq!(
            told(
                &["n1", "n1", "n2", "n2"],
                &["cuda:0, H200", "cuda:1, H200", "cuda:0, H200", "cuda:1, L4"]
            ),
            [
                "ranks 0 to 1 on n1 on cuda:0 cuda:1: H200",
                "rank 2 on n2 on cuda:0: H200",
                "rank 3 on n2 on cuda:1: L4"
            ]
        );
        assert_eq!(told(&["n1", "n1"], &["the CPU", "the CPU"]), ["ranks 0 to 1 on n1 on the CPU"]);
    }
}
