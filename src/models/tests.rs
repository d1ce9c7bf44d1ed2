//! The models as wholes: what a user can count on whatever the parts are.

#![expect(clippy::expect_used, reason = "tests")]

use burn::module::Module as _;
use burn::tensor::{Device, Distribution, Int, Tensor};

use super::{Forward, Geometry, ModelError, Segmentor, SegmentorConfig};
use crate::config::parse_str;
use crate::ops;
use crate::weights::{Role, Weight};

/// A PSPNet of depth 18 that is narrow enough to train in a test.
const TINY: &str = "
type: EncoderDecoder
data_preprocessor: {type: SegDataPreProcessor, size: [32, 32]}
backbone:
  type: ResNetV1c
  depth: 18
  stem_channels: 16
  base_channels: 8
  dilations: [1, 1, 2, 4]
  strides: [1, 2, 1, 1]
  norm_cfg: {type: BN}
decode_head:
  type: PSPHead
  in_channels: 64
  in_index: 3
  channels: 16
  pool_scales: [1, 2]
  dropout_ratio: 0.1
  num_classes: 4
  norm_cfg: {type: BN}
  loss_decode: {type: CrossEntropyLoss}
auxiliary_head:
  type: FCNHead
  in_channels: 32
  in_index: 2
  channels: 8
  num_convs: 1
  concat_input: false
  num_classes: 4
  norm_cfg: {type: BN}
  loss_decode: {type: CrossEntropyLoss, loss_weight: 0.4}
test_cfg: {mode: whole}
";

fn tiny() -> SegmentorConfig {
    parse_str(TINY).expect("a valid config")
}

/// The tiny config with one piece of its text replaced.
fn tiny_with(from: &str, to: &str) -> SegmentorConfig {
    assert!(TINY.contains(from), "the tiny config has no `{from}`");
    parse_str(&TINY.replacen(from, to, 1)).expect("a valid config")
}

fn error(config: &SegmentorConfig) -> String {
    config.init(&Device::libtorch(), 0).expect_err("the config should be refused").to_string()
}

/// Stripes of four classes whose colour tells them apart.
fn batch(device: &Device) -> (Tensor<4>, Tensor<3, Int>) {
    let labels: Vec<i64> = (0..2 * 32 * 32).map(|it| (it % 32) / 8).collect();
    let labels = tch::Tensor::from_slice(&labels).view([2, 32, 32]);
    let plane = (labels.to_kind(tch::Kind::Float) - 1.5).unsqueeze(1);
    let images = tch::Tensor::cat(&[&plane, &plane.square(), &plane.sin()], 1);
    (ops::from_tch(images, device), ops::from_tch(labels, device))
}

fn training() -> Forward<'static> {
    Forward::training(7, None)
}

fn value(x: &Tensor<1>) -> f64 {
    ops::to_tch(x).double_value(&[0])
}

#[test]
fn a_training_pass_gives_mmsegs_losses_and_their_sum() {
    let device = Device::libtorch().autodiff();
    let model = tiny().init(&device, 0).expect("a valid model");
    let (images, labels) = batch(&device);
    let losses = model.loss(images, &labels, &training());
    let names: Vec<_> = losses.items.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["decode.loss_ce", "decode.acc_seg", "aux.loss_ce", "aux.acc_seg"]);
    let [decode, _, aux, _] = [0, 1, 2, 3].map(|it| value(&losses.items[it].value));
    assert!((value(&losses.total) - decode - aux).abs() < 1e-6);
    // A fresh classifier gives every class about the same probability.
    assert!(
        (decode - 4f64.ln()).abs() < 0.1 && (aux - 0.4 * 4f64.ln()).abs() < 0.05,
        "{decode} {aux}"
    );
}

#[test]
fn a_few_steps_overfit_one_batch() {
    let device = Device::libtorch().autodiff();
    let model = tiny_with("dropout_ratio: 0.1", "dropout_ratio: 0")
        .init(&device, 0)
        .expect("a valid model");
    let (images, labels) = batch(&device);
    // Which step gets there depends on the machine's rounding; a model that does not learn never
    // does.
    let mut accuracies = Vec::new();
    while accuracies.len() < 200 && accuracies.last().is_none_or(|it| *it < 95.0) {
        let losses = model.loss(images.clone(), &labels, &training());
        accuracies.push(value(&losses.items[1].value));
        descend(&model, losses.total, 0.05);
    }
    assert!(accuracies.len() < 200, "pixel accuracy by step: {accuracies:?} %");
}

