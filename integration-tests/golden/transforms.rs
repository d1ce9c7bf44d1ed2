//! Resizing and photometric distortion as OpenCV and mmseg computed them, and mmseg's names of
//! tensors (`transforms.py`).

use segslurm::data::transform::Distortion;
use segslurm::data::{Interpolation, LabelMap, Raster, View};
use segslurm::models::SegmentorConfig;
use segslurm::testing::config;
use serde_json::Value;

use super::{bytes, golden, integer, noise, shape};
use crate::learning::cpu;

fn resized<const C: usize>(
    raster: Raster<C>,
    to: (usize, usize),
    interpolation: Interpolation,
) -> Raster<C> {
    let mut view = View::from(raster);
    view.resize(to, interpolation).expect("resizes");
    view.into_raster().expect("renders")
}

#[track_caller]
fn within(what: &str, ours: &[u8], golden: &[u8], levels: u8) {
    assert_eq!(ours.len(), golden.len(), "{what}");
    let worst = ours.iter().zip(golden).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0);
    assert!(worst <= levels, "{what}: {worst} grey levels apart");
}

#[test]
fn resizing_gives_opencvs_pixels() {
    for case in golden!("transforms.json")["resize"].as_array().expect("cases") {
        let name = case["name"].as_str().expect("a name");
        let ((height, width), target) = (shape(&case["source"]), shape(&case["target"]));
        let image = resized(
            noise::<3>(&format!("image {name}"), height, width),
            target,
            Interpolation::Bilinear,
        );
        within(name, &image.data, &bytes(&case["bilinear"]), 1);
        let others = [
            ("bicubic", Interpolation::Bicubic),
            ("area", Interpolation::Area),
            ("lanczos", Interpolation::Lanczos),
        ];
        for (method, interpolation) in others {
            let image =
                resized(noise::<3>(&format!("image {name}"), height, width), target, interpolation);
            within(&format!("{name}, {method}"), &image.data, &bytes(&case[method]), 1);
        }
        let label = resized(
            noise::<1>(&format!("label {name}"), height, width),
            target,
            Interpolation::Nearest,
        );
        assert_eq!(label.data, bytes(&case["nearest"]), "{name}");
    }
}

#[test]
fn label_maps_take_opencvs_neighbours_at_awkward_ratios() {
    for case in golden!("transforms.json")["nearest"].as_array().expect("cases") {
        let (source, target) = (integer(&case["source"]), integer(&case["target"]));
        let part = |shift: usize| {
            let row = LabelMap {
                height: 1,
                width: source,
                data: (0..source).map(|it| (it >> shift) as u8).collect(),
            };
            resized(row, (1, target), Interpolation::Nearest).data
        };
        let found: Vec<u8> =
            part(0).into_iter().zip(part(8)).flat_map(|(low, high)| [low, high]).collect();
        assert_eq!(
            crc32fast::hash(&found) as usize,
            integer(&case["crc"]),
            "from {source} to {target}"
        );
    }
}

#[test]
fn colours_are_distorted_as_mmseg_does_it() {
    for case in golden!("transforms.json")["photometric"].as_array().expect("cases") {
        let value = |name: &str| case[name].as_f64().map(|it| it as f32);
        let distortion = Distortion {
            brightness: value("brightness"),
            contrast: value("contrast"),
            contrast_first: case["contrast_first"].as_bool().expect("true or false"),
            saturation: value("saturation"),
            hue: case["hue"].as_i64().map(|it| it as i32),
        };
        let mut image = noise("photometric", 8, 12);
        distortion.apply(&mut image);
        within(&format!("{distortion:?}"), &image.data, &bytes(&case["image"]), 1);
    }
}

#[test]
fn tensors_have_mmsegs_names_shapes_and_order() {
    for (name, case) in golden!("state_dicts.json").as_object().expect("cases") {
        let model: SegmentorConfig =
            config::parse_str(&case["model"].to_string()).expect("a model");
        let tensors = model.init(&cpu(), 0).expect("builds").weights();
        if let Some(names) = case["names"].as_array() {
            let names: Vec<_> = names.iter().filter_map(Value::as_str).collect();
            assert_eq!(
                tensors.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(),
                names,
                "{name}"
            );
        }
        assert_eq!(tensors.len(), integer(&case["tensors"]), "{name}");
        let text: String =
            tensors.iter().map(|it| format!("{} {:?}\n", it.name, it.tensor.size())).collect();
        assert_eq!(crc32fast::hash(text.as_bytes()) as usize, integer(&case["crc"]), "{name}");
    }
}
