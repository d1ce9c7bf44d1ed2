//! Training transforms, files to packed samples, in one thread.

use std::path::Path;
use std::time::Instant;

use anyhow::bail;
use segslurm::data::{Dataset, DatasetConfig, sample_rng};
use segslurm::testing::config;
use serde_json::json;

use crate::report;

pub(crate) fn run(recipe: &str, folder: &Path, images: usize) -> anyhow::Result<()> {
    let dataset = dataset(recipe, folder)?;
    let make = |index: usize| -> anyhow::Result<()> {
        let index = index % dataset.len();
        dataset.samples(index, &mut sample_rng(1, 0, index as u64, index))?;
        Ok(())
    };
    (0..4).try_for_each(make)?;
    let (start, cpu) = (Instant::now(), report::cpu_seconds()?);
    (0..images).try_for_each(make)?;
    let (wall, cpu) = (start.elapsed().as_secs_f64(), report::cpu_seconds()? - cpu);
    report::print(json!({ "images": images, "wall": wall, "cpu": cpu }))
}

/// The recipes of `scripts/bench/transforms.py` over the made images in `folder`.
pub(crate) fn dataset(recipe: &str, folder: &Path) -> anyhow::Result<Dataset> {
    Ok(config(recipe, folder)?.init()?)
}

pub(crate) fn config(recipe: &str, folder: &Path) -> anyhow::Result<DatasetConfig> {
    let (kind, images, labels, scale, crop) = match recipe {
        "ade20k" => {
            ("ADE20KDataset", "images/training", "annotations/training", [2048, 512], [512, 512])
        }
        "cityscapes" => {
            ("CityscapesDataset", "leftImg8bit/train", "gtFine/train", [2048, 1024], [512, 1024])
        }
        _ => bail!("there is no recipe {recipe}; expected ade20k or cityscapes"),
    };
    Ok(config::parse_str(&format!(
        "type: {kind}
data_root: {}
data_prefix: {{img_path: {images}, seg_map_path: {labels}}}
pipeline:
  - {{type: LoadImageFromFile}}
  - {{type: LoadAnnotations}}
  - {{type: RandomResize, scale: {scale:?}, ratio_range: [0.5, 2.0], keep_ratio: true}}
  - {{type: RandomCrop, crop_size: {crop:?}, cat_max_ratio: 0.75}}
  - {{type: RandomFlip, prob: 0.5}}
  - {{type: PhotoMetricDistortion}}
  - {{type: PackSegInputs}}
",
        folder.display()
    ))?)
}
