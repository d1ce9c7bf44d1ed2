//! Going on with a training of mmengine's: its checkpoint becomes one of ours, and what cannot go
//! over is told.
//!
//! Weights, the optimizer's state, the iteration, the seed, the loss scale and the best score go
//! over. Rates and the optimizer's settings follow the config, as everywhere here; where the
//! checkpoint says something else, the log does too.

use std::collections::BTreeMap;
use std::path::Path;

use super::build::Setting;
use super::learner::Learner;
use super::progress::{Progress, TrainPlan};
use super::state::{RunState, named_in};
use crate::checkpoint::{Checkpoint, StateDict, listed, mmengine};
use crate::exit::{Exit, Failure};
use crate::metrics::Window;
use crate::ops::ScalerState;
use crate::optim::{Optimizer, OptimizerConfig, Schedule};

/// Gives a checkpoint of mmengine's the trained weights that lie beside their averages in its file.
pub(super) fn take_averages(path: &Path, checkpoint: &mut Checkpoint) -> Result<(), Failure> {
    if checkpoint.meta.run.is_empty()
        && let Some(theirs) = mmengine::read(path)?
    {
        checkpoint.trained = theirs.trained;
    }
    Ok(())
}

/// Gives a checkpoint of mmengine's what one of ours has for going on. One that holds a run's state
/// already, and one that holds none of either kind, stay as they are.
pub(super) fn take_over(
    path: &Path,
    checkpoint: &mut Checkpoint,
    learner: &Learner,
    schedule: &mut Schedule,
    plan: &TrainPlan,
    setting: &Setting,
) -> Result<(), Failure> {
    if !checkpoint.meta.run.is_empty() {
        return Ok(());
    }
    let Some(theirs) = mmengine::read(path)? else { return Ok(()) };
    let mut differs = Vec::new();
    let iteration = iteration(&theirs, plan, &mut differs);
    match &theirs.optimizer {
        None => differs.push("it holds no state of the optimizer, which begins anew".to_owned()),
        Some(optimizer) => {
            let names = numbered(&theirs, optimizer, &learner.optimizer, path)?;
            checkpoint.optimizer = state(optimizer, &names, &learner.optimizer, &mut differs);
            let config = setting.experiment.optim_wrapper.as_ref().map(|it| it.optimizer());
            compare(
                optimizer,
                &names,
                &learner.optimizer,
                &schedule.rates(iteration),
                config,
                &mut differs,
            );
        }
    }
    compare_schedulers(&theirs, setting.experiment.param_scheduler.len(), &mut differs);
    if schedule.monitors().next().is_some() {
        differs.push(
            "what ReduceOnPlateauLR has seen in it stays behind: it begins anew, at the config's \
             rate"
                .to_owned(),
        );
    }

    let hook = setting.experiment.checkpoint_hook();
    let named =
        |name: &str, file: &str| file.starts_with(&format!("best_{}_", name.replace('/', "_")));
    let metric = |file: &str| match hook.save_best.first().map(String::as_str) {
        Some("auto") => named_in(file),
        _ => hook.save_best.iter().find(|it| named(it, file)).cloned(),
    };
    let best = theirs
        .best
        .into_iter()
        .filter_map(|(score, file)| Some((metric(&file)?, (score, file))))
        .collect();
    let scaler = theirs.scaler.map(|it| ScalerState {
        scale: it.scale,
        growth_tracker: it.growth_tracker,
        skipped: 0,
    });
    match (&scaler, &learner.scaler) {
        (Some(saved), None) => differs.push(format!(
            "it has a loss scale of {}, which this training does not use",
            saved.scale
        )),
        (None, Some(_)) => differs.push("it has no loss scale, which begins anew".to_owned()),
        _ => {}
    }
    let configured = setting.experiment.randomness.seed;
    if let (Some(theirs), Some(ours)) = (theirs.seed, configured)
        && theirs != ours
    {
        differs.push(format!("its seed is {theirs}, which is used, and the config's is {ours}"));
    }
    let state = RunState {
        progress: Progress { iteration, validation_due: false },
        seed: theirs.seed.unwrap_or(setting.seed),
        world: setting.group.world(),
        window: Window::new(setting.experiment.log_processor.window_size),
        best,
        stopping: Vec::new(),
        averaged: theirs.averaged,
        observed: Vec::new(),
        scaler,
    };
    checkpoint.meta.run = state.to_map();
    tracing::info!(
        "taken over from mmengine's checkpoint: weights, {} tensors of the optimizer's state, \
         iteration {iteration}; the means in the log, the order of images and random transforms \
         begin anew",
        checkpoint.optimizer.len()
    );
    for told in differs {
        tracing::warn!("{}: {told}", path.display());
    }
    Ok(())
}

