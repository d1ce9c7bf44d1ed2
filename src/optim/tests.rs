//! Whole steps against torch's, and the state's way into a checkpoint and back.

use std::collections::BTreeMap;

use burn::tensor::Device;
use serde::Deserialize;
use tch::{Kind, Tensor};

use super::*;
use crate::config::parse_str;
use crate::ops::{Handle, MemoryFormat, ScalerState};
use crate::weights::{Layer, Weight, Weights};

const GOLDEN: &str = include_str!("../../integration-tests/golden/optimizers.json");

/// The formulas of `integration-tests/golden/optimizers.py`.
fn param(index: usize) -> Tensor {
    let values: Vec<f32> = (0..6)
        .map(|at| {
            (1.0 + index as f64 + 2.0 * f64::from(at / 3) + 0.5 * f64::from(at % 3)).sin() as f32
        })
        .collect();
    Tensor::from_slice(&values).view([2, 3])
}

fn grad(index: usize, step: usize) -> Tensor {
    let step = step as f64;
    let values: Vec<f32> = (0..6)
        .map(|at| {
            ((0.3 * step + index as f64 + f64::from(at / 3) + 1.7 * f64::from(at % 3)).cos()
                / (1.0 + step)) as f32
        })
        .collect();
    Tensor::from_slice(&values).view([2, 3])
}

fn params() -> Weights {
    (0..2)
        .map(|index| {
            Weight::new(format!("layer.{index}.weight"), Handle::new(param(index)), Layer::Linear)
        })
        .collect()
}

fn per_weight(weights: &Weights, grads: Vec<Option<Tensor>>) -> PerWeight<Handle> {
    let mut found = PerWeight::new(weights);
    weights.trained().zip(grads).for_each(|((id, _), grad)| found.set(id, grad.map(Handle::new)));
    found
}

fn tensor(optimizer: &Optimizer, index: usize) -> &Handle {
    &optimizer.weights().iter().nth(index).expect("a parameter").tensor
}

/// The second parameter takes no part in the first step.
fn grads(step: usize) -> Vec<Option<Tensor>> {
    vec![Some(grad(0, step)), (step > 0).then(|| grad(1, step))]
}

fn optimizer(text: &str) -> Optimizer {
    Optimizer::new(&parse_str(text).expect("an optim_wrapper"), &params()).expect("an optimizer")
}

fn step(optimizer: &mut Optimizer, at: usize) -> Option<Handle> {
    let rates = optimizer.initial_rates();
    optimizer.step(&per_weight(&params(), grads(at)), &rates, None).expect("a step")
}

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.flatten(0, -1).to_kind(Kind::Double)).expect("the values")
}

const CASES: [(&str, &str); 15] = [
    ("sgd", "optimizer: {type: SGD, lr: 0.1}"),
    ("sgd_decay", "optimizer: {type: SGD, lr: 0.1, weight_decay: 0.05}"),
    ("sgd_momentum", "optimizer: {type: SGD, lr: 0.1, momentum: 0.9, weight_decay: 0.0005}"),
    ("sgd_dampening", "optimizer: {type: SGD, lr: 0.1, momentum: 0.9, dampening: 0.3}"),
    (
        "sgd_nesterov",
        "optimizer: {type: SGD, lr: 0.1, momentum: 0.9, weight_decay: 0.01, nesterov: true}",
    ),
    ("adam", "optimizer: {type: Adam, lr: 0.01}"),
    ("adam_decay", "optimizer: {type: Adam, lr: 0.01, betas: [0.8, 0.95], weight_decay: 0.1}"),
    ("adam_amsgrad", "optimizer: {type: Adam, lr: 0.01, amsgrad: true}"),
    ("adamw", "optimizer: {type: AdamW, lr: 0.01}"),
    ("adamw_decay", "optimizer: {type: AdamW, lr: 0.01, eps: 1e-3, weight_decay: 0.2}"),
    ("adamw_amsgrad", "optimizer: {type: AdamW, lr: 0.01, amsgrad: true}"),
    ("clip_norm", "optimizer: {type: SGD, lr: 0.5, momentum: 0.9}, clip_grad: {max_norm: 1.0}"),
    (
        "clip_norm_1",
        "optimizer: {type: SGD, lr: 0.5, momentum: 0.9}, clip_grad: {max_norm: 2.0, norm_type: 1}",
    ),
    (
        "clip_norm_inf",
        "optimizer: {type: SGD, lr: 0.5, momentum: 0.9}, clip_grad: \
         {max_norm: 0.3, norm_type: .inf}",
    ),
    (
        "clip_value",
        "optimizer: {type: SGD, lr: 0.5, momentum: 0.9}, clip_grad: {type: value, clip_value: 0.4}",
    ),
];

