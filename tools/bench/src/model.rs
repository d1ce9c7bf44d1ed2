//! The models under test, from the configs beside this file, and one batch for each: the shapes of
//! `scripts/bench/side.py`.

use std::path::Path;

use anyhow::Context;
use burn::tensor::Device;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use segslurm::data::{Batch, Image, LabelMap, Meta, Sample};
use segslurm::ops::{self, MemoryFormat};
use segslurm::testing::config;
use segslurm::testing::dist::{Accelerator, Group, Launcher};
use segslurm::testing::experiment::Experiment;
use segslurm::testing::runner::Learner;

/// Images in a batch, and their height and width.
fn shape(model: &str) -> anyhow::Result<(usize, usize, usize)> {
    match model {
        "pspnet_r18" => Ok((4, 128, 128)),
        "pspnet_r50" => Ok((2, 256, 256)),
        _ => anyhow::bail!("there is no model {model}; expected pspnet_r18 or pspnet_r50"),
    }
}

/// The config's model, its optimizer, and what else takes part in a step.
pub(crate) fn learner(model: &str, group: Group, gpu: Option<usize>) -> anyhow::Result<Learner> {
    let device = ops::device(gpu).autodiff();
    learner_with(model, group, &device, &[], MemoryFormat::Contiguous)
}

/// The first GPU where there is one, else the CPU.
pub(crate) fn default_gpu() -> anyhow::Result<Option<usize>> {
    let accelerator = Accelerator::find(&|name| std::env::var(name).ok(), Launcher::None)?;
    Ok((accelerator.gpus > 0).then_some(0))
}

/// The same on an autodiff device of one's choice, with changes of the config, in a memory format.
pub(crate) fn learner_with(
    model: &str,
    group: Group,
    device: &Device,
    changes: &[&str],
    format: MemoryFormat,
) -> anyhow::Result<Learner> {
    // A binary that was carried to another machine has its configs below the folder that it is
    // started in.
    let folders = [Path::new("tools/bench"), Path::new(env!("CARGO_MANIFEST_DIR"))];
    let mut paths = folders.into_iter().map(|it| it.join(format!("{model}.yaml")));
    let path = paths.find(|it| it.exists()).context("start it in the project's root")?;
    let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
    let experiment = Experiment::from_config(&config::load(&path, &changes)?)?;
    let optim_wrapper =
        experiment.optim_wrapper.as_ref().context("the config has no optim_wrapper")?;
    Ok(Learner::new(&experiment.model, optim_wrapper, device, &group, 1, 80_000, format)?)
}

/// Bytes that training images could have, and labels of every class. `images` in place of the
/// model's own number.
pub(crate) fn batch(model: &str, images: Option<usize>) -> anyhow::Result<Batch> {
    let (n, height, width) = shape(model)?;
    Ok(batch_of(model, images.unwrap_or(n), (height, width)))
}

/// The same of any size.
pub(crate) fn batch_of(model: &str, images: usize, (height, width): (usize, usize)) -> Batch {
    let classes = if model == "pspnet_r50" { 150 } else { 19 };
    let mut random = StdRng::seed_from_u64(5);
    let sample = |sample_idx| {
        let mut pixels = vec![0; height * width * 3];
        random.fill_bytes(&mut pixels);
        let mut labels = vec![0; height * width];
        random.fill_bytes(&mut labels);
        labels.iter_mut().for_each(|it| *it %= classes);
        Sample {
            image: Image { height, width, data: pixels },
            label: Some(LabelMap { height, width, data: labels }),
            meta: Meta {
                img_path: "made".into(),
                seg_map_path: None,
                ori_shape: (height, width),
                img_shape: (height, width),
                pad_shape: (height, width),
                scale_factor: None,
                flip: false,
                flip_direction: None,
                reduce_zero_label: false,
                sample_idx,
                padding: false,
            },
        }
    };
    Batch { samples: (0..images).map(sample).collect() }
}
