//! Mistakes that people make in configs, each told with its place before any queue, device or file
//! is touched.

use std::path::Path;

use super::Experiment;
use crate::config;
use crate::exit::Exit;

const DEMO: &str = "configs/demo/pspnet_r18-d8_demo-128x128.yaml";

/// A U-Net with heads that fit it, more keys of the backbone's, and more changes.
macro_rules! unet {
    ($keys:literal, $more:literal) => {
        concat!(
            "model.backbone={type: UNet, base_channels: 8",
            $keys,
            "} model.decode_head.in_channels=8 model.decode_head.in_index=4 \
             model.auxiliary_head.in_channels=16 model.auxiliary_head.in_index=3",
            $more
        )
    };
}

/// One change of the demo config, and what the error has to say.
const MUTATIONS: &[(&str, &str)] = &[
    // Channels and maps.
    ("model.decode_head.in_channels=2048", "model.decode_head.in_channels: expects 2048 channels"),
    (
        "model.auxiliary_head.in_channels=1024",
        "model.auxiliary_head.in_channels: expects 1024 channels",
    ),
    ("model.decode_head.in_index=4", "model.decode_head.in_index: there is no feature map 4"),
    ("model.decode_head.in_index=[0,1]", "model.decode_head.in_index"),
    (
        "model.auxiliary_head.in_index=-5",
        "model.auxiliary_head.in_index: there is no feature map -5",
    ),
    ("model.decode_head.input_transform=multiple_select", "model.decode_head.input_transform"),
    ("model.decode_head.channels=0", "model.decode_head.channels"),
    ("model.decode_head.pool_scales=[]", "model.decode_head.pool_scales"),
    ("model.decode_head.pool_scales=[1,0]", "model.decode_head.pool_scales"),
    (
        "model.auxiliary_head.kernel_size=2",
        "model.auxiliary_head.kernel_size: expected an odd number",
    ),
    ("model.auxiliary_head.num_convs=0", "model.auxiliary_head.channels"),
    (
        "model.backbone.in_channels=1",
        "model.backbone.in_channels: is 1, but images have 3 channels",
    ),
    ("model.backbone.depth=20", "model.backbone.depth: no ResNet has depth 20"),
    ("model.backbone.out_indices=[0,1,2]", "model.decode_head.in_index: there is no feature map 3"),
    ("model.backbone.out_indices=[0,5]", "model.backbone.out_indices: there is no stage 5"),
    (
        "model.backbone.strides=[1,2,1]",
        "model.backbone.strides: expected one value for each of the 4 stages",
    ),
    (
        "model.backbone.dilations=[1,1]",
        "model.backbone.dilations: expected one value for each of the 4 stages",
    ),
    ("model.backbone.num_stages=5", "model.backbone.num_stages: expected 1 to 4"),
    ("model.backbone.frozen_stages=9", "model.backbone.frozen_stages: expected -1 to 4"),
    ("model.backbone.multi_grid=[1]", "model.backbone.multi_grid"),
    ("model.backbone.type=ResNet152", "ResNet152"),
    // A backbone with sizes of its own.
    (
        unet!("", " model.data_preprocessor.size=[128,120]"),
        "model.data_preprocessor.size: is 128x120, and the backbone takes sides that are multiples of 16",
    ),
    (
        unet!(
            "",
            " model.test_cfg.mode=slide model.test_cfg.crop_size=[100,96] model.test_cfg.stride=[64,64]"
        ),
        "model.test_cfg.crop_size: is 100x96",
    ),
    (unet!(", strides: [1,1,1,1,3]", ""), "model.backbone.strides: the decoder doubles sizes"),
    (
        unet!(", downsamples: [true]", ""),
        "model.backbone.downsamples: expected 4 values for num_stages 5",
    ),
    (
        unet!(", upsample_cfg: {type: DeconvModule, kernel_size: 3}", ""),
        "model.backbone.upsample_cfg.kernel_size: expected scale_factor, 2",
    ),
    (
        unet!(", upsample_cfg: {type: InterpConv, kernel_size: 3}", ""),
        "model.backbone.upsample_cfg.padding: 0 with a kernel of 3 changes the size",
    ),
    (
        unet!(", upsample_cfg: {type: InterpConv, stride: 2}", ""),
        "model.backbone.upsample_cfg: each stage halves the size",
    ),
    (unet!(", upsample_cfg: {type: PixelShuffle}", ""), "PixelShuffle"),
    // Norms, activations, parts that are not there.
    ("model.decode_head.norm_cfg={type: GN, num_groups: 7}", "7 groups do not divide"),
    ("model.decode_head.norm_cfg={type: GN}", "num_groups"),
    ("model.decode_head.norm_cfg={type: LN}", "take LN2d"),
    ("model.backbone.norm_cfg={type: GN, num_groups: 48}", "48 groups do not divide"),
    ("model.decode_head.norm_cfg={type: BatchNorm}", "BatchNorm"),
    ("model.decode_head.act_cfg={type: Relu}", "did you mean `ReLU`?"),
    ("model.decode_head.act_cfg={type: LeakyReLU, slope: 0.1}", "slope"),
    (
        "model.neck={type: FPN, in_channels: [64, 128], out_channels: 16, num_outs: 2}",
        "model.neck.in_channels: is [64, 128]",
    ),
    (
        "model.neck={type: FPN, in_channels: [64, 128, 256, 512], out_channels: 16, num_outs: 2}",
        "model.neck.num_outs",
    ),
    ("model.neck={type: FPM}", "FPM"),
    ("model.type=CascadeEncoderDecoder", "num_stages"),
    ("model.decode_head.type=ASPPHed", "did you mean `ASPPHead`?"),
    (
        "model.decode_head.sampler={type: OHEMPixelSampler, min_kept: 1}",
        "model.decode_head.sampler.min_kept",
    ),
    // Classes and losses.
    ("model.decode_head.num_classes=300", "num_classes"),
    ("model.decode_head.num_classes=1", "model.decode_head.num_classes is 1"),
    ("model.auxiliary_head.num_classes=5", "model.auxiliary_head.num_classes is 5"),
    ("model.decode_head.out_channels=3", "model.decode_head.out_channels"),
    ("model.decode_head.dropout_ratio=1.5", "model.decode_head.dropout_ratio"),
    ("model.decode_head.loss_decode=[]", "loss_decode"),
    (
        "model.decode_head.loss_decode={type: CrossEntropyLoss, class_weight: [1, 2]}",
        "expected 6 weights",
    ),
    ("model.decode_head.loss_decode={type: CrossEntropyLoss, use_mask: true}", "use_mask"),
    (
        "model.decode_head.loss_decode={type: CrossEntropyLoss, loss_name: ce}",
        "would be logged but not trained on",
    ),
    ("model.decode_head.loss_decode={type: FocalLos}", "FocalLos"),
    ("model.decode_head.ignore_index=0", "ignore_index"),
    // Tests and pixels.
    ("model.test_cfg={mode: slide}", "model.test_cfg.stride"),
    (
        "model.test_cfg={mode: slide, crop_size: [64, 64], stride: [96, 64]}",
        "some pixels would be in no window",
    ),
    ("model.test_cfg.mode=windows", "windows"),
    ("model.data_preprocessor.mean=[1.0,2.0]", "model.data_preprocessor.mean: expected 3 numbers"),
    (
        "model.data_preprocessor.std=[0,1,1]",
        "model.data_preprocessor.std: expected positive numbers",
    ),
    ("model.data_preprocessor.rgb_to_bgr=true", "cannot be true together with bgr_to_rgb"),
    ("model.data_preprocessor.size_divisor=32", "model.data_preprocessor.size_divisor"),
    // Weights.
    (
        "model.pretrained=a.pth model.backbone.pretrained=b.pth",
        "names weights, but so does pretrained",
    ),
    (
        "model.decode_head.init_cfg={type: Pretrained, checkpoint: a.pth}",
        "weights for one head alone are not read",
    ),
    ("model.init_cfg={type: Normal, layer: Conv3d}", "Conv3d"),
    // Optimizer and schedule.
    ("optim_wrapper.optimizer.lr=-1", "optim_wrapper.optimizer.lr"),
    (
        "optim_wrapper.optimizer.nesterov=true optim_wrapper.optimizer.momentum=0",
        "optim_wrapper.optimizer.nesterov",
    ),
    ("optim_wrapper.optimizer={type: AdamW, betas: [0.9, 1.0]}", "betas"),
    ("optim_wrapper.accumulative_counts=0", "accumulative_counts"),
    ("optim_wrapper.clip_grad={norm_type: 2}", "optim_wrapper.clip_grad: `max_norm` is missing"),
    ("optim_wrapper.clip_grad={type: value, max_norm: 1}", "clip_grad"),
    ("optim_wrapper.optimizer.momentun=0.9", "did you mean `momentum`?"),
    (
        "param_scheduler=[{type: LinearLR, start_factor: 2.0, begin: 0, end: 10, by_epoch: false}]",
        "param_scheduler.0",
    ),
    (
        "param_scheduler=[{type: PolyLR, power: 0.9, begin: 20, end: 10, by_epoch: false}]",
        "param_scheduler.0",
    ),
    ("param_scheduler=[{type: PolyLr}]", "did you mean `PolyLR`?"),
    ("train_cfg.max_iters=0", "train_cfg.max_iters"),
    // Data and evaluators.
    ("train_pipeline.3.crop_size=[0,64]", "crop_size"),
    ("val_evaluator.iou_metrics=[mIou]", "mIou"),
    ("train_dataloader.batch_size=0", "train_dataloader.batch_size"),
    ("train_dataloader.sampler.type=RandomSampler", "RandomSampler"),
];

