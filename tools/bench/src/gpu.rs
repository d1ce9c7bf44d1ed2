//! The GPU against the CPU: every fused operation, forward and backward, and whole train steps.
//! Without a GPU it is the CPU against itself, which at least shows that the check runs. And the
//! train step that `make gpu-check` times.

use std::net::TcpListener;
use std::os::fd::IntoRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use anyhow::{anyhow, bail, ensure};
use burn::tensor::{Device, Int, Tensor};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use segslurm::ops::{
    self, Activation, BatchNorm, BinaryCrossEntropy, Conv, CrossEntropy, MemoryFormat, Reduction,
    from_tch, gradient, place, to_tch,
};
use segslurm::testing::dist::Group;
use segslurm::testing::experiment::{EnvConfig, MemoryFormatChoice};
use segslurm::testing::runner::decide_memory_format;
use segslurm_native::collective::{self, ProcessGroup, Store};
use segslurm_native::{device, profile};
use serde_json::json;

use crate::{model, report};

/// Single precision, sums of a few thousand terms, in another order.
const OPERATION: f64 = 1e-3;
/// Steps of a whole network, TF32 convolutions among them.
const LOSS: f64 = 1e-2;
/// The same in half precision, against single.
const HALF: f64 = 3e-2;

/// An operation on flat inputs; its output is flattened too.
struct Case {
    name: &'static str,
    inputs: Vec<usize>,
    run: fn(&[Tensor<1>]) -> Tensor<1>,
}

const N: [usize; 4] = [2, 8, 12, 10];
const SIZE: usize = N[0] * N[1] * N[2] * N[3];

fn cases() -> Vec<Case> {
    let case = |name, inputs: &[usize], run| Case { name, inputs: inputs.to_vec(), run };
    let conv: fn(&[Tensor<1>]) -> Tensor<1> = |x| {
        let conv = Conv { padding: [2, 2], dilation: [2, 2], ..Conv::default() };
        flat(ops::conv2d(
            image(&x[0]),
            x[1].clone().reshape([6, N[1], 3, 3]),
            Some(x[2].clone()),
            conv,
        ))
    };
    vec![
        case("conv2d", &[SIZE, 6 * N[1] * 9, 6], conv),
        case("batch_norm, training, relu", &[SIZE, N[1], N[1]], |x| norm(x, true)),
        case("batch_norm, running statistics, relu", &[SIZE, N[1], N[1]], |x| norm(x, false)),
        case("relu", &[SIZE], |x| flat(ops::relu(image(&x[0])))),
        case("add_relu", &[SIZE, SIZE], |x| flat(ops::add_relu(image(&x[0]), image(&x[1])))),
        case("max_pool2d", &[SIZE], |x| {
            flat(ops::max_pool2d(image(&x[0]), [3, 3], [2, 2], [1, 1]))
        }),
        case("avg_pool2d", &[SIZE], |x| {
            flat(ops::avg_pool2d(image(&x[0]), [2, 2], [2, 2], [0, 0], true, false))
        }),
        case("adaptive_avg_pool2d", &[SIZE], |x| {
            flat(ops::adaptive_avg_pool2d(image(&x[0]), [3, 3]))
        }),
        case("resize_bilinear", &[SIZE], |x| {
            flat(ops::resize_bilinear(image(&x[0]), [17, 23], false))
        }),
        case("cross_entropy", &[SIZE], |x| {
            let weighted = CrossEntropy {
                class_weight: Some(ops::Constant::from(
                    (1..=8).map(|it| 0.25 * it as f32).collect::<Vec<_>>(),
                )),
                reduction: Reduction::MeanNonIgnored,
                ..CrossEntropy::default()
            };
            ops::cross_entropy(image(&x[0]), labels([N[2], N[3]], &x[0].device()), &weighted)
        }),
        case("resized_cross_entropy", &[SIZE], |x| {
            let target = labels([2 * N[2], 2 * N[3]], &x[0].device());
            let (loss, accuracy) =
                ops::resized_cross_entropy(image(&x[0]), target, &CrossEntropy::default(), false);
            Tensor::cat(vec![loss, accuracy.detach() / 100.0], 0)
        }),
        case("resized_cross_entropy, 300 classes, weighted", &[2 * 300 * 35], |x| {
            let weights: Vec<f32> = (0..300).map(|it| 0.5 + (it % 7) as f32).collect();
            let weighted = CrossEntropy {
                class_weight: Some(weights.into()),
                reduction: Reduction::MeanNonIgnored,
                ..CrossEntropy::default()
            };
            many_classes(&x[0], [300, 5, 7], [37, 53], &weighted, true)
        }),
        case("resized_cross_entropy, one row, a class ignored", &[2 * 19 * 9], |x| {
            let ignored = CrossEntropy {
                ignore_index: 3,
                reduction: Reduction::Sum,
                ..CrossEntropy::default()
            };
            many_classes(&x[0], [19, 1, 9], [8, 64], &ignored, false)
        }),
        case("binary_cross_entropy", &[SIZE], |x| {
            let options = BinaryCrossEntropy {
                class_weight: None,
                ignore_index: 255,
                reduction: Reduction::Mean,
            };
            ops::binary_cross_entropy(image(&x[0]), labels([N[2], N[3]], &x[0].device()), &options)
        }),
        case("label_map", &[SIZE], |x| {
            let map = to_tch(&ops::resized_label_map(&image(&x[0]), [30, 31], false))
                .to_kind(tch::Kind::Float);
            from_tch(map.view(-1), &x[0].device())
        }),
    ]
}

