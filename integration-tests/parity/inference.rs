//! Logits and label maps of whole and slide inference, from mmseg's checkpoints.

use burn::module::Module;
use segslurm::data::Raster;
use segslurm::models::{Forward, Geometry, SegmentorConfig};
use segslurm::ops;
use serde_json::{Value, json};

use crate::learning::{cpu, load, pixels};
use crate::peer::{self, Figures};

#[test]
#[ignore = "compares with the peer's results: make parity"]
fn logits_and_label_maps_are_mmsegs() {
    let mut figures = Figures::new("inference");
    for run in peer::list(&peer::json("models/index.json")) {
        let (name, size) = (peer::text(&run["model"]), peer::text(&run["run"]));
        let tensors = peer::tensors(&format!("models/{name}/{size}.safetensors"));
        for mode in ["whole", "slide"] {
            compare(&mut figures, run, mode, &tensors);
        }
    }
    figures.done();
}

fn compare(
    figures: &mut Figures,
    run: &Value,
    mode: &str,
    tensors: &segslurm::testing::checkpoint::StateDict,
) {
    let (name, size) = (peer::text(&run["model"]), peer::text(&run["run"]));
    let what = |part: &str| format!("{name}, {size}, {mode}: {part}");
    let mut section = peer::yaml(&format!("models/{name}/config.yaml"))["model"].clone();
    if mode == "slide" {
        section["test_cfg"] =
            json!({"mode": "slide", "crop_size": run["crop_size"], "stride": run["stride"]});
    }
    if !run["size_divisor"].is_null() {
        section["data_preprocessor"]["test_cfg"] = json!({"size_divisor": run["size_divisor"]});
    }
    let model: SegmentorConfig = peer::section(&section);
    let segmentor = model.init(&cpu(), 0).expect("builds");
    load(&segmentor, &peer::tensors(&format!("models/{name}/checkpoint.pth")));
    let segmentor = segmentor.valid();

    let count = peer::list(&run["ori_shapes"]).len();
    let pictures: Vec<Raster<3>> =
        (0..count).map(|index| peer::raster(&tensors[&format!("image.{index}")])).collect();
    let preprocessor = model.preprocessor().expect("builds");
    let images = preprocessor
        .testing(&pictures.iter().map(pixels).collect::<Vec<_>>(), &cpu())
        .expect("a batch");
    figures.at_most(
        &what("preprocessed images"),
        peer::apart(&ops::to_tch(&images), &tensors["input"]),
        1e-5,
    );
    let logits = ops::to_tch(&segmentor.infer(images.clone(), &Forward::default()));
    figures.at_most(
        &what("logits"),
        peer::apart(&logits, &tensors[&format!("{mode}.logits")]),
        1e-3,
    );

    let geometry: Vec<_> = pictures
        .iter()
        .zip(peer::list(&run["ori_shapes"]))
        .map(|(picture, ori)| Geometry {
            img_shape: picture.shape().into(),
            ori_shape: peer::pair(ori).into(),
            flip: None,
        })
        .collect();
    let (mut equal, mut all) = (0, 0);
    for (index, ours) in
        segmentor.label_maps(images, &geometry, &Forward::default()).into_iter().enumerate()
    {
        let theirs: Raster<1> = peer::raster(&tensors[&format!("{mode}.labels.{index}")]);
        assert_eq!((ours.height, ours.width), theirs.shape());
        equal += ours.data.iter().zip(&theirs.data).filter(|(ours, theirs)| ours == theirs).count();
        all += theirs.data.len();
    }
    figures.at_least(&what("equal labels in percent"), 100.0 * equal as f64 / all as f64, 99.99);
}

#[test]
#[ignore = "compares with the peer's results: make parity"]
fn state_dicts_have_mmsegs_names_shapes_and_types() {
    for (folder, name) in [
        ("models", "pspnet_r18"),
        ("models", "pspnet_r50"),
        ("models", "pspnet_r101"),
        ("models", "fcn_r50"),
        ("training", "frozen_norm_eval_v1d"),
    ] {
        let model: SegmentorConfig =
            peer::section(&peer::yaml(&format!("{folder}/{name}/config.yaml"))["model"]);
        let described = |name: &str, tensor: &tch::Tensor| {
            format!("{name} {:?} {:?}", tensor.size(), tensor.kind())
        };
        let ours = model.init(&cpu(), 0).expect("builds").weights();
        let mut ours: Vec<_> = ours.iter().map(|it| described(&it.name, &it.tensor)).collect();
        ours.sort();
        let theirs = peer::tensors(&format!("{folder}/{name}/checkpoint.pth"));
        let mut theirs: Vec<_> =
            theirs.iter().map(|(name, tensor)| described(name, tensor)).collect();
        theirs.sort();
        println!("state dict: {name}: {} tensors", theirs.len());
        assert_eq!(ours, theirs, "{name}");
    }
}