fn refused(changes: &str) -> String {
    // The command line knows no mappings: those stand in a file.
    let (mappings, options): (Vec<String>, Vec<String>) =
        split(changes).into_iter().partition(|it| it.contains('{'));
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join(DEMO);
    let base = config::load(&demo, &[]).expect("the demo's config");
    let mut text = format!("_base_: {}\n", demo.display());
    for change in &mappings {
        let (path, value) = change.split_once('=').expect("key=value");
        let replaces = base.root.get(path).is_some();
        let value =
            if replaces { value.replacen('{', "{_delete_: true, ", 1) } else { value.to_owned() };
        for (depth, key) in path.split('.').enumerate() {
            text += &format!("{}{key}:\n", "  ".repeat(depth));
        }
        text = format!("{} {value}\n", text.trim_end());
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("changed.yaml");
    std::fs::write(&file, text).expect("written");
    let loaded = config::load(&file, &options).map_err(|it| it.to_string());
    let failure = match loaded {
        Ok(config) => Experiment::from_config(&config).and_then(|it| it.check_training()).err(),
        Err(error) => return error,
    };
    match failure {
        None => "it is taken".to_owned(),
        Some(failure) if failure.exit == Exit::Config => failure.message,
        Some(failure) => format!("exit {:?}: {}", failure.exit, failure.message),
    }
}

/// Changes that are divided by blanks, but not those inside of brackets.
fn split(changes: &str) -> Vec<String> {
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for letter in changes.chars() {
        match letter {
            '[' | '{' => depth += 1,
            ']' | '}' => depth -= 1,
            ' ' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = parts.last_mut() {
            last.push(letter);
        }
    }
    parts
}

#[test]
fn every_mistake_is_told_with_its_place_before_anything_is_made() {
    let began = std::time::Instant::now();
    let wrong: Vec<String> = MUTATIONS
        .iter()
        .filter_map(|(changes, words)| {
            let told = refused(changes);
            (!told.contains(words)).then(|| format!("{changes}: wanted `{words}`, got: {told}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(MUTATIONS.len() >= 60);
    let each = began.elapsed() / MUTATIONS.len() as u32;
    assert!(each.as_millis() < 200, "a check takes {each:?}");
}
