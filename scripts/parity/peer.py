"""What the parity scripts share: the models under test, made images and labels, and how results are written."""

import copy
import json
import os
import random

os.environ.setdefault(
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1"
)  # mmengine 0.10 predates the default of torch 2.6.

import cv2
import numpy as np
import torch
import yaml
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import register_all_modules
from safetensors.torch import save_file

register_all_modules(init_default_scope=True)

PREPROCESSOR = dict(
    type="SegDataPreProcessor",
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_val=0,
    seg_pad_val=255,
)
NORM = dict(type="BN", requires_grad=True)


def segmentor(head, depth, classes, align_corners=False, **changes):
    """The model section of an mmseg config, in plain lists so that the same text serves YAML."""
    wide = 2048 if depth >= 50 else 512
    channels = 512 if depth >= 50 else 128
    loss = dict(type="CrossEntropyLoss", use_sigmoid=False)
    common = dict(
        dropout_ratio=0.0, num_classes=classes, norm_cfg=NORM, align_corners=align_corners
    )
    main = {
        "psp": dict(type="PSPHead", pool_scales=[1, 2, 3, 6]),
        "fcn": dict(type="FCNHead", num_convs=2, concat_input=True),
    }[head]
    model = dict(
        type="EncoderDecoder",
        data_preprocessor=dict(PREPROCESSOR),
        pretrained=None,
        backbone=dict(
            type="ResNetV1c",
            depth=depth,
            num_stages=4,
            out_indices=[0, 1, 2, 3],
            dilations=[1, 1, 2, 4],
            strides=[1, 2, 1, 1],
            norm_cfg=NORM,
            norm_eval=False,
            style="pytorch",
            contract_dilation=True,
        ),
        decode_head=dict(
            **main,
            in_channels=wide,
            in_index=3,
            channels=channels,
            **common,
            loss_decode=dict(**loss, loss_weight=1.0),
        ),
        auxiliary_head=dict(
            type="FCNHead",
            in_channels=wide // 2,
            in_index=2,
            channels=channels // 2,
            num_convs=1,
            concat_input=False,
            **common,
            loss_decode=dict(**loss, loss_weight=0.4),
        ),
        train_cfg=dict(),
        test_cfg=dict(mode="whole"),
    )
    model.update(changes)
    return model


def cases():
    """The four networks that parity is shown for."""
    return {
        "pspnet_r18": segmentor("psp", 18, 19),
        "pspnet_r50": segmentor("psp", 50, 150),
        "pspnet_r101": segmentor("psp", 101, 19, align_corners=True),
        "fcn_r50": segmentor("fcn", 50, 21),
    }