/// One step of plain gradient descent, in place.
fn descend(model: &Segmentor, loss: Tensor<1>, lr: f64) {
    struct Step<'a> {
        grads: burn::tensor::Gradients,
        lr: &'a f64,
    }
    impl burn::module::ModuleVisitor for Step<'_> {
        fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
            if let Some(grad) = ops::gradient(&param.val(), &mut self.grads) {
                let _ = ops::to_tch(&param.val()).g_sub_(&(&*grad * *self.lr));
            }
        }
    }
    model.visit(&mut Step { grads: loss.backward(), lr: &lr });
}

#[test]
fn inference_repeats_itself_and_changes_nothing() {
    let device = Device::libtorch().autodiff();
    let model = tiny().init(&device, 0).expect("a valid model");
    let before: Vec<_> = model.weights().into_iter().map(|it| it.tensor.copy()).collect();
    let images = Tensor::<4>::random([1, 3, 40, 56], Distribution::Default, &device);
    let geometry = [Geometry { img_shape: [40, 56], ori_shape: [61, 83], flip: None }];
    let first = model.predict(images.clone(), &geometry);
    assert_eq!((first[0].height, first[0].width, first[0].data.len()), (61, 83, 61 * 83));
    assert_eq!(first, model.predict(images, &geometry));
    assert!(model.weights().iter().zip(&before).all(|(now, before)| *now.tensor == *before));
}

#[test]
fn one_window_is_the_whole_image_and_many_cover_it() {
    let device = Device::libtorch();
    let whole = tiny().init(&device, 0).expect("a valid model");
    let images = Tensor::<4>::random([2, 3, 40, 56], Distribution::Default, &device);
    let ctx = Forward::default();
    let expected = ops::to_tch(&whole.infer(images.clone(), &ctx));
    let slide = |crop: &str, stride: &str| {
        let test = format!("test_cfg: {{mode: slide, crop_size: {crop}, stride: {stride}}}");
        let model =
            tiny_with("test_cfg: {mode: whole}", &test).init(&device, 0).expect("a valid model");
        ops::to_tch(&model.infer(images.clone(), &ctx))
    };
    assert_eq!(slide("[64, 64]", "[32, 32]"), expected);
    let windows = slide("[24, 24]", "[16, 16]");
    assert_eq!(windows.size(), expected.size());
    assert!(bool::try_from(windows.isfinite().all()).expect("a boolean"));
    // The corner that one window sees alone is that window's.
    let corner = ops::to_tch(&whole.infer(images.slice([0..2, 0..3, 0..24, 0..24]), &ctx));
    let (a, b) =
        (windows.narrow(2, 0, 16).narrow(3, 0, 16), corner.narrow(2, 0, 16).narrow(3, 0, 16));
    assert!((a - b).abs().max().double_value(&[]) < 1e-5);
}

#[test]
fn a_flipped_and_padded_image_gives_the_labels_of_the_plain_one() {
    let device = Device::libtorch();
    let model = tiny().init(&device, 0).expect("a valid model");
    let logits = Tensor::<4>::random([1, 3, 32, 32], Distribution::Default, &device);
    let geometry = |flip| [Geometry { img_shape: [32, 24], ori_shape: [32, 24], flip }];
    let plain = model.seg_logits(logits.clone(), &geometry(None), &Forward::default());
    let flipped = model.seg_logits(
        logits,
        &geometry(Some(crate::geometry::FlipDirection::Horizontal)),
        &Forward::default(),
    );
    assert_eq!(ops::to_tch(&plain[0]).flip([3]), *ops::to_tch(&flipped[0]));
    assert_eq!(plain[0].dims(), [1, 4, 32, 24]);
}

#[test]
fn weights_are_a_function_of_the_seed() {
    let device = Device::libtorch();
    let weights = |seed| {
        let model = tiny().init(&device, seed).expect("a valid model");
        model.weights().into_iter().map(|it| it.tensor).collect::<Vec<_>>()
    };
    assert_eq!(weights(3), weights(3));
    assert_ne!(weights(3), weights(4));
}