/// The loss and the accuracy of two images whose labels are larger than their logits by no whole
/// number.
fn many_classes(
    x: &Tensor<1>,
    [classes, h, w]: [usize; 3],
    [height, width]: [usize; 2],
    options: &CrossEntropy,
    align: bool,
) -> Tensor<1> {
    let values: Vec<i64> = (0..2 * height * width)
        .map(|at| if at % 11 == 0 { options.ignore_index } else { (at * 7 % classes) as i64 })
        .collect();
    let target = tch::Tensor::from_slice(&values)
        .view([2, height as i64, width as i64])
        .to_device(place(&x.device()));
    let logits = x.clone().reshape([2, classes, h, w]) * 3.0;
    let (loss, accuracy) =
        ops::resized_cross_entropy(logits, from_tch(target, &x.device()), options, align);
    Tensor::cat(vec![loss, accuracy.detach() / 100.0], 0)
}

fn image(x: &Tensor<1>) -> Tensor<4> {
    x.clone().reshape(N)
}

fn flat(x: Tensor<4>) -> Tensor<1> {
    let count = x.shape().num_elements();
    x.reshape([count])
}

fn norm(x: &[Tensor<1>], training: bool) -> Tensor<1> {
    let device = x[0].device();
    let (mean, var) = (Tensor::zeros([N[1]], &device), Tensor::ones([N[1]], &device));
    let options = BatchNorm { training, activation: Activation::ReLU, ..BatchNorm::default() };
    flat(ops::batch_norm(image(&x[0]), x[1].clone(), x[2].clone(), &mean, &var, options))
}

/// Labels of all eight classes, some of them ignored.
fn labels([height, width]: [usize; 2], device: &Device) -> Tensor<3, Int> {
    let label = |at: usize| if at.is_multiple_of(11) { 255 } else { (at * 7 % 8) as i64 };
    let values: Vec<i64> = (0..N[0] * height * width).map(label).collect();
    let labels = tch::Tensor::from_slice(&values).view([N[0] as i64, height as i64, width as i64]);
    from_tch(labels.to_device(place(device)), device)
}

/// The output and the gradient of every input, on the CPU.
fn differentiate(case: &Case, device: &Device) -> Vec<tch::Tensor> {
    let mut random = StdRng::seed_from_u64(3);
    let mut drawn = |count: usize| {
        let values: Vec<f32> = (0..count).map(|_| random.random_range(-2.0..2.0)).collect();
        tch::Tensor::from_slice(&values).to_device(place(device))
    };
    let inputs: Vec<Tensor<1>> =
        case.inputs.iter().map(|&count| from_tch(drawn(count), device).require_grad()).collect();
    let output = (case.run)(&inputs);
    let weights: Tensor<1> = from_tch(drawn(output.dims()[0]), device);
    // A copy: Burn may compute the product below in the output's place.
    let mut found = vec![to_tch(&output).to_device(tch::Device::Cpu).copy()];
    if ops::leaf(&output).is_some() {
        let mut grads = (output * weights).sum().backward();
        let gradients = inputs.iter().filter_map(|it| gradient(it, &mut grads));
        found.extend(gradients.map(|it| it.to_device(tch::Device::Cpu)));
    }
    found
}

/// The largest difference, as a part of the largest value.
fn apart(a: &tch::Tensor, b: &tch::Tensor) -> f64 {
    (a - b).abs().max().double_value(&[]) / b.abs().max().double_value(&[]).max(1e-12)
}

/// What was held against its limit so far.
#[derive(Default)]
struct Findings {
    beyond: Vec<String>,
}

