//! The floor under the transforms: reading and decoding alone, whole files, in one thread.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use segslurm::data::{read_image, read_label};
use serde_json::{Map, json};

use crate::report;

pub(crate) fn run(folder: &Path) -> anyhow::Result<()> {
    let mut figures = Map::new();
    for (name, place, is_label) in [
        ("ade20k image", "ade/images/training", false),
        ("ade20k label", "ade/annotations/training", true),
        ("cityscapes image", "cityscapes/leftImg8bit/train/a", false),
        ("cityscapes label", "cityscapes/gtFine/train/a", true),
    ] {
        let place = folder.join(place);
        let entries = std::fs::read_dir(&place).with_context(|| place.display().to_string())?;
        let files: Vec<PathBuf> =
            entries.map(|it| Ok(it?.path())).collect::<anyhow::Result<_>>()?;
        let mut best = f64::INFINITY;
        for _ in 0..5 {
            let start = Instant::now();
            for file in &files {
                if is_label {
                    read_label(file)?;
                } else {
                    read_image(file)?;
                }
            }
            best = best.min(start.elapsed().as_secs_f64() / files.len() as f64);
        }
        figures.insert(name.into(), json!(best * 1e3));
    }
    report::print(json!({ "milliseconds": figures }))
}