#[test]
fn initial_weights_have_mmsegs_statistics() {
    let model = tiny().init(&Device::libtorch(), 0).expect("a valid model");
    let tensors = model.weights();
    let find = |name: &str| &tensors.iter().find(|it| it.name == name).expect(name).tensor;
    let std = |name: &str| find(name).std(false).double_value(&[]);
    // Four standard errors of a deviation.
    let near = |name: &str, expected: f64| {
        let (found, error) = (std(name), 4.0 / (2.0 * find(name).numel() as f64).sqrt());
        assert!(
            (found / expected - 1.0).abs() < error,
            "{name}: deviation {found}, expected {expected}"
        );
    };
    // Kaiming, fan out: √(2 / (64 · 9)).
    near("backbone.layer4.0.conv1.weight", (2f64 / (64.0 * 9.0)).sqrt());
    near("decode_head.bottleneck.conv.weight", (2f64 / (16.0 * 9.0)).sqrt());
    near("decode_head.conv_seg.weight", 0.01);
    assert_eq!(find("decode_head.conv_seg.bias").abs().max().double_value(&[]), 0.0);
    // The residual branch starts at zero, the other norms at one.
    assert_eq!(find("backbone.layer1.0.bn2.weight").abs().max().double_value(&[]), 0.0);
    assert_eq!(find("backbone.layer1.0.bn1.weight").min().double_value(&[]), 1.0);
}

#[test]
fn init_cfg_overrides_the_defaults() {
    let config = tiny_with(
        "  dropout_ratio: 0.1\n",
        "  dropout_ratio: 0.1\n  init_cfg: {type: Normal, std: 0.5, override: {name: conv_seg}}\n",
    );
    let model = config.init(&Device::libtorch(), 0).expect("a valid model");
    let tensors = model.weights();
    let weight =
        tensors.iter().find(|it| it.name == "decode_head.conv_seg.weight").expect("a classifier");
    assert!((weight.tensor.std(false).double_value(&[]) / 0.5 - 1.0).abs() < 0.4);
    let config = tiny_with(
        "  dropout_ratio: 0.1\n",
        "  dropout_ratio: 0.1\n  init_cfg: {type: Normal, std: 0.5, override: {name: conv_sge}}\n",
    );
    assert_eq!(
        error(&config),
        "model.decode_head.init_cfg: override names `conv_sge`, which this part of the model does \
         not have"
    );
}

#[test]
fn frozen_stages_neither_train_nor_count() {
    let device = Device::libtorch().autodiff();
    let model = tiny_with("  depth: 18\n", "  depth: 18\n  frozen_stages: 1\n")
        .init(&device, 0)
        .expect("a valid model");
    let (images, labels) = batch(&device);
    let total = model.loss(images, &labels, &training()).total;
    assert!(total.is_require_grad() || value(&total).is_finite());
    for it in model.weights() {
        let frozen = it.name.starts_with("backbone.stem") || it.name.starts_with("backbone.layer1");
        assert_eq!(it.trained, !frozen && it.role == Role::Parameter, "{}", it.name);
        if it.name.ends_with("num_batches_tracked") {
            assert_eq!(it.tensor.int64_value(&[]), i64::from(!frozen), "{}", it.name);
        }
    }
}

#[test]
fn norm_eval_keeps_statistics_and_trains_weights() {
    let device = Device::libtorch().autodiff();
    let model = tiny_with("  depth: 18\n", "  depth: 18\n  norm_eval: true\n")
        .init(&device, 0)
        .expect("a valid model");
    let (images, labels) = batch(&device);
    model.loss(images, &labels, &training());
    let tensors = model.weights();
    let tracked =
        |name: &str| tensors.iter().find(|it| it.name == name).expect(name).tensor.int64_value(&[]);
    assert_eq!(tracked("backbone.layer4.1.bn2.num_batches_tracked"), 0);
    assert_eq!(tracked("decode_head.bottleneck.bn.num_batches_tracked"), 1);
    assert!(tensors.iter().filter(|it| it.role == Role::Parameter).all(|it| it.trained));
}

#[test]
fn a_list_of_auxiliary_heads_is_numbered() {
    let text = TINY.replacen("auxiliary_head:\n", "auxiliary_head:\n-\n", 1);
    let config: SegmentorConfig = parse_str(&text).expect("a valid config");
    let device = Device::libtorch().autodiff();
    let model = config.init(&device, 0).expect("a valid model");
    assert!(model.weights().iter().any(|it| it.name == "auxiliary_head.0.convs.0.conv.weight"));
    let (images, labels) = batch(&device);
    let losses = model.loss(images, &labels, &training());
    assert_eq!(losses.items[2].name, "aux_0.loss_ce");
}