impl Findings {
    /// Prints a line: how far apart `found` says the two sides are. An error or a panic of one
    /// check does not end the others.
    fn check(&mut self, name: &str, limit: f64, found: impl FnOnce() -> anyhow::Result<f64>) {
        let found = catch_unwind(AssertUnwindSafe(found)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            Err(anyhow!(
                text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
                    .unwrap_or_default()
            ))
        });
        let ok = matches!(&found, Ok(apart) if *apart <= limit);
        match found {
            Ok(apart) => println!(
                "{name:<48} {apart:>12.1e} {limit:>10.0e}{}",
                if ok { "" } else { "  BEYOND" }
            ),
            Err(error) => println!("{name:<48} FAILS: {error:#}"),
        }
        if !ok {
            self.beyond.push(name.to_owned());
        }
    }
}

/// Changes of the config, by what they try.
const TRAININGS: [(&str, MemoryFormat, f64, &[&str]); 7] = [
    ("SGD, contiguous", MemoryFormat::Contiguous, LOSS, &[]),
    ("SGD, channels-last", MemoryFormat::ChannelsLast, LOSS, &[]),
    (
        "SGD, clipped",
        MemoryFormat::Contiguous,
        LOSS,
        &["optim_wrapper.clip_grad._delete_=true", "optim_wrapper.clip_grad.max_norm=1.0"],
    ),
    ("SGD, accumulated", MemoryFormat::Contiguous, LOSS, &["optim_wrapper.accumulative_counts=2"]),
    (
        "AdamW, clipped",
        MemoryFormat::ChannelsLast,
        LOSS,
        &[
            "optim_wrapper.optimizer._delete_=true",
            "optim_wrapper.optimizer.type=AdamW",
            "optim_wrapper.optimizer.lr=0.0001",
            "optim_wrapper.clip_grad._delete_=true",
            "optim_wrapper.clip_grad.max_norm=35.0",
        ],
    ),
    (
        "fp16 with a loss scale",
        MemoryFormat::ChannelsLast,
        HALF,
        &["optim_wrapper.type=AmpOptimWrapper"],
    ),
    (
        "bf16",
        MemoryFormat::ChannelsLast,
        HALF,
        &[
            "optim_wrapper.type=AmpOptimWrapper",
            "optim_wrapper.dtype=bfloat16",
            "optim_wrapper.loss_scale=1.0",
        ],
    ),
];

/// Prints one line a check; an error where one is beyond its limit.
pub(crate) fn check() -> anyhow::Result<()> {
    const STEPS: u64 = 4;
    std::panic::set_hook(Box::new(|_| {}));
    let (gpu, cpu) = (ops::device(model::default_gpu()?).autodiff(), Device::libtorch().autodiff());
    println!(
        "{:<48} {:>12} {:>10}",
        format!("{:?} against the CPU", place(&gpu)),
        "apart",
        "limit"
    );
    let mut findings = Findings::default();
    for case in cases() {
        findings.check(case.name, OPERATION, || {
            let (found, expected) = (differentiate(&case, &gpu), differentiate(&case, &cpu));
            ensure!(found.len() == expected.len(), "a gradient is missing on one side");
            Ok(found.iter().zip(&expected).map(|(a, b)| apart(a, b)).fold(0.0, f64::max))
        });
    }
    let batch = model::batch("pspnet_r18", None)?;
    for (name, format, limit, changes) in TRAININGS {
        let what = format!("PSPNet-R18, losses of {STEPS} steps: {name}");
        findings.check(&what, limit, || {
            let losses = |device: &Device, changes: &[&str]| -> anyhow::Result<Vec<f64>> {
                // What dropout drops differs from device to device.
                let still =
                    ["model.decode_head.dropout_ratio=0", "model.auxiliary_head.dropout_ratio=0"];
                let mut learner = model::learner_with(
                    "pspnet_r18",
                    Group::alone(),
                    device,
                    &[&still[..], changes].concat(),
                    format,
                )?;
                let step =
                    |iteration| learner.step(&batch, iteration, &[0.001]).map(|losses| losses[0].1);
                Ok((0..STEPS).map(step).collect::<Result<Vec<_>, _>>()?)
            };
            // Half precision is held against single.
            let exact: Vec<&str> = changes
                .iter()
                .copied()
                .filter(|it| limit == LOSS || !it.starts_with("optim_wrapper"))
                .collect();
            let (found, expected) = (losses(&gpu, changes)?, losses(&cpu, &exact)?);
            Ok(found.iter().zip(&expected).map(|(a, b)| (a - b).abs() / b).fold(0.0, f64::max))
        });
    }
    for precision in ["fp32", "amp"] {
        findings.check(&format!("a step in {precision}, with waiting forbidden"), 0.0, || {
            never_waiting(precision, &gpu).map(|()| 0.0)
        });
    }
    if place(&gpu).is_cuda() {
        findings.check("NCCL, all_reduce of one rank", 0.0, nccl);
    } else {
        println!("NCCL: not run, no GPU");
    }
    if !findings.beyond.is_empty() {
        bail!("beyond the limit: {}", findings.beyond.join(", "));
    }
    Ok(())
}