#[test]
fn every_optimizer_takes_torchs_steps() {
    let golden: BTreeMap<String, Vec<Vec<f64>>> =
        serde_json::from_str(GOLDEN).expect("golden values");
    assert_eq!(golden.len(), CASES.len());
    for (name, config) in CASES {
        let mut optimizer = optimizer(&format!("{{type: OptimWrapper, {config}}}"));
        (0..5).for_each(|at| drop(step(&mut optimizer, at)));
        for (param, expected) in optimizer.weights().iter().zip(&golden[name]) {
            for (found, expected) in values(&param.tensor).iter().zip(expected) {
                assert!(
                    (found - expected).abs() <= 1e-6 * expected.abs() + 1e-7,
                    "{name}: {found} is not {expected}"
                );
            }
        }
    }
}

#[test]
fn a_step_of_momentum_is_the_formula_by_hand() {
    let mut optimizer = optimizer(
        "{type: OptimWrapper, optimizer: {type: SGD, lr: 0.1, momentum: 0.9, weight_decay: 0.01}}",
    );
    step(&mut optimizer, 0);
    step(&mut optimizer, 1);
    let (start, first, second) = (values(&param(0)), values(&grad(0, 0)), values(&grad(0, 1)));
    for (at, found) in values(tensor(&optimizer, 0)).into_iter().enumerate() {
        let velocity = first[at] + 0.01 * start[at];
        let after_one = start[at] - 0.1 * velocity;
        let after_two = after_one - 0.1 * (0.9 * velocity + second[at] + 0.01 * after_one);
        assert!((found - after_two).abs() < 1e-6, "{found} is not {after_two}");
    }
}

#[test]
fn the_norm_is_that_of_all_gradients_before_clipping() {
    let mut optimizer =
        optimizer("{type: OptimWrapper, optimizer: {type: SGD}, clip_grad: {max_norm: 0.5}}");
    let norm = step(&mut optimizer, 1).expect("a norm").number();
    let expected =
        (0..2).flat_map(|index| values(&grad(index, 1))).map(|it| it * it).sum::<f64>().sqrt();
    assert!((norm - expected).abs() < 1e-6, "{norm} is not {expected}");
}

#[test]
fn a_saved_state_goes_on_with_the_same_bits() {
    for (name, config) in CASES {
        let text = format!("{{type: OptimWrapper, {config}}}");
        let (mut straight, mut stopped) = (optimizer(&text), optimizer(&text));
        (0..2).for_each(|at| drop((step(&mut straight, at), step(&mut stopped, at))));
        let state =
            stopped.state().into_iter().map(|(name, tensor)| (name, tensor.duplicate())).collect();
        let mut resumed = optimizer(&text);
        for (param, old) in resumed.weights().iter().zip(stopped.weights()) {
            param.tensor.shallow_clone().copy_(&old.tensor);
        }
        resumed.load_state(&state).expect("the state fits");
        (2..4).for_each(|at| drop((step(&mut straight, at), step(&mut resumed, at))));
        for (param, expected) in resumed.weights().iter().zip(straight.weights()) {
            assert!(param.tensor.equal(&expected.tensor), "{name}: {}", param.name);
        }
    }
}

#[test]
fn a_state_of_another_optimizer_or_model_is_refused_by_name() {
    let mut adam = optimizer("{type: OptimWrapper, optimizer: {type: Adam}}");
    step(&mut adam, 0);
    let mut sgd = optimizer("{type: OptimWrapper, optimizer: {type: SGD, momentum: 0.9}}");
    let text = sgd.load_state(&adam.state()).expect_err("another optimizer").to_string();
    assert!(text.starts_with("SGD keeps no `exp_avg` of `layer.0.weight`"), "{text}");

    let foreign =
        BTreeMap::from([("other.weight.momentum_buffer".to_owned(), Handle::new(param(0)))]);
    let text = sgd.load_state(&foreign).expect_err("another model").to_string();
    assert!(text.contains("`other.weight.momentum_buffer`"), "{text}");

    let shape = BTreeMap::from([(
        "layer.0.weight.momentum_buffer".to_owned(),
        Handle::new(Tensor::from_slice(&[1.0_f32])),
    )]);
    let text = sgd.load_state(&shape).expect_err("another shape").to_string();
    assert!(
        text.contains("`layer.0.weight`") && text.contains("[1]") && text.contains("[2, 3]"),
        "{text}"
    );

    let mut half = adam.state();
    half.remove("layer.0.weight.step");
    let text = adam.load_state(&half).expect_err("half a state").to_string();
    assert!(text.contains("`step` is missing of `layer.0.weight`"), "{text}");
}

