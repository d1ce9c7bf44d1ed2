"""Writes golden files with mmsegmentation 1.2.2; run by hand, from the repository root, when a case is added:

    "$(scripts/peer.sh)" integration-tests/golden/make.py [NAME ...]

A model is an entry of `models()` and its file in models/, which the test finds by itself. Weights, images and labels are formulas of their names (see formulas.py), so a case is a few kB.
"""

import os
import sys

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "..", "scripts", "parity"))

import numpy as np
import torch
from mmengine.registry import PARAM_SCHEDULERS

import peer
from formulas import numbers

STRIDE = 307  # every so-manyth logit is kept
STEPS = 3
HEIGHT, WIDTH, CLASSES = 49, 65, 7


def weights(model):
    """Fills a state dict in place, by what the name ends in and the shape."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            leaf = name.rsplit(".", 1)[-1]
            if not tensor.is_floating_point():
                continue
            u = numbers(name, tensor.numel())
            if leaf == "bases":
                pass  # Factors of what is not negative.
            elif tensor.dim() > 1:
                u = (2 * u - 1) * np.sqrt(6.0 / (tensor.numel() / tensor.shape[0]))
            elif leaf == "weight":
                u = 0.6 + 0.8 * u
            elif leaf == "running_var":
                u = 0.5 + u
            else:
                u = 0.4 * u - 0.2
            tensor.copy_(torch.from_numpy(u.astype(np.float32)).reshape(tensor.shape))


def picture(name):
    return (numbers(name, HEIGHT * WIDTH * 3) * 256).astype(np.uint8).reshape(HEIGHT, WIDTH, 3)


def labels(name):
    """Squares of eight pixels, each of one class; one in eight or so is ignored."""
    squares = (numbers(name, 7 * 9) * (CLASSES + 1)).astype(np.uint8).reshape(7, 9)
    whole = np.kron(squares, np.ones((8, 8), np.uint8))[:HEIGHT, :WIDTH]
    return np.where(whole == CLASSES, 255, whole).astype(np.uint8)


def small(head, kind, depth, **changes):
    model = peer.segmentor(head, depth, CLASSES, **changes)
    wide = 8 * (32 if depth >= 50 else 8)
    model["backbone"].update(type=kind, stem_channels=8, base_channels=8)
    model["decode_head"].update(in_channels=wide, channels=12)
    model["auxiliary_head"].update(in_channels=wide // 2, channels=8)
    model["data_preprocessor"] = dict(peer.PREPROCESSOR, size=[HEIGHT, WIDTH])
    model["test_cfg"] = dict(mode="slide", crop_size=[33, 41], stride=[21, 30])
    return model


def changed(model, **changes):
    """The head that decodes with other keys."""
    model["decode_head"].update(changes)
    return model


def deeplabv3(kind, **changes):
    model = changed(small("fcn", "ResNetV1c", 18), type=kind, dilations=[1, 2, 4], **changes)
    for key in ["num_convs", "concat_input"]:
        del model["decode_head"][key]
    return model


def upernet(depth, **changes):
    model = small("psp", "ResNetV1c", depth)
    wide = 8 * (4 if depth >= 50 else 1)
    model["backbone"].update(dilations=[1, 1, 1, 1], strides=[1, 2, 2, 2], contract_dilation=False)
    return changed(
        model,
        type="UPerHead",
        in_channels=[wide, wide * 2, wide * 4, wide * 8],
        in_index=[0, 1, 2, 3],
        **changes,
    )


def pyramid():
    """A neck, and a head that joins its levels."""
    model = small("fcn", "ResNetV1c", 18)
    model["backbone"].update(dilations=[1, 1, 1, 1], strides=[1, 2, 2, 2])
    model["neck"] = dict(type="FPN", in_channels=[8, 16, 32, 64], out_channels=12, num_outs=5)
    model["decode_head"].update(
        in_channels=[12] * 5, in_index=[0, 1, 2, 3, 4], input_transform="resize_concat"
    )
    model["auxiliary_head"].update(in_channels=12, in_index=1)
    return model


def unet(upsample, **changes):
    """A backbone of its own, with heads on its two largest maps; sizes are multiples of what it halves."""
    model = small("fcn", "ResNetV1c", 18)
    model["backbone"] = dict(
        type="UNet",
        base_channels=8,
        num_stages=3,
        strides=[1, 1, 1],
        enc_num_convs=[2, 1, 2],
        dec_num_convs=[1, 2],
        downsamples=[True, True],
        enc_dilations=[1, 1, 2],
        dec_dilations=[2, 1],
        norm_cfg=dict(type="BN"),
        act_cfg=dict(type="ReLU"),
        upsample_cfg=upsample,
        **changes,
    )
    model["decode_head"].update(in_channels=8, in_index=2)
    model["auxiliary_head"].update(in_channels=16, in_index=1)
    model["data_preprocessor"].update(size=[52, 68], test_cfg=dict(size_divisor=4))
    model["test_cfg"].update(crop_size=[32, 40], stride=[20, 28])
    return model


def strided(model):
    """The second stage keeps the size, the third halves it by a stride."""
    model["backbone"].update(strides=[1, 1, 2], downsamples=[False, True])
    return model


def hrnet(*heads, **changes):
    """Branches of four sizes, with a module of each kind of exchange."""
    model = small("fcn", "ResNetV1c", 18)
    stage = lambda branches, modules=1, block="BASIC": dict(
        num_modules=modules,
        num_branches=branches,
        block=block,
        num_blocks=[1, 2, 1, 1][:branches],
        num_channels=[6, 8, 10, 12][:branches],
    )
    model["backbone"] = dict(
        type="HRNet",
        norm_cfg=dict(type="BN"),
        extra=dict(
            stage1=stage(1, block="BOTTLENECK"),
            stage2=stage(2),
            stage3=stage(3, 2),
            stage4=stage(4),
        ),
        **changes,
    )
    whole = dict(in_channels=[6, 8, 10, 12], in_index=[0, 1, 2, 3])
    model["decode_head"].update(
        whole, input_transform="resize_concat", channels=36, kernel_size=1, num_convs=1
    )
    model["auxiliary_head"].update(in_channels=8, in_index=1)
    if heads:
        first = dict(model["decode_head"], concat_input=False, num_convs=1)
        second = {
            k: v for k, v in first.items() if k not in ["kernel_size", "num_convs", "concat_input"]
        }
        second.update(type="OCRHead", channels=12, ocr_channels=8)
        model.update(type="CascadeEncoderDecoder", num_stages=2, decode_head=[first, second])
        del model["auxiliary_head"]
    return model


def semantic_fpn(**changes):
    model = pyramid()
    model["neck"].update(num_outs=4)
    model["decode_head"] = dict(
        model["decode_head"],
        type="FPNHead",
        in_channels=[12] * 4,
        in_index=[0, 1, 2, 3],
        feature_strides=[4, 8, 16, 32],
        **changes,
    )
    for key in ["num_convs", "concat_input", "input_transform"]:
        del model["decode_head"][key]
    return model


def fastfcn():
    model = small("psp", "ResNetV1c", 18)
    model["backbone"].update(dilations=[1, 1, 2, 4], strides=[1, 2, 2, 2], out_indices=[1, 2, 3])
    model["neck"] = dict(
        type="JPU",
        in_channels=(16, 32, 64),
        mid_channels=10,
        start_level=0,
        end_level=-1,
        dilations=(1, 2, 4),
        align_corners=False,
        norm_cfg=dict(type="BN"),
    )
    model["decode_head"].update(in_channels=30, in_index=2)
    model["auxiliary_head"].update(in_channels=32, in_index=1)
    return model


def segformer(**changes):
    model = small("fcn", "ResNetV1c", 18)
    model["backbone"] = dict(
        type="MixVisionTransformer",
        embed_dims=8,
        num_layers=[1, 2, 1, 1],
        num_heads=[1, 2, 2, 4],
        sr_ratios=[4, 2, 1, 1],
        **changes,
    )
    model["decode_head"] = dict(
        model["decode_head"],
        type="SegformerHead",
        in_channels=[8, 16, 16, 32],
        in_index=[0, 1, 2, 3],
    )
    for key in ["num_convs", "concat_input"]:
        del model["decode_head"][key]
    model["auxiliary_head"].update(in_channels=16, in_index=2)
    return model


def four(backbone, widths, head="UPerHead", **changes):
    """A backbone of four stages with heads on all of its maps."""
    model = small("fcn", "ResNetV1c", 18)
    model["backbone"] = backbone
    model["decode_head"] = dict(
        model["decode_head"], type=head, in_channels=widths, in_index=[0, 1, 2, 3], **changes
    )
    for key in ["num_convs", "concat_input"]:
        del model["decode_head"][key]
    model["auxiliary_head"].update(in_channels=widths[2], in_index=2)
    return model


def swin(**changes):
    backbone = dict(
        type="SwinTransformer",
        embed_dims=8,
        window_size=3,
        depths=[2, 2, 1, 1],
        num_heads=[1, 2, 2, 4],
        drop_path_rate=0.0,
    )
    return four(dict(backbone, **changes), [8, 16, 32, 64])


def twins(kind, widths, **changes):
    backbone = dict(
        type=kind,
        embed_dims=widths,
        num_heads=[1, 2, 2, 4],
        mlp_ratios=[2, 2, 2, 2],
        depths=[2, 1, 2, 2],
        sr_ratios=[4, 2, 1, 1],
        drop_path_rate=0.0,
    )
    return four(dict(backbone, **changes), widths)


def segnext():
    backbone = dict(
        type="MSCAN",
        embed_dims=[8, 12, 16, 20],
        mlp_ratios=[2, 2, 2, 2],
        depths=[1, 1, 2, 1],
        norm_cfg=dict(type="BN"),
    )
    model = four(
        backbone,
        [8, 12, 16, 20],
        "LightHamHead",
        ham_channels=16,
        ham_kwargs=dict(MD_R=8, rand_init=False),
    )
    model["decode_head"].update(
        in_channels=[12, 16, 20], in_index=[1, 2, 3], norm_cfg=dict(type="GN", num_groups=4)
    )
    return model


def convnext(**changes):
    backbone = dict(
        type="mmpretrain.ConvNeXt",
        arch=dict(depths=[1, 2, 1, 1], channels=[8, 12, 16, 20]),
        out_indices=[0, 1, 2, 3],
        drop_path_rate=0.0,
        layer_scale_init_value=1.0,
        gap_before_final_norm=False,
    )
    return four(dict(backbone, **changes), [8, 12, 16, 20])


def poolformer():
    backbone = dict(
        type="mmpretrain.PoolFormer",
        arch=dict(layers=[1, 2, 1, 1], embed_dims=[8, 12, 16, 20]),
        out_indices=[0, 2, 4, 6],
        frozen_stages=0,
    )
    return four(backbone, [8, 12, 16, 20], "FPNHead", feature_strides=[4, 8, 16, 32])


def on(backbone, decode, auxiliary, **changes):
    """A backbone with an FCN head on one of its maps, and an auxiliary one on another: each a number of channels and its place."""
    model = small("fcn", "ResNetV1c", 18, **changes)
    model["backbone"] = backbone
    for key, (channels, place) in [("decode_head", decode), ("auxiliary_head", auxiliary)]:
        model[key].update(in_channels=channels, in_index=place)
    return model


def tiny_resnet(kind="ResNetV1c", **changes):
    return dict(
        type=kind,
        depth=18,
        stem_channels=8,
        base_channels=4,
        norm_cfg=dict(type="BN"),
        **changes,
    )


def bisenetv1():
    backbone = dict(
        type="BiSeNetV1",
        backbone_cfg=tiny_resnet("ResNet"),
        spatial_channels=(6, 6, 6, 8),
        context_channels=(8, 16, 32),
        out_channels=12,
    )
    return on(backbone, (12, 0), (8, 2))


def bisenetv2():
    backbone = dict(
        type="BiSeNetV2",
        detail_channels=(6, 8, 12),
        semantic_channels=(4, 6, 8, 12),
        semantic_expansion_ratio=2,
        bga_channels=12,
    )
    return on(backbone, (12, 0), (8, 3))


def stdc():
    backbone = dict(
        type="STDCContextPathNet",
        backbone_cfg=dict(
            type="STDCNet",
            stdc_type="STDCNet1",
            in_channels=3,
            channels=(4, 8, 16, 24, 32),
            bottleneck_type="cat",
            num_convs=4,
            norm_cfg=dict(type="BN"),
            act_cfg=dict(type="ReLU"),
            with_final_conv=False,
        ),
        last_in_channels=(32, 24),
        out_channels=8,
        ffm_cfg=dict(in_channels=24, out_channels=16, scale_factor=4),
    )
    model = on(backbone, (16, 3), (8, 1))
    boundary = dict(
        model["auxiliary_head"],
        type="STDCHead",
        in_channels=16,
        in_index=0,
        num_classes=2,
        boundary_threshold=0.1,
        loss_decode=[
            dict(type="CrossEntropyLoss", loss_name="loss_ce", use_sigmoid=True, loss_weight=1.0),
            dict(type="DiceLoss", loss_name="loss_dice", loss_weight=1.0),
        ],
    )
    model["auxiliary_head"] = [model["auxiliary_head"], boundary]
    return model


def ddrnet():
    backbone = dict(type="DDRNet", channels=4, ppm_channels=6, norm_cfg=dict(type="BN"))
    model = on(backbone, (16, -1), (8, 0))
    del model["auxiliary_head"]
    ohem = dict(type="OhemCrossEntropy", thres=0.6, min_kept=200, loss_weight=1.0)
    weights = [0.8, 0.9, 1.0, 1.1, 1.2, 0.7, 0.6]
    model["decode_head"] = dict(
        type="DDRHead",
        in_channels=16,
        channels=8,
        dropout_ratio=0.0,
        num_classes=CLASSES,
        norm_cfg=dict(type="BN"),
        loss_decode=[ohem, dict(ohem, loss_weight=0.4, class_weight=weights)],
    )
    # mmseg's DDRNet takes multiples of eight alone.
    model["data_preprocessor"].update(size=[56, 72], test_cfg=dict(size_divisor=8))
    model["test_cfg"].update(crop_size=[40, 48], stride=[24, 32])
    return model


def icnet():
    backbone = dict(
        type="ICNet",
        backbone_cfg=tiny_resnet(
            dilations=(1, 1, 2, 4), strides=(1, 2, 1, 1), contract_dilation=True
        ),
        layer_channels=(8, 32),
        light_branch_middle_channels=6,
        psp_out_channels=8,
        out_channels=(6, 8, 10),
        pool_scales=(1, 2),
        norm_cfg=dict(type="BN"),
        align_corners=False,
    )
    model = on(backbone, (8, 2), (8, 0))
    model["neck"] = dict(type="ICNeck", in_channels=(6, 8, 10), out_channels=8)
    return model


def cgnet(**changes):
    backbone = dict(
        type="CGNet",
        num_channels=(6, 8, 12),
        num_blocks=(2, 3),
        dilations=(2, 3),
        reductions=(2, 4),
        norm_cfg=dict(type="BN", eps=0.001),
        **changes,
    )
    model = on(backbone, (24, 2), (19, 1))
    model["decode_head"].update(num_convs=0, channels=24, concat_input=False)
    return model


def erfnet():
    backbone = dict(
        type="ERFNet",
        enc_downsample_channels=(6, 10, 14),
        enc_stage_non_bottlenecks=(1, 4),
        enc_non_bottleneck_dilations=(2, 4),
        enc_non_bottleneck_channels=(10, 14),
        dec_upsample_channels=(10, 6),
        dec_stages_non_bottleneck=(1, 1),
        dec_non_bottleneck_channels=(10, 6),
        dropout_ratio=0.0,
    )
    return on(backbone, (6, 0), (6, -1))


def fast_scnn():
    backbone = dict(
        type="FastSCNN",
        downsample_dw_channels=(4, 6),
        global_in_channels=8,
        global_block_channels=(8, 12, 16),
        global_block_strides=(2, 2, 1),
        global_out_channels=16,
        higher_in_channels=8,
        lower_in_channels=16,
        fusion_out_channels=8,
        norm_cfg=dict(type="BN", momentum=0.01),
    )
    model = on(backbone, (8, -1), (16, -2))
    model["decode_head"].update(
        type="DepthwiseSeparableFCNHead",
        concat_input=True,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
    )
    return model


def mobilenet_v2(**changes):
    backbone = dict(
        type="MobileNetV2",
        widen_factor=0.25,
        strides=(1, 2, 2, 1, 1, 1, 1),
        dilations=(1, 1, 1, 2, 2, 4, 4),
        out_indices=(1, 2, 4, 6),
        norm_cfg=dict(type="BN"),
        **changes,
    )
    return on(backbone, (80, 3), (24, 2))


def mobilenet_v3(arch, channels, last, **changes):
    backbone = dict(type="MobileNetV3", arch=arch, norm_cfg=dict(type="BN", eps=0.001), **changes)
    return on(backbone, (channels, 2), (last, 0))


def resnext(kind, **changes):
    model = small("fcn", "ResNetV1c", 50)
    model["backbone"].update(type=kind, depth=50, **changes)
    return model


def layers(norm, act):
    """Heads with another norm and another activation."""
    model = small("fcn", "ResNetV1c", 18)
    for head in ["decode_head", "auxiliary_head"]:
        model[head].update(norm_cfg=norm, act_cfg=act, channels=12)
    return model


def models():
    return {
        "pspnet_r18": lambda: small("psp", "ResNetV1c", 18),
        "pspnet_r50_v1d": lambda: small("psp", "ResNetV1d", 50, align_corners=True),
        "fcn_r18_dice_ohem": dice,
        "deeplabv3_r18": lambda: deeplabv3("ASPPHead"),
        "deeplabv3plus_r18": lambda: deeplabv3(
            "DepthwiseSeparableASPPHead", c1_in_channels=8, c1_channels=6
        ),
        "deeplabv3plus_r18_no_c1": lambda: deeplabv3(
            "DepthwiseSeparableASPPHead", c1_in_channels=0, c1_channels=0
        ),
        "upernet_r18": lambda: upernet(18),
        "upernet_r18_aligned": lambda: upernet(18, align_corners=True, pool_scales=[1, 3]),
        "fpn_fcn_r18": pyramid,
        "unet": lambda: unet(dict(type="InterpConv")),
        "unet_deconv": lambda: unet(
            dict(type="DeconvModule", kernel_size=6), norm_eval=True, with_cp=True
        ),
        "unet_conv_first": lambda: unet(
            dict(
                type="InterpConv",
                conv_first=True,
                kernel_size=3,
                padding=1,
                upsample_cfg=dict(scale_factor=2, mode="bicubic", align_corners=False),
            )
        ),
        "unet_nearest": lambda: strided(
            unet(dict(type="InterpConv", upsample_cfg=dict(scale_factor=2, mode="nearest")))
        ),
        "hrnet": hrnet,
        "hrnet_frozen": lambda: hrnet(frozen_stages=2, norm_eval=True, with_cp=True),
        "ocrnet_hr": lambda: hrnet("ocr"),
        "semantic_fpn_r18": semantic_fpn,
        "fastfcn_r18": fastfcn,
        "segformer": segformer,
        "segformer_no_bias": lambda: segformer(
            qkv_bias=False, out_indices=[0, 1, 2, 3], mlp_ratio=2, with_cp=True
        ),
        "swin": swin,
        "swin_frozen": lambda: swin(
            frozen_stages=1, qkv_bias=False, patch_norm=False, qk_scale=0.3, with_cp=True
        ),
        "pcpvt": lambda: twins("PCPVT", [8, 12, 16, 24], qkv_bias=True),
        "svt": lambda: twins("SVT", [8, 12, 16, 24], windiow_sizes=[3, 3, 2, 2]),
        "segnext": segnext,
        "convnext": convnext,
        "convnext_conv": lambda: convnext(
            linear_pw_conv=False, layer_scale_init_value=0.0, frozen_stages=1
        ),
        "poolformer": poolformer,
        "bisenetv1": bisenetv1,
        "bisenetv2": bisenetv2,
        "stdc": stdc,
        "ddrnet": ddrnet,
        "icnet": icnet,
        "cgnet": cgnet,
        "cgnet_frozen": lambda: cgnet(norm_eval=True, with_cp=True),
        "erfnet": erfnet,
        "fast_scnn": fast_scnn,
        "mobilenet_v2": mobilenet_v2,
        "mobilenet_v2_frozen": lambda: mobilenet_v2(frozen_stages=2),
        "mobilenet_v3_small": lambda: mobilenet_v3("small", 576, 16),
        "mobilenet_v3_large": lambda: mobilenet_v3(
            "large", 80, 24, out_indices=(3, 13, 15), reduction_factor=2
        ),
        "resnext_50": lambda: resnext("ResNeXt", groups=4, base_width=4, norm_eval=True),
        "resnest_50": lambda: resnext("ResNeSt", groups=1, radix=2, norm_eval=True),
        "resnest_50_groups": lambda: resnext(
            "ResNeSt", groups=2, base_width=4, radix=2, avg_down_stride=False, norm_eval=True
        ),
        "fcn_r18_gn_gelu": lambda: layers(dict(type="GN", num_groups=3), dict(type="GELU")),
        "fcn_r18_in_leaky": lambda: layers(
            dict(type="IN"), dict(type="LeakyReLU", negative_slope=0.2)
        ),
        "fcn_r18_in_affine_elu": lambda: layers(
            dict(type="IN", affine=True), dict(type="ELU", alpha=0.7)
        ),
        "fcn_r18_prelu": lambda: layers(dict(type="BN"), dict(type="PReLU", num_parameters=12)),
        "fcn_r18_sigmoid": lambda: layers(dict(type="BN"), dict(type="Sigmoid")),
        "fcn_r18_hswish": lambda: layers(dict(type="BN"), dict(type="HSwish")),
        "fcn_r18_hsigmoid": lambda: layers(dict(type="BN"), dict(type="HSigmoid")),
        "fcn_r18_silu": lambda: layers(dict(type="BN"), dict(type="SiLU")),
        "fcn_r18_relu6_no_norm": lambda: layers(None, dict(type="ReLU6")),
    }


def dice():
    model = small("fcn", "ResNetV1c", 18)
    model["decode_head"]["loss_decode"] = [
        dict(type="CrossEntropyLoss", avg_non_ignore=True, loss_weight=1.0, loss_name="loss_ce"),
        dict(type="DiceLoss", loss_weight=3.0, loss_name="loss_dice"),
    ]
    model["auxiliary_head"]["sampler"] = dict(type="OHEMPixelSampler", thresh=0.7, min_kept=500)
    return model


def network(config):
    from mmengine.config import Config

    model = peer.build(config)
    pictures = [picture("image.0"), picture("image.1")]
    maps = [labels("label.0"), labels("label.1")]
    if "rand_init" in str(config):
        # mmseg registers these bases when they are first used.
        data = model.data_preprocessor(peer.packed(pictures), False)
        model.eval()._forward(data["inputs"])
    weights(model)
    golden = dict(model=config, stride=STRIDE)
    model.eval()
    for mode in ["whole", "slide"]:
        model.test_cfg = Config(dict(config["test_cfg"], mode=mode))
        data = model.data_preprocessor(peer.packed(pictures), False)
        with torch.no_grad():
            logits = model.inference(data["inputs"], [s.metainfo for s in data["data_samples"]])
        golden[mode] = [float(f"{v:.6g}") for v in logits.flatten()[::STRIDE].tolist()]
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=0.0005)
    golden["losses"] = []
    for step in range(STEPS):
        data = model.data_preprocessor(peer.packed(pictures, maps), True)
        total, log = model.parse_losses(model(**data, mode="loss"))
        optimizer.zero_grad()
        total.backward()
        if step == 0:
            golden["gradient_norms"] = {
                n: float(f"{p.grad.norm().item():.6g}")
                for n, p in model.named_parameters()
                if p.grad is not None
            }
        optimizer.step()
        golden["losses"].append({k: float(f"{float(v):.6g}") for k, v in log.items()})
    for kind in ["running_mean", "running_var"]:
        norm = torch.cat([b.flatten() for n, b in model.named_buffers() if n.endswith(kind)]).norm()
        golden[kind] = float(f"{norm.item():.6g}")
    return golden


def schedules():
    cases = {
        "poly": (
            40000,
            0.01,
            [dict(type="PolyLR", eta_min=1e-4, power=0.9, begin=0, end=40000, by_epoch=False)],
        ),
        "warmup_poly": (
            8000,
            6e-5,
            [
                dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1500),
                dict(type="PolyLR", eta_min=0.0, power=1.0, begin=1500, end=8000, by_epoch=False),
            ],
        ),
        "linear_multistep": (
            3000,
            0.02,
            [
                dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
                dict(
                    type="MultiStepLR",
                    begin=0,
                    end=3000,
                    milestones=[1600, 2200, 2201],
                    gamma=0.3,
                    by_epoch=False,
                ),
            ],
        ),
        "constant_cosine": (
            2000,
            0.05,
            [
                dict(type="ConstantLR", factor=0.3333, by_epoch=False, begin=0, end=100),
                dict(
                    type="CosineAnnealingLR",
                    T_max=1900,
                    eta_min=1e-5,
                    by_epoch=False,
                    begin=100,
                    end=2000,
                ),
            ],
        ),
    }
    golden = {}
    for name, (iterations, lr, configs) in cases.items():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
        made = [PARAM_SCHEDULERS.build(dict(config, optimizer=optimizer)) for config in configs]
        every, samples = max(1, iterations // 40), []
        for iteration in range(iterations):
            if iteration % every == 0 or iteration == iterations - 1:
                samples.append([iteration, optimizer.param_groups[0]["lr"]])
            optimizer._opt_called = True
            for scheduler in made:
                scheduler.step()
        golden[name] = dict(lr=lr, param_scheduler=configs, samples=samples)
    return golden


def write(name, value):
    peer.write_json(os.path.join(here, f"{name}.json"), value, indent=None)
    print(name, os.path.getsize(os.path.join(here, f"{name}.json")), flush=True)


asked = sys.argv[1:]
for name, made in models().items():
    if not asked or name in asked:
        write(f"models/{name}", network(made()))
if not asked or "schedules" in asked:
    write("schedules", schedules())
