//! Small networks with weights that are formulas of their names (`make.py`): logits, losses,
//! gradients, statistics, names.

use std::path::Path;

use burn::module::Module;
use segslurm::data::{Batch, Raster};
use segslurm::models::{Forward, Segmentor, SegmentorConfig};
use segslurm::ops;
use segslurm::testing::checkpoint::StateDict;
use segslurm::testing::config;
use segslurm::testing::optim::OptimWrapperConfig;
use segslurm::testing::runner::Learner;
use serde_json::Value;

use super::{close, golden, noise, number, numbers, parse, squares};
use crate::learning::{batch, cpu, gradients, learner, load, pixels};

const SIZE: (usize, usize) = (49, 65);
const CLASSES: u8 = 7;

/// The weights of a model, by what a name ends in and its shape.
fn weights(segmentor: &Segmentor) -> StateDict {
    let value = |name: &str, tensor: &tch::Tensor| {
        let size = tensor.size();
        let count = tensor.numel();
        let leaf = name.rsplit('.').next().unwrap_or(name);
        let of = |u: f64| match leaf {
            "bases" => u,
            _ if size.len() > 1 => (2.0 * u - 1.0) * (6.0 / (count as f64 / size[0] as f64)).sqrt(),
            "weight" => 0.6 + 0.8 * u,
            "running_var" => 0.5 + u,
            _ => 0.4 * u - 0.2,
        };
        let values: Vec<f32> = numbers(name, count).map(|u| of(u) as f32).collect();
        tch::Tensor::from_slice(&values).view(&size[..])
    };
    // Whole numbers stay as the model has them.
    let whole = |tensor: &ops::Handle| (!tensor.is_float()).then(|| tensor.copy());
    let filled = segmentor.weights().into_iter().map(|it| {
        let tensor = whole(&it.tensor).unwrap_or_else(|| value(&it.name, &it.tensor));
        (it.name, tensor)
    });
    filled.collect()
}

fn pictures() -> [Raster<3>; 2] {
    ["image.0", "image.1"].map(|name| noise(name, SIZE.0, SIZE.1))
}

fn training_batch() -> Batch {
    let labels = ["label.0", "label.1"].map(|name| squares(name, SIZE.0, SIZE.1, CLASSES));
    batch(pictures().into(), labels.into())
}

fn logits_are(golden: &Value) {
    for mode in ["whole", "slide"] {
        let mut section = golden["model"].clone();
        section["test_cfg"]["mode"] = mode.into();
        let model: SegmentorConfig = config::parse_str(&section.to_string()).expect("a model");
        let segmentor = model.init(&cpu(), 0).expect("builds");
        load(&segmentor, &weights(&segmentor));
        let pictures = pictures();
        let images = model
            .preprocessor()
            .expect("builds")
            .testing(&pictures.each_ref().map(pixels), &cpu())
            .expect("a batch");
        let logits =
            ops::to_tch(&segmentor.valid().infer(images, &Forward::default())).flatten(0, -1);
        let logits = Vec::<f32>::try_from(logits).expect("numbers");
        let stride = golden["stride"].as_u64().expect("a stride") as usize;
        let kept: Vec<f64> = logits.iter().step_by(stride).map(|&it| f64::from(it)).collect();
        let expected: Vec<f64> =
            golden[mode].as_array().expect("logits").iter().map(number).collect();
        assert_eq!(kept.len(), expected.len());
        let scale = expected.iter().fold(0.0_f64, |most, it| most.max(it.abs()));
        for (place, (ours, golden)) in kept.iter().zip(&expected).enumerate() {
            assert!(
                (ours - golden).abs() <= 1e-3 * scale,
                "{mode} logit {}: {ours}, expected {golden}",
                place * stride
            );
        }
    }
}

