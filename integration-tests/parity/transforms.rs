//! Every transform with its random choices given, and the two training recipes as chains of them.

use std::path::Path;

use segslurm::data::transform::{Distortion, Entry, LabelRule};
use segslurm::data::{
    FlipDirection, Image, Interpolation, LabelMap, Pipeline, Raster, Rect, Sample, Transform, View,
    read_image, rescaled, sample_rng,
};
use serde_json::{Value, json};

use crate::peer::{self, Figures};

#[test]
#[ignore = "compares with the peer's results: make parity"]
fn transforms_give_mmsegs_pixels() {
    let mut figures = Figures::new("transforms");
    let tensors = peer::tensors("transforms/samples.safetensors");
    let mut worst: Vec<(String, f64, f64)> = Vec::new();
    for case in peer::list(&peer::json("transforms/index.json")) {
        let name = peer::text(&case["name"]);
        let kind = name.rsplit_once('.').map_or(name, |it| it.0).to_owned();
        let raster = |when: &str| -> (Image, LabelMap) {
            (
                peer::raster(&tensors[&format!("{name}.{when}.image")]),
                peer::raster(&tensors[&format!("{name}.{when}.label")]),
            )
        };
        let (image, label) = transformed(case, raster("before"));
        let (their_image, their_label) = raster("after");
        assert_eq!(
            (image.shape(), label.shape()),
            (their_image.shape(), their_label.shape()),
            "{name}"
        );
        let levels = image
            .data
            .iter()
            .zip(&their_image.data)
            .map(|(a, b)| a.abs_diff(*b))
            .max()
            .unwrap_or(0);
        let labels = label.data.iter().zip(&their_label.data).filter(|(a, b)| a != b).count();
        match worst.iter_mut().find(|it| it.0 == kind) {
            Some(it) => (it.1, it.2) = (it.1.max(f64::from(levels)), it.2 + labels as f64),
            None => worst.push((kind, f64::from(levels), labels as f64)),
        }
    }
    for (kind, levels, labels) in worst {
        figures.at_most(&format!("{kind}: grey levels apart"), levels, 1.0);
        figures.at_most(&format!("{kind}: labels that differ"), labels, 0.0);
    }
    figures.done();
}

/// A recipe is a list of transforms with a list of what they chose.
fn transformed(case: &Value, (image, label): (Image, LabelMap)) -> (Image, LabelMap) {
    let (transform, chosen) = (&case["transform"], &case["chosen"]);
    if !transform.is_array() {
        return one(transform, chosen, (image, label));
    }
    // On views, as in a pipeline, so that geometry is planned before pixels are touched.
    let (mut image, mut label) = (View::from(image), View::from(label));
    for (transform, chosen) in peer::list(transform).iter().zip(peer::list(chosen)) {
        match peer::text(&transform["type"]) {
            "RandomResize" => {
                let (height, width) = image.shape();
                let (width, height) = rescaled((width, height), peer::pair(&chosen["scale"]));
                image.resize((height, width), Interpolation::Bilinear).expect("resizes");
                label.resize((height, width), Interpolation::Nearest).expect("resizes");
            }
            "RandomCrop" => {
                image.crop(rect(chosen));
                label.crop(rect(chosen));
            }
            "RandomFlip" => {
                if let Some(direction) = direction(chosen) {
                    image.flip(direction);
                    label.flip(direction);
                }
            }
            "PhotoMetricDistortion" => {
                let mut pixels = image.into_raster().expect("renders");
                distortion(chosen).apply(&mut pixels);
                image = pixels.into();
            }
            other => panic!("a recipe with {other}"),
        }
    }
    (image.into_raster().expect("renders"), label.into_raster().expect("renders"))
}