/// Finished iterations as this training counts them.
fn iteration(theirs: &mmengine::Training, plan: &TrainPlan, differs: &mut Vec<String>) -> u64 {
    let mmengine::Training { iteration, epoch, .. } = *theirs;
    // A loop over iterations leaves the epoch at 0.
    if !plan.by_epoch || epoch == 0 || plan.epoch(iteration) == epoch {
        return iteration;
    }
    differs.push(format!(
        "its {epoch} epochs have {iteration} iterations, and here an epoch has {}: going on after \
         epoch {epoch}",
        plan.epoch_length
    ));
    epoch.saturating_mul(plan.epoch_length)
}

/// The name of every parameter that the optimizer counts. Without `paramwise_cfg` it counts all,
/// frozen ones included; with it, mmengine makes a group of each that is trained, in the same
/// order.
fn numbered(
    theirs: &mmengine::Training,
    optimizer: &mmengine::Optimizer,
    ours: &Optimizer,
    path: &Path,
) -> Result<BTreeMap<usize, String>, Failure> {
    let counted: usize = optimizer.groups.iter().map(|it| it.params.len()).sum();
    let all = &theirs.parameters;
    let trained: Vec<&String> = all
        .iter()
        .filter(|name| ours.weights().trained().any(|(_, it)| it.name == **name))
        .collect();
    let names: Vec<&String> = if counted == all.len() { all.iter().collect() } else { trained };
    if names.len() != counted {
        let message = format!(
            "{}: its optimizer has {counted} parameters, its weights are {} of which {} are \
             trained here, so which state is whose is not known; is this config that of its \
             training? (load_from, without --resume, begins with its weights alone)",
            path.display(),
            all.len(),
            names.len()
        );
        return Err(Failure::new(Exit::Data, message));
    }
    let numbers = optimizer.groups.iter().flat_map(|it| &it.params);
    let mut sorted: Vec<usize> = numbers.copied().collect();
    sorted.sort_unstable();
    Ok(sorted.into_iter().zip(names.into_iter().cloned()).collect())
}

/// The optimizer's state under our names.
fn state(
    optimizer: &mmengine::Optimizer,
    names: &BTreeMap<usize, String>,
    ours: &Optimizer,
    differs: &mut Vec<String>,
) -> StateDict {
    let (mut state, mut left) = (StateDict::new(), Vec::new());
    for (number, values) in &optimizer.state {
        match names
            .get(number)
            .filter(|name| ours.weights().trained().any(|(_, it)| it.name == **name))
        {
            Some(name) => state.extend(
                values
                    .iter()
                    .map(|(slot, tensor)| (format!("{name}.{slot}"), tensor.shallow_clone())),
            ),
            None if values.is_empty() => {}
            None => left
                .push(names.get(number).cloned().unwrap_or_else(|| format!("parameter {number}"))),
        }
    }
    if !left.is_empty() {
        differs.push(format!(
            "the optimizer's state of parameters that are not trained here stays behind: {}",
            listed(&left)
        ));
    }
    let without = |name: &String| {
        state
            .range(format!("{name}.")..)
            .next()
            .is_none_or(|(key, _)| !key.starts_with(&format!("{name}.")))
    };
    let lacking: Vec<String> =
        ours.weights().trained().map(|(_, it)| it.name.clone()).filter(without).collect();
    if !state.is_empty() && !lacking.is_empty() {
        differs.push(format!("the optimizer's state begins anew for {}", listed(&lacking)));
    }
    state
}