#[test]
fn a_gradient_of_another_layout_is_read_by_its_shape() {
    let weight = Tensor::zeros([2, 3, 4, 5], (Kind::Float, tch::Device::Cpu));
    let grad = Tensor::arange(120, (Kind::Float, tch::Device::Cpu))
        .view([2, 5, 4, 3])
        .permute([0, 3, 2, 1]);
    assert_ne!(grad.stride(), weight.stride());
    let config = parse_str("{type: OptimWrapper, optimizer: {type: SGD, lr: 1.0, momentum: 0.9}}")
        .expect("a config");
    let weights: Weights = [Weight::new("w", Handle::new(weight.shallow_clone()), Layer::Conv2d)]
        .into_iter()
        .collect();
    let mut optimizer = Optimizer::new(&config, &weights).expect("an optimizer");
    optimizer
        .step(&per_weight(&weights, vec![Some(grad.shallow_clone())]), &[1.0], None)
        .expect("a step");
    assert!((weight + grad).abs().max().double_value(&[]) == 0.0);
}

#[test]
fn the_memory_format_of_weights_and_of_gradients_changes_nothing() {
    let formats = [MemoryFormat::Contiguous, MemoryFormat::ChannelsLast];
    let made = |size: [i64; 4], scale: f64| {
        (Tensor::arange(size.iter().product::<i64>(), (Kind::Float, tch::Device::Cpu)) * scale)
            .sin()
            .view(size)
    };
    for (config, size) in CASES.iter().flat_map(|(_, config)| {
        [[3, 4, 2, 3], [3, 4, 1, 1], [3, 1, 2, 2]].map(|size| (config, size))
    }) {
        let after = |weights: MemoryFormat, grads: MemoryFormat| {
            let tensor = weights.copied(&made(size, 0.7));
            let params: Weights =
                [Weight::new("weight", Handle::new(tensor.shallow_clone()), Layer::Conv2d)]
                    .into_iter()
                    .collect();
            let config =
                parse_str(&format!("{{type: OptimWrapper, {config}}}")).expect("an optim_wrapper");
            let mut optimizer = Optimizer::new(&config, &params).expect("an optimizer");
            for at in 1..4 {
                let grad = grads.copied(&made(size, 0.3 * f64::from(at)));
                let rates = optimizer.initial_rates();
                optimizer
                    .step(&per_weight(&params, vec![Some(grad)]), &rates, None)
                    .expect("a step");
            }
            tensor
        };
        let expected = after(formats[0], formats[0]);
        for (weights, grads) in [(0, 1), (1, 0), (1, 1)] {
            let found = after(formats[weights], formats[grads]);
            assert!(
                found.allclose(&expected, 1e-6, 1e-7, false),
                "{config}: {found} is not {expected}"
            );
        }
    }
}

#[test]
fn a_group_has_its_own_rate() {
    let text = "{type: OptimWrapper, optimizer: {type: SGD, lr: 0.1}, paramwise_cfg: {custom_keys: {layer.1: {lr_mult: 10.0}}}}";
    let mut optimizer = optimizer(text);
    assert_eq!(optimizer.initial_rates(), [0.1, 1.0, 0.1]);
    optimizer.step(&per_weight(&params(), grads(1)), &[0.0, 0.5], None).expect("a step");
    assert!(tensor(&optimizer, 0).equal(&param(0)));
    let expected = param(1) - grad(1, 1) * 0.5;
    assert!((&**tensor(&optimizer, 1) - expected).abs().max().double_value(&[]) < 1e-6);
}

#[test]
fn an_overflow_skips_the_step_and_halves_the_scale() {
    for optimizer_text in [
        "{type: SGD, lr: 0.1, momentum: 0.9}",
        "{type: SGD, lr: 0.1, momentum: 0.9, dampening: 0.5}",
        "{type: AdamW}",
    ] {
        let text =
            format!("{{type: AmpOptimWrapper, dtype: float16, optimizer: {optimizer_text}}}");
        let config: OptimWrapperConfig = parse_str(&text).expect("an optim_wrapper");
        let mut scaler =
            config.amp().expect("mixed precision").scaler(&Device::libtorch()).expect("a scaler");
        let mut scaled = Optimizer::new(&config, &params()).expect("an optimizer");
        let mut plain = Optimizer::new(&config, &params()).expect("an optimizer");
        let rates = plain.initial_rates();

        let mut overflown = grads(1);
        let _ = overflown[1].as_mut().expect("a gradient").get(0).fill_(f64::INFINITY);
        scaled
            .step(&per_weight(&params(), overflown), &rates, Some(&mut scaler))
            .expect("a skipped step");
        assert!(
            scaled
                .weights()
                .iter()
                .zip(params())
                .all(|(found, start)| found.tensor.equal(&start.tensor)),
            "{text}"
        );
        assert_eq!(scaler.state(), ScalerState { scale: 32768.0, growth_tracker: 0, skipped: 1 });

        for at in 0..3 {
            let scale = scaler.state().scale;
            let big: Vec<_> = grads(at).into_iter().map(|it| it.map(|it| it * scale)).collect();
            scaled.step(&per_weight(&params(), big), &rates, Some(&mut scaler)).expect("a step");
            plain.step(&per_weight(&params(), grads(at)), &rates, None).expect("a step");
        }
        // The scale is a power of two, so nothing is rounded.
        for (found, expected) in scaled.weights().iter().zip(plain.weights()) {
            assert!(found.tensor.equal(&expected.tensor), "{text}: {}", found.name);
        }
    }
}

