"""mmsegmentation's own configs: label maps, and the first step's losses, gradients and statistics.

Without arguments, one for each kind of model; `zoo.py FAMILY ...` writes every different model of a folder of configs: schedules, datasets and numbers of classes make no other model.
"""

import glob
import json
import os
import sys

import mmseg
import numpy as np
import torch
from mmengine.analysis import get_model_complexity_info
from mmengine.config import Config

import peer

KINDS = {
    "fcn": "fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py",
    "pspnet": "pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py",
    "pspnet_769": "pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-769x769.py",
    "deeplabv3": "deeplabv3/deeplabv3_r50-d8_4xb4-80k_ade20k-512x512.py",
    "deeplabv3_769": "deeplabv3/deeplabv3_r18-d8_4xb2-80k_cityscapes-769x769.py",
    "deeplabv3plus": "deeplabv3plus/deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512.py",
    "deeplabv3plus_r18": "deeplabv3plus/deeplabv3plus_r18-d8_4xb2-80k_cityscapes-512x1024.py",
    "upernet": "upernet/upernet_r50_4xb4-80k_ade20k-512x512.py",
    "upernet_r18": "upernet/upernet_r18_4xb2-40k_cityscapes-512x1024.py",
}
SIZE = (97, 129)
# Sizes that a family's models need.
SIZES = {"unet": (96, 128), "ddrnet": (96, 128), "mobilenet_v3": (401, 417)}
ROOT = os.path.join(os.path.dirname(mmseg.__file__), ".mim", "configs")


def without_luck(config):
    """Plain batch norms and no random numbers, here and below: what one rank computes."""
    if isinstance(config, dict):
        config = {key: without_luck(value) for key, value in config.items()}
        if config.get("type") == "SyncBN":
            config["type"] = "BN"
        for key in ["dropout_ratio", "drop_path_rate", "drop_rate", "attn_drop_rate"]:
            if key in config:
                config[key] = 0.0
        if config.get("type", "").endswith("Head"):
            config["dropout_ratio"] = 0.0
        if config.get("type") in ["SwinTransformer", "SVT"]:
            config["drop_path_rate"] = 0.0
        if config.get("type") == "LightHamHead":
            config["ham_kwargs"] = dict(config.get("ham_kwargs", {}), rand_init=False)
        # Weights come from the checkpoint that is written.
        for key in ["pretrained", "init_cfg"]:
            if key in config and (key == "pretrained" or "checkpoint" in str(config[key])):
                config[key] = None
        return config
    return (
        [without_luck(value) for value in config] if isinstance(config, (list, tuple)) else config
    )


def section(path):
    family = path.split("/")[0]
    size = SIZES.get(family, SIZE)
    model = without_luck(peer.plain(Config.fromfile(os.path.join(ROOT, path)).model.to_dict()))
    model["pretrained"] = None
    model["data_preprocessor"] = dict(model["data_preprocessor"], size=list(size))
    model["test_cfg"] = dict(mode="whole")
    return model


def without_weights(config):
    """Without keys that name weights, which are none here."""
    if isinstance(config, dict):
        return {
            key: without_weights(value)
            for key, value in config.items()
            if key not in ["pretrained", "init_cfg"] or value is not None
        }
    return [without_weights(it) for it in config] if isinstance(config, list) else config


def different(family):
    """The configs of each different model of a folder, by the name of the first."""
    found = {}
    for path in sorted(glob.glob(os.path.join(ROOT, family, "*.py"))):
        path = os.path.relpath(path, ROOT)
        model = section(path)
        if model["backbone"].get("in_channels", 3) != 3:
            continue  # LEVIR-CD's pairs of images are not read here.
        heads = model["decode_head"]
        for head in heads if isinstance(heads, list) else [heads]:
            head["num_classes"] = 19
        auxiliary = model.get("auxiliary_head") or []
        for head in auxiliary if isinstance(auxiliary, list) else [auxiliary]:
            if head["type"] != "STDCHead":
                head["num_classes"] = 19
        model["data_preprocessor"] = None
        key = json.dumps(without_weights(model), sort_keys=True)
        found.setdefault(key, []).append(path)
    return {os.path.basename(paths[0])[:-3]: paths for paths in found.values()}


