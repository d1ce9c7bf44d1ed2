//! The loader with two workers, alone and in front of a training: how many images a second, and how
//! long steps wait for it.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use segslurm::data::{DataloaderConfig, Loader, LoaderOptions};
use segslurm::testing::config;
use serde_json::json;

use crate::{report, transforms};

pub(crate) fn run(recipe: &str, folder: &Path, images: usize) -> anyhow::Result<()> {
    let dataset = transforms::config(recipe, folder)?;
    let mut loader: DataloaderConfig = config::parse_str(&format!(
        "batch_size: 4
num_workers: 2
sampler: {{type: InfiniteSampler, shuffle: true}}
dataset: {{type: ADE20KDataset, data_root: {}, data_prefix: {{img_path: images/training}}}}
",
        folder.display()
    ))?;
    loader.dataset = dataset;
    let dataset = Arc::new(loader.dataset.init()?);
    let mut batches = Loader::new(
        dataset,
        &loader,
        &LoaderOptions { seed: 1, repeat: true, ..LoaderOptions::default() },
    )?;
    let mut take = || batches.next().expect("the sampler is infinite");
    for _ in 0..2 {
        take()?;
    }
    let (start, cpu) = (Instant::now(), report::cpu_seconds()?);
    for _ in 0..images / 4 {
        take()?;
    }
    let (wall, cpu) = (start.elapsed().as_secs_f64(), report::cpu_seconds()? - cpu);
    report::print(json!({ "images": images / 4 * 4, "wall": wall, "cpu": cpu }))
}