#[test]
fn contradictions_are_refused_with_their_place() {
    let cases = [
        (
            "depth: 18",
            "depth: 19",
            "model.backbone.depth: no ResNet has depth 19; expected 18, 34, 50, 101 or 152",
        ),
        (
            "in_channels: 64",
            "in_channels: 512",
            "model.decode_head.in_channels: expects 512 channels, but feature map 3 of the \
             backbone has 64",
        ),
        (
            "loss_decode: {type: CrossEntropyLoss}",
            "loss_decode: {type: CrossEntropyLoss, class_weight: [1, 2, 3]}",
            "model.decode_head.loss_decode.class_weight: expected 4 weights, one for each output \
             channel, got 3",
        ),
        (
            "test_cfg: {mode: whole}",
            "test_cfg: {mode: slide, crop_size: [32, 32], stride: [48, 32]}",
            "model.test_cfg.stride: [48, 32] is larger than crop_size [32, 32]: some pixels would \
             be in no window",
        ),
        (
            "in_index: 2",
            "in_index: 4",
            "model.auxiliary_head.in_index: there is no feature map 4: the backbone gives 4 \
             (out_indices)",
        ),
        (
            "strides: [1, 2, 1, 1]",
            "strides: [1, 2, 1]",
            "model.backbone.strides: expected one value for each of the 4 stages, got 3",
        ),
    ];
    for (from, to, message) in cases {
        assert_eq!(error(&tiny_with(from, to)), message);
    }
}

