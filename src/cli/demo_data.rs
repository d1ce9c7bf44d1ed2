//! `segslurm demo-data`: a small dataset to try everything with, drawn on the spot.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use serde::{Deserialize, Serialize};

use crate::data::{LabelMap, Raster, scene};
use crate::exit::{Exit, Failure, Within};
use crate::terminal;

/// Draw a small segmentation dataset: textured shapes, six classes, in ADE20K's folders.
///
/// `configs/demo/` trains on it. Images are in images/{training,validation}, label maps in
/// annotations/{training,validation}; in these 0 is "no label" and 1 to 6 are the classes, so
/// datasets on it need `reduce_zero_label: true`. The same options give the same bytes. Environment
/// variables have no effect.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder to make. One that holds such a dataset is replaced; one that holds anything else
    /// is refused.
    dir: PathBuf,
    /// Images in all. A fifth of them are for validation.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..))]
    images: u32,
    /// Width and height of the images.
    #[arg(long, value_name = "WxH", default_value = "160x128", value_parser = parse_size)]
    size: (usize, usize),
    /// Another seed draws other images.
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
}

/// Says what the folder holds, for people and for the next call.
const DESCRIPTION: &str = "dataset.json";

/// What `dataset.json` says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Description {
    made_by: String,
    training: u32,
    validation: u32,
    width: usize,
    height: usize,
    seed: u64,
    /// `reduce_zero_label: true` is needed.
    labels: String,
    classes: Vec<String>,
    palette: Vec<[u8; 3]>,
}

const MADE_BY: &str = "segslurm demo-data, version 1";

pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    let validation = (args.images / 5).max(1);
    let description = Description {
        made_by: MADE_BY.into(),
        training: args.images - validation,
        validation,
        width: args.size.0,
        height: args.size.1,
        seed: args.seed,
        labels: "0 is no label, 1 to 6 are the classes: reduce_zero_label: true".into(),
        classes: scene::CLASSES.map(str::to_owned).to_vec(),
        palette: scene::PALETTE.to_vec(),
    };
    let place = format!(
        "{} ({} training, {validation} validation)",
        args.dir.display(),
        description.training
    );
    if found(&args.dir)?.is_some_and(|there| there == description) {
        terminal::print(format!("the demo dataset is there already: {place}\n"))?;
        return Ok(Exit::Done);
    }
    write(&args.dir, &description).within("the demo dataset was not made")?;
    terminal::print(format!("made the demo dataset: {place}\n"))?;
    Ok(Exit::Done)
}

/// The description of what is in `dir`, if there is anything. Files that are not ours are an error.
fn found(dir: &Path) -> Result<Option<Description>, Failure> {
    if !dir.exists() {
        return Ok(None);
    }
    let refuse = |reason: &str| {
        let message =
            format!("{} {reason}; give another folder, or remove this one", dir.display());
        Err(Failure::new(Exit::CannotWrite, message))
    };
    if !dir.is_dir() {
        return refuse("is not a folder");
    }
    if fs::read_dir(dir).map_err(failed("list", dir))?.next().is_none() {
        return Ok(None);
    }
    let text = fs::read_to_string(dir.join(DESCRIPTION)).unwrap_or_default();
    match serde_json::from_str::<Description>(&text) {
        Ok(description) if description.made_by.starts_with("segslurm demo-data") => {
            Ok(Some(description))
        }
        _ => refuse("is not empty and holds no demo dataset"),
    }
}

fn failed<E: Display>(to_do: &str, path: &Path) -> impl FnOnce(E) -> Failure {
    move |error| {
        Failure::new(Exit::CannotWrite, format!("failed to {to_do} {}: {error}", path.display()))
    }
}

/// Draws everything beside `dir`, then puts it there, so that an interrupted call leaves no half of
/// a dataset.
fn write(dir: &Path, description: &Description) -> Result<(), Failure> {
    let name = dir
        .file_name()
        .ok_or_else(|| Failure::new(Exit::Usage, "the folder needs a name"))?
        .to_string_lossy();
    let partial = dir.with_file_name(format!(".{name}.partial-{}", std::process::id()));
    let outcome = fill(&partial, description).and_then(|()| {
        if dir.exists() {
            fs::remove_dir_all(dir).map_err(failed("remove", dir))?;
        }
        fs::rename(&partial, dir).map_err(failed("create", dir))
    });
    if outcome.is_err() {
        // The error that is on its way says more than a second one would.
        let _ = fs::remove_dir_all(&partial);
    }
    outcome
}

fn fill(dir: &Path, description: &Description) -> Result<(), Failure> {
    let mut number = 0;
    for (split, count) in
        [("training", description.training), ("validation", description.validation)]
    {
        let images = dir.join("images").join(split);
        let annotations = dir.join("annotations").join(split);
        for folder in [&images, &annotations] {
            fs::create_dir_all(folder).map_err(failed("create", folder))?;
        }
        for index in 1..=count {
            let (image, label) =
                scene::draw(description.seed, number, description.height, description.width);
            number += 1;
            let name = format!("demo_{split}_{index:05}");
            write_jpeg(&images.join(format!("{name}.jpg")), &image)?;
            write_png(&annotations.join(format!("{name}.png")), &label)?;
        }
    }
    let path = dir.join(DESCRIPTION);
    let text = serde_json::to_string_pretty(description).map_err(Failure::fault)? + "\n";
    fs::write(&path, text).map_err(failed("write", &path))
}

fn write_jpeg(path: &Path, image: &Raster<3>) -> Result<(), Failure> {
    let mut encoder = Encoder::new_file(path, 92).map_err(failed("write", path))?;
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    let (width, height) = (image.width as u16, image.height as u16);
    encoder.encode(&image.data, width, height, ColorType::Rgb).map_err(failed("write", path))
}

fn write_png(path: &Path, label: &LabelMap) -> Result<(), Failure> {
    let file = BufWriter::new(File::create(path).map_err(failed("write", path))?);
    let mut encoder = png::Encoder::new(file, label.width as u32, label.height as u32);
    encoder.set_color(png::ColorType::Grayscale);
    let mut writer = encoder.write_header().map_err(failed("write", path))?;
    writer.write_image_data(&label.data).map_err(failed("write", path))?;
    writer.finish().map_err(failed("write", path))
}

fn parse_size(text: &str) -> Result<(usize, usize), String> {
    let sides = text
        .split_once('x')
        .and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    match sides {
        Some((width, height)) if (16..=8192).contains(&width) && (16..=8192).contains(&height) => {
            Ok((width, height))
        }
        _ => Err("expected WIDTHxHEIGHT in pixels, 16 to 8192 each, such as 160x128".to_owned()),
    }
}