/// Steps in which the host may wait for the device through an event alone; libtorch refuses any
/// other wait, with the operation's name.
fn never_waiting(precision: &str, device: &Device) -> anyhow::Result<()> {
    let changes = [
        precision_of(precision)?,
        &["optim_wrapper.clip_grad._delete_=true", "optim_wrapper.clip_grad.max_norm=35"],
    ]
    .concat();
    let mut learner = model::learner_with(
        "pspnet_r18",
        Group::alone(),
        device,
        &changes,
        MemoryFormat::Contiguous,
    )?;
    let batch = model::batch("pspnet_r18", None)?;
    for iteration in 0..4 {
        // What is kept on the device goes there in the first steps.
        device::forbid_waiting(iteration >= 2)?;
        learner.step(&batch, iteration, &[0.01])?;
    }
    Ok(device::forbid_waiting(false)?)
}

fn precision_of(name: &str) -> anyhow::Result<&'static [&'static str]> {
    match name {
        "fp32" => Ok(&[]),
        "amp" => Ok(&["optim_wrapper.type=AmpOptimWrapper"]),
        other => bail!("{other}: expected fp32 or amp"),
    }
}

/// How far a sum over one rank is from its only part.
fn nccl() -> anyhow::Result<f64> {
    let timeout = Duration::from_mins(1);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let store = Store::serve(listener.into_raw_fd(), port, timeout)?;
    let group = ProcessGroup::nccl(&store, 0, 1, timeout, 0)?;
    let values = tch::Tensor::rand([1 << 20], (tch::Kind::Float, tch::Device::Cuda(0)));
    let sum = group.all_reduce(values.copy(), collective::Reduce::Sum)?.wait()?;
    Ok(apart(&sum, &values))
}

/// Times `steps` train steps of PSPNet-R50 on `images` images of 512×1024, in single or mixed
/// precision; then traces some more: `kernels` is for how many seconds of a step the device runs
/// kernels, `by_name` which ones the longest. In the memory format that a training would take, or
/// in that behind a colon (`fp32:channels_last`).
pub(crate) fn speed(images: usize, mode: &str, steps: usize) -> anyhow::Result<()> {
    const TRACED: u32 = 5;
    const LONGEST: usize = 20;
    let (precision, format) = mode.split_once(':').unwrap_or((mode, "auto"));
    let choice = match format {
        "auto" => MemoryFormatChoice::Auto,
        "contiguous" => MemoryFormatChoice::Contiguous,
        "channels_last" => MemoryFormatChoice::ChannelsLast,
        other => bail!("{other}: expected auto, contiguous or channels_last"),
    };
    let device = ops::device(model::default_gpu()?);
    // cuDNN looks for its fastest algorithms, as mmseg's configs have it.
    tch::Cuda::cudnn_set_benchmark(true);
    let format = decide_memory_format(
        &EnvConfig { memory_format: choice, ..EnvConfig::default() },
        &device,
    )?;
    let changes = precision_of(precision)?;
    let mut learner = model::learner_with(
        "pspnet_r50",
        Group::alone(),
        &device.clone().autodiff(),
        changes,
        format,
    )?;
    let batch = model::batch_of("pspnet_r50", images, (512, 1024));
    let mut iteration = 0;
    let mut step = || {
        learner.step(&batch, iteration, &[0.01])?;
        iteration += 1;
        anyhow::Ok(())
    };
    let seconds = report::timed(steps, &mut step)?;
    let (traced, kernels) = profile::kernels(|| (0..TRACED).try_for_each(|_| step()))?;
    traced?;
    let by_name = kernels.by_name.iter().take(LONGEST).map(|it| {
        json!([
            it.spent.as_secs_f64() * 1e3 / f64::from(TRACED),
            it.count as f64 / f64::from(TRACED),
            it.name
        ])
    });
    let by_name: Vec<_> = by_name.collect();
    report::print(json!({
        "seconds": seconds,
        "images": images,
        "memory_format": format!("{format:?}"),
        "kernels": kernels.busy.as_secs_f64() / f64::from(TRACED),
        "launches": kernels.count as f64 / f64::from(TRACED),
        "by_name": by_name,
    }))
}