#[test]
fn the_scale_grows_after_its_interval_and_survives_a_checkpoint() {
    let text = "{type: AmpOptimWrapper, optimizer: {type: SGD}, loss_scale: {init_scale: 8.0, growth_interval: 2}}";
    let config: OptimWrapperConfig = parse_str(text).expect("an optim_wrapper");
    let new =
        || config.amp().expect("mixed precision").scaler(&Device::libtorch()).expect("a scaler");
    let (mut scaler, mut optimizer) =
        (new(), Optimizer::new(&config, &params()).expect("an optimizer"));
    let mut scales = Vec::new();
    for at in 1..6 {
        optimizer
            .step(&per_weight(&params(), grads(at)), &[0.1], Some(&mut scaler))
            .expect("a step");
        scales.push(scaler.state().scale);
        let mut restored = new();
        restored.load_state(&scaler.state());
        assert_eq!(restored.state(), scaler.state());
        scaler = restored;
    }
    assert_eq!(scales, [8.0, 16.0, 16.0, 32.0, 32.0]);
}

#[test]
fn a_fixed_scale_stays_and_bf16_needs_none() {
    let amp = |text: &str| {
        parse_str::<OptimWrapperConfig>(text)
            .expect("an optim_wrapper")
            .amp()
            .expect("mixed precision")
    };
    let fixed = amp("{type: AmpOptimWrapper, optimizer: {type: SGD}, loss_scale: 512}");
    let mut scaler = fixed.scaler(&Device::libtorch()).expect("a scaler");
    scaler.unscale(&[&Handle::new(Tensor::from_slice(&[f32::NAN]))]).expect("unscales");
    scaler.update().expect("updates");
    assert_eq!(scaler.state(), ScalerState { scale: 512.0, growth_tracker: 0, skipped: 1 });
    assert!(
        amp("{type: AmpOptimWrapper, optimizer: {type: SGD}, dtype: bfloat16}")
            .scaler(&Device::libtorch())
            .is_none()
    );
    assert_eq!(
        amp("{type: AmpOptimWrapper, optimizer: {type: SGD}}").dtype(true),
        AmpDtype::Float16
    );
}

#[test]
fn contradictions_are_errors() {
    let error = |text: &str| {
        let config: OptimWrapperConfig = parse_str(text).expect("an optim_wrapper");
        Optimizer::new(&config, &params()).expect_err("refused").to_string()
    };
    assert!(
        error("{type: OptimWrapper, optimizer: {type: SGD, nesterov: true}}")
            .contains("momentum above 0")
    );
    let none = parse_str::<OptimWrapperConfig>(
        "{type: OptimWrapper, optimizer: {type: SGD}, accumulative_counts: 0}",
    );
    assert!(
        none.expect_err("refused")
            .to_string()
            .contains("accumulative_counts: expected a whole number, 1 or more")
    );
    assert!(
        error("{type: OptimWrapper, optimizer: {type: SGD}, clip_grad: {norm_type: 1}}")
            .contains("`max_norm` is missing")
    );
    let text = error(
        "{type: OptimWrapper, optimizer: {type: SGD}, paramwise_cfg: {norm_decay_mult: 0.0}}",
    );
    assert!(text.contains("paramwise_cfg.norm_decay_mult"), "{text}");
}

#[test]
fn a_config_with_an_unknown_key_names_it() {
    #[derive(Debug, Deserialize)]
    struct Section {
        #[expect(dead_code, reason = "only parsed")]
        optim_wrapper: OptimWrapperConfig,
    }
    let text = "{optim_wrapper: {type: OptimWrapper, optimizer: {type: SGD, momentun: 0.9}}}";
    let message = parse_str::<Section>(text).expect_err("a typo").to_string();
    assert!(
        message.contains("optim_wrapper.optimizer.momentun")
            && message.contains("did you mean `momentum`"),
        "{message}"
    );
    let text =
        "{optim_wrapper: {type: AmpOptimWrapper, optimizer: {type: SGD}, loss_scale: dynamc}}";
    let message = parse_str::<Section>(text).expect_err("a typo").to_string();
    assert!(message.contains("loss_scale"), "{message}");
}