def seed(number):
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def image(height, width, rng):
    """A picture with gradients, shapes, texture and noise: u8 [h, w, 3], BGR."""
    coarse = rng.integers(0, 256, (max(2, height // 24), max(2, width // 24), 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(12):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(4, max(5, width // 4))), int(rng.integers(4, max(5, height // 4))))
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        cv2.ellipse(picture, centre, axes, float(rng.integers(180)), 0, 360, colour, -1)
    noise = rng.normal(0, 6, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def label_map(height, width, classes, rng, ignored=True):
    """Regions of classes, with 255 here and there: u8 [h, w]."""
    coarse = rng.integers(0, classes, (max(2, height // 16), max(2, width // 16)), dtype=np.uint8)
    labels = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)
    for _ in range(12):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(3, max(4, width // 5))), int(rng.integers(3, max(4, height // 5))))
        value = 255 if ignored and rng.random() < 0.2 else int(rng.integers(classes))
        cv2.ellipse(labels, centre, axes, float(rng.integers(180)), 0, 360, value, -1)
    return labels


def with_tuples(config):
    """A copy with tuples where mmseg insists on them."""
    if isinstance(config, dict):
        insists = config.get("type") in ["CGNet", "JPU", "LRASPPHead", "MobileNetV3"]
        found = {key: with_tuples(value) for key, value in config.items()}
        return {
            key: tuple(value) if insists and isinstance(value, list) else value
            for key, value in found.items()
        }
    if isinstance(config, (list, tuple)):
        return type(config)(with_tuples(value) for value in config)
    return config


def build(config):
    if "mmpretrain." in str(config):
        import mmpretrain.models  # noqa: F401 (its models register themselves)
    model = MODELS.build(with_tuples(config))
    model.cfg = config
    return model


def randomise(model, number):
    """mmseg's own initial weights, then norms and what begins at zero far from that: scales, shifts, and statistics near the true ones."""
    seed(number)
    model.init_weights()
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    rng = np.random.default_rng(number)
    size = getattr(model.data_preprocessor, "size", None) or (97, 113)
    # Smaller pictures are padded with labels to ignore.
    extent = (min(97, size[0]), min(113, size[1])) if takes_ignored(model) else tuple(size)
    head = model.decode_head[-1] if hasattr(model, "num_stages") else model.decode_head
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, (torch.nn.LayerNorm, torch.nn.GroupNorm)):
                norm.weight.uniform_(0.6, 1.4)
                norm.bias.normal_(0, 0.2)
        for name, parameter in model.named_parameters():
            if name.endswith((".gamma", "layer_scale_1", "layer_scale_2")):
                parameter.uniform_(0.1, 0.5)
            elif name.endswith("relative_position_bias_table"):
                parameter.normal_(0, 0.5)
        for norm in norms:
            norm.weight.uniform_(0.6, 1.4)
            norm.bias.normal_(0, 0.2)
            norm.reset_running_stats()
            norm.momentum, kept = None, norm.momentum  # None: the plain mean over the batches seen.
            norm.kept_momentum = kept
        model.train()
        for _ in range(2):
            pictures = [image(*extent, rng) for _ in range(2)]
            labels = [
                label_map(*extent, head.num_classes, rng, takes_ignored(model)) for _ in range(2)
            ]
            model(**model.data_preprocessor(packed(pictures, labels), True), mode="loss")
        for norm in norms:
            norm.momentum = norm.kept_momentum
            norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
            norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.8, 1.25)
            norm.num_batches_tracked.fill_(4321)
    return model.eval()


def takes_ignored(model):
    """Whether labels may be ignored: with class weights mmseg's cross entropy fails on them."""
    return "class_weight" not in str(model.cfg) or "OhemCrossEntropy" in str(model.cfg)


def packed(pictures, labels=None, ori_shapes=None):
    """Images (and labels) as mmseg's loader hands them to the preprocessor."""
    samples = []
    for index, picture in enumerate(pictures):
        height, width = picture.shape[:2]
        sample = SegDataSample()
        ori = ori_shapes[index] if ori_shapes else (height, width)
        sample.set_metainfo(
            dict(img_shape=(height, width), ori_shape=ori, pad_shape=(height, width), flip=False)
        )
        if labels is not None:
            sample.gt_sem_seg = PixelData(
                data=torch.from_numpy(labels[index][None].astype(np.int64))
            )
        samples.append(sample)
    inputs = [torch.from_numpy(np.ascontiguousarray(p.transpose(2, 0, 1))) for p in pictures]
    return dict(inputs=inputs, data_samples=samples)


def write_checkpoint(path, model, classes):
    """A .pth as mmengine's runner writes it, its message hub full of Python objects included."""
    from mmengine.logging import HistoryBuffer, MessageHub

    hub = MessageHub.get_instance(f"parity-{path}")
    for step in range(3):
        hub.update_scalar("train/loss", 1.0 / (step + 1))
    hub.update_info("iter", 3)
    state = hub.state_dict()
    assert isinstance(state["log_scalars"]["train/loss"], HistoryBuffer)
    meta = dict(epoch=0, iter=3, seed=1, experiment_name="parity", mmengine_version="0.10.7")
    meta["dataset_meta"] = dict(
        classes=[f"c{i}" for i in range(classes)], palette=[[i, i, i] for i in range(classes)]
    )
    torch.save(
        dict(meta=meta, state_dict=model.state_dict(), message_hub=state, param_schedulers=[]), path
    )


def write_config(path, config):
    with open(path, "w") as file:
        yaml.safe_dump(plain(config), file, sort_keys=False, default_flow_style=None)


def plain(value):
    """Tuples as lists, so that YAML and JSON take it."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def write_tensors(path, tensors):
    def tensor(value):
        value = (
            torch.from_numpy(np.ascontiguousarray(value))
            if isinstance(value, np.ndarray)
            else value.detach()
        )
        return value.contiguous().clone()

    save_file({name: tensor(value) for name, value in tensors.items()}, path)


def write_json(path, value, indent=1):
    with open(path, "w") as file:
        json.dump(plain(value), file, indent=indent)