/// A model of one backbone and one head on it.
fn model_of(backbone: &str, head: &str) -> SegmentorConfig {
    let kind = if head.starts_with('[') {
        "CascadeEncoderDecoder, num_stages: 1"
    } else {
        "EncoderDecoder"
    };
    let text = format!("{{type: {kind}, backbone: {backbone}, decode_head: {head}}}");
    parse_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn what_components_of_the_zoo_cannot_be_is_refused_with_its_place() {
    let fcn = "{type: FCNHead, in_channels: 8, channels: 8, num_classes: 4}";
    let stage = |branches: usize, block: &str, width: usize| {
        let list = |of: usize| format!("{:?}", vec![of; branches]);
        format!(
            "{{num_modules: 1, num_branches: {branches}, block: {block}, num_blocks: {}, \
             num_channels: {}}}",
            list(1),
            list(width)
        )
    };
    let hrnet = |third: usize| {
        format!(
            "{{type: HRNet, extra: {{stage1: {}, stage2: {}, stage3: {}, stage4: {}}}}}",
            stage(1, "BOTTLENECK", 4),
            stage(2, "BASIC", 4),
            stage(3, "BASIC", third),
            stage(4, "BASIC", third)
        )
    };
    let cases = [
        (
            hrnet(6),
            fcn.to_owned(),
            "model.backbone.extra.stage3.num_channels: branch 0 has 6 channels, and 4 in the stage \
             before; mmseg cannot change those either",
        ),
        (
            hrnet(4),
            "{type: OCRHead, in_channels: 4, channels: 8, ocr_channels: 4, num_classes: 4}".into(),
            "model.decode_head: this head sees the logits of one before it; write `type: \
             CascadeEncoderDecoder` and a list of heads in decode_head",
        ),
        (
            hrnet(4),
            "[{type: OCRHead, in_channels: 4, channels: 8, ocr_channels: 4, num_classes: 4}]"
                .into(),
            "model.decode_head.0: this head sees the logits of one before it; write `type: \
             CascadeEncoderDecoder` and a list of heads in decode_head",
        ),
        (
            "{type: SwinTransformer, embed_dims: 8, num_heads: [3, 2, 2, 2]}".into(),
            fcn.to_owned(),
            "model.backbone.num_heads: 3 heads do not divide the 8 channels of stage 0",
        ),
        (
            "{type: MixVisionTransformer, num_layers: [1, 1]}".into(),
            fcn.to_owned(),
            "model.backbone.num_layers: expected one value for each of the 4 stages, got 2",
        ),
        (
            "{type: mmpretrain.ConvNeXt, arch: giant, gap_before_final_norm: false}".into(),
            fcn.to_owned(),
            "model.backbone.arch: there is no giant; expected atto, femto, pico, nano, tiny, \
             small, base, large, xlarge, huge",
        ),
        (
            "{type: MobileNetV2, out_indices: [7]}".into(),
            fcn.to_owned(),
            "model.backbone.out_indices: there is no stage 7: there are 7, and the first is 0",
        ),
        (
            "{type: BiSeNetV1, backbone_cfg: {type: ResNet, depth: 19}}".into(),
            fcn.to_owned(),
            "model.backbone.backbone_cfg.depth: no ResNet has depth 19; expected 18, 34, 50, 101 \
             or 152",
        ),
        (
            "{type: ResNeXt, depth: 18, groups: 4}".into(),
            fcn.to_owned(),
            "model.backbone.depth: expected 50, 101 or 152, got 18",
        ),
        (
            "{type: DDRNet, channels: 4}".into(),
            "{type: DDRHead, in_channels: 16, channels: 8, num_classes: 4}".into(),
            "model.decode_head.loss_decode: expected a list of two losses, of the last map and of \
             the shared one, got 1",
        ),
        (
            "{type: DDRNet, channels: 8}".into(),
            "{type: STDCHead, in_channels: 32, channels: 8, num_classes: 4}".into(),
            "model.decode_head.num_classes: a pixel is a boundary or none: expected 2, got 4",
        ),
        (
            "{type: ERFNet, enc_stage_non_bottlenecks: [5, 6]}".into(),
            fcn.to_owned(),
            "model.backbone.enc_stage_non_bottlenecks: the last, 6, has to be a multiple of the 4 \
             dilations",
        ),
    ];
    for (backbone, head, message) in cases {
        assert_eq!(error(&model_of(&backbone, &head)), message);
    }
}

#[test]
fn weights_may_come_from_one_place_only() {
    let pretrained = "type: EncoderDecoder\npretrained: open-mmlab://resnet18_v1c\n";
    let model = tiny_with("type: EncoderDecoder\n", pretrained)
        .init(&Device::libtorch(), 0)
        .expect("a valid model");
    let source = model.pretrained().expect("a source");
    assert_eq!(
        (source.checkpoint.as_str(), source.target.as_str()),
        ("open-mmlab://resnet18_v1c", "backbone.")
    );
    let text = TINY.replacen("type: EncoderDecoder\n", pretrained, 1);
    let text = text.replacen("  depth: 18\n", "  depth: 18\n  pretrained: other.pth\n", 1);
    let twice: SegmentorConfig = parse_str(&text).expect("a valid config");
    let error = twice.init(&Device::libtorch(), 0).expect_err("two sources");
    assert!(matches!(error, ModelError::Config { .. }));
    assert_eq!(
        error.to_string(),
        "model.backbone.pretrained: names weights, but so does pretrained; keep one of them"
    );
}

/// The losses of one pass, every gradient by name, and the buffers after it.
fn pass(
    config: &SegmentorConfig,
    images: &Tensor<4>,
    labels: &Tensor<3, Int>,
) -> (f64, Vec<(String, tch::Tensor)>) {
    let model = config.init(&images.device(), 0).expect("a valid model");
    let losses = model.loss(images.clone(), labels, &training());
    let weights = model.weights();
    let grads = weights.gradients(losses.total.backward());
    let found: std::collections::HashMap<&str, tch::Tensor> =
        grads.iter().map(|(id, grad)| (weights[id].name.as_str(), grad.copy())).collect();
    let one = |it: &Weight| {
        let grad = found.get(it.name.as_str()).map(tch::Tensor::copy);
        assert_eq!(grad.is_some(), it.role == Role::Parameter && it.trained, "{}", it.name);
        (it.name.clone(), grad.unwrap_or_else(|| it.tensor.copy()))
    };
    (value(&losses.total), weights.iter().map(one).collect())
}

#[test]
fn recomputed_blocks_give_the_same_losses_gradients_and_statistics() {
    for (from, to) in [
        ("stem_channels: 16", "stem_channels: 16"),
        ("stem_channels: 16", "stem_channels: 16\n  frozen_stages: 1"),
    ] {
        let kept = tiny_with(from, to);
        let recomputed = tiny_with(from, &format!("{to}\n  with_cp: true"));
        let (images, labels) = batch(&Device::libtorch().autodiff());
        let (loss, expected) = pass(&kept, &images, &labels);
        let (again, tensors) = pass(&recomputed, &images, &labels);
        assert_eq!(loss, again);
        for ((name, value), (_, expected)) in tensors.iter().zip(&expected) {
            let error = (value - expected).abs().max().double_value(&[]);
            assert!(
                error <= 1e-6 * expected.abs().max().double_value(&[]).max(1.0),
                "{name} differs by {error}"
            );
        }
    }
}

/// Every window's logits in one sum, as mmseg has them.
fn whole_sum(model: &Segmentor, images: &Tensor<4>, stride: [i64; 2], crop: [i64; 2]) -> Tensor<4> {
    let [n, _, height, width] = images.dims().map(|it| it as i64);
    let starts = |length: i64, crop: i64, stride: i64| {
        (0..=(length - crop + stride - 1) / stride)
            .map(move |index| (index * stride).min(length - crop))
    };
    let source = ops::to_tch(images);
    let sum = tch::Tensor::zeros(
        [n, model.out_channels() as i64, height, width],
        (tch::Kind::Float, tch::Device::Cpu),
    );
    let count = tch::Tensor::zeros([1, 1, height, width], (tch::Kind::Float, tch::Device::Cpu));
    for top in starts(height, crop[0], stride[0]) {
        for left in starts(width, crop[1], stride[1]) {
            let at = |x: &tch::Tensor| x.narrow(2, top, crop[0]).narrow(3, left, crop[1]);
            let part = ops::from_tch(at(&source).contiguous(), &images.device());
            let _ = at(&sum).g_add_(&ops::to_tch(&model.encode_decode(part, &Forward::default())));
            let _ = at(&count).g_add_scalar_(1.0);
        }
    }
    ops::from_tch(sum / count, &images.device())
}

#[test]
fn labels_by_strips_are_those_of_the_whole_sum_to_the_bit() {
    let config =
        TINY.replace("{mode: whole}", "{mode: slide, crop_size: [32, 24], stride: [20, 24]}");
    let device = Device::libtorch();
    let model = parse_str::<SegmentorConfig>(&config)
        .expect("a valid config")
        .init(&device, 3)
        .expect("builds");
    let images = Tensor::<4>::random([2, 3, 77, 61], Distribution::Normal(0.0, 1.0), &device);
    let whole = whole_sum(&model, &images, [20, 24], [32, 24]);
    assert_eq!(ops::to_tch(&model.infer(images.clone(), &Forward::default())), ops::to_tch(&whole));
    // Padding removed; at its own size and at others.
    for sizes in
        [[[77, 61], [77, 61]], [[77, 61], [150, 33]], [[70, 50], [70, 50]], [[40, 61], [90, 90]]]
    {
        let [img_shape, ori_shape] = sizes;
        let geometry = [
            Geometry { img_shape, ori_shape, flip: None },
            Geometry { img_shape: [77, 61], ori_shape, flip: None },
        ];
        let found = model.label_maps(images.clone(), &geometry, &Forward::default());
        for (index, (it, found)) in geometry.iter().zip(found).enumerate() {
            let [height, width] = it.img_shape;
            let logits = whole.clone().slice([index..index + 1, 0..4, 0..height, 0..width]);
            let expected =
                ops::to_tch(&ops::resized_label_map(&logits, it.ori_shape, model.align_corners()));
            let expected: Vec<u8> = Vec::try_from(expected.contiguous().view(-1)).expect("bytes");
            assert_eq!([found.height, found.width], ori_shape);
            assert_eq!(found.data, expected, "{sizes:?}, image {index}");
        }
    }
}

#[test]
fn a_model_says_which_norms_a_batch_of_one_would_starve_and_stays_as_it_is() {
    let device = Device::libtorch().autodiff();
    let starved = |config: &str, shape| {
        let model = parse_str::<SegmentorConfig>(config)
            .expect("a valid config")
            .init(&device, 3)
            .expect("builds");
        let values = || model.weights().iter().map(|it| it.tensor.copy()).collect::<Vec<_>>();
        let before = values();
        let found = model.starved_norms(shape, None);
        assert!(
            before.iter().zip(values()).all(|(before, after)| before == &after),
            "nothing changes"
        );
        found
    };
    // Of all norms only the one behind the pool to a single cell.
    assert_eq!(starved(TINY, [1, 3, 32, 32]), ["decode_head.psp_modules.0.1.bn"]);
    assert!(starved(TINY, [2, 3, 32, 32]).is_empty());
    assert!(
        starved(&TINY.replace("pool_scales: [1, 2]", "pool_scales: [2]"), [1, 3, 32, 32])
            .is_empty()
    );
    // Pictures of the stride's size leave one cell everywhere behind it; frozen norms do not mind.
    let tiny = starved(TINY, [1, 3, 8, 8]);
    assert!(
        tiny.iter().any(|it| it == "backbone.layer4.1.bn2")
            && tiny.iter().any(|it| it.starts_with("auxiliary_head"))
    );
    let frozen = TINY.replace("  depth: 18", "  depth: 18\n  norm_eval: true\n  with_cp: true");
    assert!(starved(&frozen, [1, 3, 8, 8]).iter().all(|it| !it.starts_with("backbone")));
}