fn training_is(golden: &Value) {
    let model: SegmentorConfig = config::parse_str(&golden["model"].to_string()).expect("a model");
    let sgd = "{type: OptimWrapper, optimizer: {type: SGD, lr: 0.01, momentum: 0.9, weight_decay: 0.0005}}";
    let wrapper: OptimWrapperConfig = config::parse_str(sgd).expect("an optimizer");
    let state = weights(&model.init(&cpu(), 0).expect("builds"));
    let batch = training_batch();

    let found = gradients(&learner(&model, &wrapper, &state, 3), &batch);
    let norms = golden["gradient_norms"].as_object().expect("norms");
    assert_eq!(found.keys().collect::<Vec<_>>(), {
        let mut names: Vec<_> = norms.keys().collect();
        names.sort();
        names
    });
    let largest = norms.values().map(number).fold(0.0, f64::max);
    for (name, norm) in norms {
        let (found, norm) = (found[name].norm().double_value(&[]), number(norm));
        // A bias that a norm takes away again has a gradient of rounding alone.
        if found.max(norm) > 1e-6 * largest {
            close(&format!("the norm of {name}'s gradient"), found, norm, 1e-3);
        }
    }

    let mut learner: Learner = learner(&model, &wrapper, &state, 3);
    for (step, expected) in golden["losses"].as_array().expect("losses").iter().enumerate() {
        let losses = learner.step(&batch, step as u64, &[0.01; 2]).expect("a step");
        let expected = expected.as_object().expect("losses by name");
        assert_eq!(
            losses.iter().map(|it| &it.0).collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>()
        );
        for (name, value) in losses {
            // Pooled to one pixel, a norm sees two values a channel: steps amplify rounding, and
            // accuracy counts pixels that tip.
            let tolerance = match step {
                0 | 1 => 1e-3,
                _ if name.contains("acc") => 1e-1,
                _ => 3e-3,
            };
            close(&format!("{name} of step {step}"), value, number(&expected[&name]), tolerance);
        }
    }
    for kind in ["running_mean", "running_var"] {
        let all = learner.segmentor.weights().into_iter().filter(|it| it.name.ends_with(kind));
        let all: Vec<_> = all.map(|it| it.tensor.flatten(0, -1)).collect();
        close(
            kind,
            tch::Tensor::cat(&all, 0).norm().double_value(&[]),
            number(&golden[kind]),
            2e-3,
        );
    }
}

#[test]
fn every_model_of_the_folder_computes_what_mmseg_computed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration-tests/golden/models");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder")
        .map(|it| it.expect("an entry").path())
        .collect();
    files.sort();
    let wrong: Vec<String> = files.iter().filter_map(|file| wrong(file)).collect();
    assert!(files.len() >= 18 && wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is wrong with the model of a golden file.
fn wrong(file: &Path) -> Option<String> {
    let golden = parse(&std::fs::read_to_string(file).expect("a golden file"));
    let computed = std::panic::catch_unwind(|| {
        logits_are(&golden);
        training_is(&golden);
    });
    let why = computed.err()?;
    let why = why
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| why.downcast_ref::<&str>().map(ToString::to_string));
    Some(format!("{}: {}", file.display(), why.unwrap_or_default()))
}

#[test]
fn schedules_have_mmengines_rates() {
    use segslurm::testing::optim::{Horizon, ParamSchedulerConfig, Schedule};
    for (name, case) in golden!("schedules.json").as_object().expect("cases") {
        let configs: Vec<ParamSchedulerConfig> =
            config::parse_str(&case["param_scheduler"].to_string()).expect("schedulers");
        let samples = case["samples"].as_array().expect("samples");
        let max_iters = samples.last().expect("one")[0].as_u64().expect("an iteration") + 1;
        let horizon = Horizon { max_iters, epoch_length: max_iters, max_epochs: None };
        let mut schedule =
            Schedule::new(&configs, &[number(&case["lr"])], horizon).expect("a schedule");
        for sample in samples {
            let iteration = sample[0].as_u64().expect("an iteration");
            close(
                &format!("{name} at {iteration}"),
                schedule.rates(iteration)[0],
                number(&sample[1]),
                1e-9,
            );
        }
    }
}