/// Tells settings of the optimizer that are other ones here. torch takes them from the checkpoint;
/// here the config holds.
fn compare(
    optimizer: &mmengine::Optimizer,
    names: &BTreeMap<usize, String>,
    ours: &Optimizer,
    rates: &[f64],
    config: Option<&OptimizerConfig>,
    differs: &mut Vec<String>,
) {
    let mut told: Vec<String> = Vec::new();
    let mut check = |key: &str, theirs: Option<f64>, ours: f64| {
        if let Some(theirs) =
            theirs.filter(|it| (it - ours).abs() > 1e-9 * it.abs().max(ours.abs()))
        {
            let text = format!("{key} is {theirs} in it and {ours} by the config");
            if !told.contains(&text) {
                told.push(text);
            }
        }
    };
    let weights = ours.weights();
    for group in &optimizer.groups {
        let saved = |key: &str| group.settings.get(key).copied();
        for name in group.params.iter().filter_map(|it| names.get(it)) {
            let mut groups = ours.groups().iter().zip(rates);
            let Some((ours, rate)) =
                groups.find(|(it, _)| it.params.iter().any(|&it| weights[it].name == *name))
            else {
                continue;
            };
            check("lr", saved("lr"), *rate);
            check("initial_lr", saved("initial_lr"), ours.lr);
            check("weight_decay", saved("weight_decay"), ours.weight_decay);
        }
        let of = |flag: bool| f64::from(u8::from(flag));
        match config {
            Some(OptimizerConfig::SGD(it)) => {
                check("momentum", saved("momentum"), it.momentum);
                check("dampening", saved("dampening"), it.dampening);
                check("nesterov", saved("nesterov"), of(it.nesterov));
            }
            Some(OptimizerConfig::Adam(it) | OptimizerConfig::AdamW(it)) => {
                check("betas.0", saved("betas.0"), it.betas[0]);
                check("betas.1", saved("betas.1"), it.betas[1]);
                check("eps", saved("eps"), it.eps);
                check("amsgrad", saved("amsgrad"), of(it.amsgrad));
            }
            None => {}
        }
    }
    let more = told.len().saturating_sub(6);
    told.truncate(6);
    if more > 0 {
        told.push(format!("and {more} more differences"));
    }
    if !told.is_empty() {
        differs.push(format!("{}: the config holds", told.join(", ")));
    }
}