def complexity(config, size):
    """What mmseg's tools/analysis_tools/get_flops.py finds, for an image of this size."""
    model = peer.build(config).eval()
    if hasattr(model, "auxiliary_head"):
        model.auxiliary_head = None
    found = get_model_complexity_info(
        model, input_shape=(3, *size), show_table=False, show_arch=False
    )
    return dict(size=list(size), multiply_adds=int(found["flops"]), parameters=int(found["params"]))


def spread(model, data, gradients):
    """How far mmseg's own gradients are from those that it has with other kernels, as the test measures ours."""
    model.zero_grad()
    with torch.backends.mkldnn.flags(enabled=False):
        model.parse_losses(model(**data, mode="loss"))[0].backward()
    rounding = 2e-4 * max(gradient.norm().item() for gradient in gradients.values())
    return {
        name: (parameter.grad - gradients[name]).norm().item()
        / max(gradients[name].norm().item(), rounding)
        for name, parameter in model.named_parameters()
        if name in gradients
    }


def run(number, name, path, counted):
    os.makedirs(name)
    config = section(path)
    size = tuple(config["data_preprocessor"]["size"])
    heads = (
        config["decode_head"]
        if isinstance(config["decode_head"], list)
        else [config["decode_head"]]
    )
    classes = heads[-1]["num_classes"]
    model = peer.randomise(peer.build(config), 400 + number)
    peer.write_config(f"{name}/config.yaml", dict(model=config))
    peer.write_checkpoint(f"{name}/checkpoint.pth", model, classes)
    rng = np.random.default_rng(500 + number)
    pictures = [peer.image(*size, rng) for _ in range(2)]
    ignored = peer.takes_ignored(model)
    labels = [peer.label_map(*size, classes, rng, ignored) for _ in range(2)]
    model.test_cfg = Config(config["test_cfg"])
    data = model.data_preprocessor(peer.packed(pictures), False)
    with torch.no_grad():
        logits = model.inference(data["inputs"], [s.metainfo for s in data["data_samples"]])
        results = model.postprocess_result(logits, data["data_samples"])
    tensors = {f"image.{i}": picture for i, picture in enumerate(pictures)}
    tensors.update({f"label.{i}": label for i, label in enumerate(labels)})
    tensors.update(
        {
            f"map.{i}": result.pred_sem_seg.data[0].to(torch.uint8)
            for i, result in enumerate(results)
        }
    )
    peer.write_tensors(f"{name}/pictures.safetensors", tensors)
    model.train()
    data = model.data_preprocessor(peer.packed(pictures, labels), True)
    total, log = model.parse_losses(model(**data, mode="loss"))
    total.backward()
    peer.write_json(f"{name}/losses.json", {key: float(value) for key, value in log.items()})
    peer.write_tensors(f"{name}/buffers.safetensors", dict(model.named_buffers()))
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    peer.write_tensors(f"{name}/gradients.safetensors", gradients)
    peer.write_json(f"{name}/spread.json", spread(model, data, gradients))
    if counted:
        peer.write_json(f"{name}/complexity.json", complexity(config, size))
    print(name, {key: round(float(value), 4) for key, value in log.items()}, flush=True)


def main():
    if not sys.argv[1:]:
        for number, (name, path) in enumerate(KINDS.items()):
            run(number, name, path, True)
    for family in sys.argv[1:]:
        models = different(family)
        for number, (name, paths) in enumerate(models.items()):
            run(number, name, paths[0], False)
        peer.write_json("../configs.json", {name: paths for name, paths in models.items()})


if __name__ == "__main__":
    main()