fn one(transform: &Value, chosen: &Value, (image, label): (Image, LabelMap)) -> (Image, LabelMap) {
    match peer::text(&transform["type"]) {
        "RandomResize" => pipeline(
            json!({"type": "Resize", "scale": chosen["scale"], "keep_ratio": true}),
            &image,
            &label,
        ),
        "RandomChoiceResize" => {
            // What the peer tells is the size that it came to.
            let shorter = peer::list(&chosen["scale"]).iter().map(peer::size).min();
            pipeline(
                json!({"type": "RandomChoiceResize", "scales": [shorter], "resize_type": transform["resize_type"], "max_size": transform["max_size"]}),
                &image,
                &label,
            )
        }
        "RandomCrop" => {
            let (mut image, mut label) = (View::from(image), View::from(label));
            image.crop(rect(chosen));
            label.crop(rect(chosen));
            (image.into_raster().expect("renders"), label.into_raster().expect("renders"))
        }
        "PhotoMetricDistortion" => {
            let mut image = image;
            distortion(chosen).apply(&mut image);
            (image, label)
        }
        _ => pipeline(transform.clone(), &image, &label),
    }
}

/// Files through a real pipeline of loading and one transform.
fn pipeline(transform: Value, image: &Image, label: &LabelMap) -> (Image, LabelMap) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (img_path, seg_map_path) =
        (folder.path().join("image.png"), folder.path().join("label.png"));
    let rgb: Vec<u8> = image.data.chunks(3).flat_map(|it| [it[2], it[1], it[0]]).collect();
    write_png(
        &img_path,
        &Image { data: rgb, height: image.height, width: image.width },
        png::ColorType::Rgb,
    );
    write_png(&seg_map_path, label, png::ColorType::Grayscale);
    let steps = json!([{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}, transform, {"type": "PackSegInputs"}]);
    let steps: Vec<Transform> = peer::section(&steps);
    let rule = LabelRule {
        reduce_zero_label: false,
        label_map: None,
        ignore_index: 255,
        num_classes: None,
    };
    let pipeline = Pipeline::init(steps).expect("a pipeline");
    let entry =
        Entry { index: 0, img_path: &img_path, seg_map_path: Some(&seg_map_path), rule: &rule };
    let Sample { image, label, .. } =
        pipeline.run(entry, &mut sample_rng(0, 0, 0, 0)).expect("runs").remove(0);
    (image, label.expect("labels"))
}

fn write_png<const C: usize>(path: &Path, raster: &Raster<C>, colour: png::ColorType) {
    let file = std::fs::File::create(path).expect("a file");
    let mut encoder = png::Encoder::new(file, raster.width as u32, raster.height as u32);
    encoder.set_color(colour);
    encoder
        .write_header()
        .and_then(|mut writer| writer.write_image_data(&raster.data))
        .expect("writes");
}

fn rect(chosen: &Value) -> Rect {
    let part = |name: &str| peer::size(&chosen[name]);
    Rect { top: part("top"), left: part("left"), height: part("height"), width: part("width") }
}

fn direction(chosen: &Value) -> Option<FlipDirection> {
    (!chosen["direction"].is_null()).then(|| peer::section(&chosen["direction"]))
}

fn distortion(chosen: &Value) -> Distortion {
    let value = |name: &str| chosen[name].as_f64().map(|it| it as f32);
    Distortion {
        brightness: value("brightness"),
        contrast: value("contrast"),
        contrast_first: chosen["contrast_first"].as_bool().expect("true or false"),
        saturation: value("saturation"),
        hue: chosen["hue"].as_i64().map(|it| it as i32),
    }
}

#[test]
#[ignore = "compares with the peer's results: make parity"]
fn files_decode_to_opencvs_pixels() {
    let mut figures = Figures::new("decoding");
    let tensors = peer::tensors("transforms/samples.safetensors");
    for (name, theirs) in
        tensors.iter().filter_map(|(name, tensor)| Some((name.strip_prefix("decoded.")?, tensor)))
    {
        let ours = read_image(&peer::path(&format!("transforms/{name}"))).expect("decodes");
        let theirs: Image = peer::raster(theirs);
        assert_eq!(ours.shape(), theirs.shape(), "{name}");
        let levels =
            ours.data.iter().zip(&theirs.data).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0);
        figures.at_most(&format!("{name}: grey levels apart"), f64::from(levels), 0.0);
    }
    figures.done();
}