/// Tells schedules that are elsewhere than ours, which are functions of the iteration.
fn compare_schedulers(theirs: &mmengine::Training, here: usize, differs: &mut Vec<String>) {
    let there = theirs.schedulers.len();
    if there != here {
        differs.push(format!(
            "it has {there} schedulers of the learning rate, the config {here}: the config holds"
        ));
    }
    for (at, scheduler) in theirs.schedulers.iter().enumerate() {
        let (expected, unit) = if scheduler.by_epoch {
            (theirs.epoch, "epochs")
        } else {
            (theirs.iteration, "iterations")
        };
        if i64::try_from(expected) != Ok(scheduler.steps) {
            differs.push(format!(
                "scheduler {at} has taken {} steps in it after {expected} {unit}; here it follows \
                 the {unit}",
                scheduler.steps
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::Value;
    use tch::Tensor;

    use super::*;
    use crate::config::parse_str;
    use crate::experiment::{IterBased, TrainLoopConfig};
    use crate::ops::Handle;
    use crate::optim::{Horizon, OptimWrapperConfig, ParamSchedulerConfig};
    use crate::weights::{Layer, PerWeight, Weight};

    const CASES: [(&str, &str, &str); 2] = [
        (
            "sgd",
            "{type: OptimWrapper, optimizer: {type: SGD, lr: 0.1, momentum: 0.9, weight_decay: 0.01}}",
            "[{type: PolyLR, eta_min: 1e-3, power: 0.9, begin: 0, end: 20, by_epoch: false}]",
        ),
        (
            "adamw",
            "{type: OptimWrapper, optimizer: {type: AdamW, lr: 0.01, betas: [0.9, 0.99], weight_decay: 0.05}, paramwise_cfg: {norm_decay_mult: 0.0, custom_keys: {head: {lr_mult: 10.0}}}}",
            "[{type: LinearLR, start_factor: 0.1, begin: 0, end: 3, by_epoch: false}, \
             {type: PolyLR, eta_min: 0.0, power: 1.0, begin: 3, end: 20, by_epoch: false}]",
        ),
    ];

    /// What mmengine's runner saved after six iterations; `integration-tests/golden/trainings.py`
    /// makes it.
    fn golden(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("integration-tests/golden/mmengine_{name}.pth"))
    }

    fn theirs(name: &str) -> mmengine::Training {
        mmengine::read(&golden(name)).expect("reads").expect("a training")
    }

    /// An optimizer over the checkpoint's weights but the frozen `stem`.
    fn ours(name: &str, config: &str) -> Optimizer {
        let model = Checkpoint::read(&golden(name)).expect("reads").model;
        let names = ["norm.weight", "norm.bias", "head.weight", "head.bias"];
        let layer =
            |name: &str| if name.starts_with("norm") { Layer::BatchNorm } else { Layer::Conv2d };
        let param = |name: &&str| Weight::new(*name, Handle::new(model[*name].copy()), layer(name));
        let config: OptimWrapperConfig = parse_str(config).expect("an optim_wrapper");
        Optimizer::new(&config, &names.iter().map(param).collect()).expect("an optimizer")
    }

    fn schedule(config: &str, optimizer: &Optimizer) -> Schedule {
        let config: Vec<ParamSchedulerConfig> = parse_str(config).expect("schedulers");
        let horizon = Horizon { max_iters: 6, epoch_length: 20, max_epochs: None };
        Schedule::new(&config, &optimizer.initial_rates(), horizon).expect("a schedule")
    }

    /// The formula of the script.
    fn grad(param: &Weight, step: usize) -> Tensor {
        let start: u32 = param.name.bytes().map(u32::from).sum();
        let value = |place: usize| {
            (0.7 * step as f64 + 0.1 * f64::from(start) + 1.3 * place as f64).cos()
                / (1.0 + step as f64)
        };
        let values: Vec<f32> = (0..param.tensor.numel()).map(|it| value(it) as f32).collect();
        Tensor::from_slice(&values).view(&*param.tensor.size())
    }

    fn handles(state: &StateDict) -> BTreeMap<String, Handle> {
        state.iter().map(|(name, it)| (name.clone(), Handle::sharing(it))).collect()
    }

    #[test]
    fn a_training_of_mmengines_goes_on_as_torchs_optimizer_does() {
        let text = include_str!("../../integration-tests/golden/trainings.json");
        let golden: Value = serde_json::from_str(text).expect("golden values");
        for (name, config, schedulers) in CASES {
            let (theirs, mut ours) = (theirs(name), ours(name, config));
            let optimizer = theirs.optimizer.as_ref().expect("an optimizer");
            let mut differs = Vec::new();
            let names =
                numbered(&theirs, optimizer, &ours, Path::new("iter_6.pth")).expect("known names");
            let state = state(optimizer, &names, &ours, &mut differs);
            let rates = schedule(schedulers, &ours).rates(theirs.iteration);
            let wrapper: OptimWrapperConfig = parse_str(config).expect("an optim_wrapper");
            compare(optimizer, &names, &ours, &rates, Some(wrapper.optimizer()), &mut differs);
            compare_schedulers(&theirs, 1 + usize::from(name == "adamw"), &mut differs);
            assert!(differs.is_empty(), "{name}: {differs:?}");

            ours.load_state(&handles(&state)).expect("the state fits");
            for step in 0..3 {
                let mut grads = PerWeight::new(ours.weights());
                ours.weights()
                    .trained()
                    .for_each(|(id, it)| grads.set(id, Some(Handle::new(grad(it, step)))));
                ours.step(&grads, &rates, None).expect("a step");
            }
            for param in ours.weights() {
                let expected = golden[name]["after"][&param.name].as_array().expect("numbers");
                let found =
                    Vec::<f64>::try_from(param.tensor.flatten(0, -1).to_kind(tch::Kind::Double))
                        .expect("numbers");
                for (found, expected) in found.iter().zip(expected.iter().filter_map(Value::as_f64))
                {
                    assert!(
                        (found - expected).abs() <= 1e-6 * expected.abs() + 1e-7,
                        "{name}, {}: {found}, not {expected}",
                        param.name
                    );
                }
            }
        }
    }

    #[test]
    fn trained_weights_beside_their_averages_are_what_goes_on() {
        let text = include_str!("../../integration-tests/golden/trainings.json");
        let golden: Value = serde_json::from_str(text).expect("golden values");
        let path = self::golden("ema");
        let mut checkpoint = Checkpoint::read(&path).expect("reads");
        take_averages(&path, &mut checkpoint).expect("averages");
        assert_eq!(theirs("ema").averaged, Some(6));
        let numbers =
            |tensor: &Tensor| Vec::<f32>::try_from(tensor.flatten(0, -1)).expect("numbers");
        let (trained, averaged) = (
            numbers(&checkpoint.trained["head.weight"]),
            numbers(&checkpoint.model["head.weight"]),
        );
        let expected = golden["ema"]["trained"]["head.weight"].as_array().expect("numbers");
        assert_eq!(
            trained,
            expected.iter().filter_map(Value::as_f64).map(|it| it as f32).collect::<Vec<_>>()
        );
        assert_ne!(trained, averaged);
        assert!(theirs("sgd").trained.is_empty());
    }

    #[test]
    fn what_mmengine_says_of_a_training_is_read() {
        let [sgd, adamw] = CASES.map(|(name, ..)| theirs(name));
        for it in [&sgd, &adamw] {
            assert_eq!((it.iteration, it.epoch, it.seed), (6, 0, Some(11)));
            assert_eq!(it.best, Some((12.5, "best_mIoU_iter_4.pth".to_owned())));
            assert_eq!(
                it.parameters,
                ["stem.weight", "norm.weight", "norm.bias", "head.weight", "head.bias"]
            );
            assert!(it.schedulers.iter().all(|it| it.steps == 6 && !it.by_epoch));
        }
        assert_eq!(sgd.optimizer.expect("one").groups[0].params, [0, 1, 2, 3, 4]);
        assert_eq!(adamw.optimizer.expect("one").groups.len(), 4);
        assert_eq!(
            (sgd.scaler, adamw.scaler),
            (None, Some(mmengine::Scaler { scale: 1024.0, growth_tracker: 3 }))
        );
    }

    #[test]
    fn settings_that_differ_are_told_and_another_optimizer_is_refused() {
        let (_, config, schedulers) = CASES[0];
        let theirs = theirs("sgd");
        let optimizer = theirs.optimizer.as_ref().expect("an optimizer");
        let other = config.replace("lr: 0.1", "lr: 0.2").replace("0.9", "0.5");
        let mut ours_too = ours("sgd", &other);
        let names =
            numbered(&theirs, optimizer, &ours_too, Path::new("iter_6.pth")).expect("known names");
        let (mut differs, wrapper) =
            (Vec::new(), parse_str::<OptimWrapperConfig>(&other).expect("an optim_wrapper"));
        let rates = schedule(schedulers, &ours_too).rates(4);
        compare(optimizer, &names, &ours_too, &rates, Some(wrapper.optimizer()), &mut differs);
        compare_schedulers(&theirs, 2, &mut differs);
        let told = differs.join("\n");
        for words in [
            "initial_lr is 0.1 in it and 0.2",
            "momentum is 0.9 in it and 0.5",
            "1 schedulers",
            "lr is 0.0",
        ] {
            assert!(told.contains(words), "{words} in {told}");
        }
        let state = state(optimizer, &names, &ours_too, &mut differs);
        ours_too.load_state(&handles(&state)).expect("other settings of the same optimizer");
        let error = ours("sgd", CASES[1].1)
            .load_state(&handles(&state))
            .expect_err("another optimizer")
            .to_string();
        assert!(error.contains("AdamW keeps no `momentum_buffer` of `norm.weight`"), "{error}");

        let mut fewer = theirs;
        fewer.parameters.truncate(4);
        let error = numbered(
            &fewer,
            fewer.optimizer.as_ref().expect("one"),
            &ours_too,
            Path::new("iter_6.pth"),
        );
        let error = error.expect_err("another model").to_string();
        assert!(error.contains("5 parameters") && error.contains("load_from"), "{error}");
    }

    #[test]
    fn epochs_of_another_length_go_on_after_the_last_whole_one() {
        let loops = |by_epoch: bool| {
            let config = if by_epoch {
                TrainLoopConfig::EpochBasedTrainLoop(parse_str("{max_epochs: 10}").expect("a loop"))
            } else {
                TrainLoopConfig::IterBasedTrainLoop(IterBased {
                    max_iters: 100,
                    val_interval: 10,
                    val_begin: 1,
                    dynamic_intervals: None,
                })
            };
            TrainPlan::new(&config, &crate::experiment::CheckpointHook::default(), 10, false)
        };
        let at = |iteration: u64, epoch: u64, by_epoch: bool| {
            let mut differs = Vec::new();
            let mut theirs = theirs("sgd");
            (theirs.iteration, theirs.epoch) = (iteration, epoch);
            (super::iteration(&theirs, &loops(by_epoch), &mut differs), differs.len())
        };
        assert_eq!(at(35, 3, true), (35, 0));
        assert_eq!(at(60, 3, true), (30, 1));
        assert_eq!(at(35, 0, true), (35, 0));
        assert_eq!(at(60, 3, false), (60, 0));
    }
}
