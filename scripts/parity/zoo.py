"""mmsegmentation's own configs, one for each kind of model: label maps, and the first step's losses, gradients and statistics.

Adding a model is a line of CONFIGS: the test finds what is here by itself.
"""

import os

import mmseg
import numpy as np
import torch
from mmengine.analysis import get_model_complexity_info
from mmengine.config import Config

import peer

CONFIGS = {
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


def without_luck(config):
    """Plain batch norms and no dropout, here and below: what one rank without random numbers computes."""
    if isinstance(config, dict):
        config = {key: without_luck(value) for key, value in config.items()}
        if config.get("type") == "SyncBN":
            config["type"] = "BN"
        for key in ["dropout_ratio", "drop_path_rate", "drop_rate", "attn_drop_rate"]:
            if key in config:
                config[key] = 0.0
        return config
    return (
        [without_luck(value) for value in config] if isinstance(config, (list, tuple)) else config
    )


def section(path):
    root = os.path.join(os.path.dirname(mmseg.__file__), ".mim", "configs")
    model = without_luck(peer.plain(Config.fromfile(os.path.join(root, path)).model.to_dict()))
    model["pretrained"] = None
    model["data_preprocessor"] = dict(model["data_preprocessor"], size=list(SIZE))
    model["test_cfg"] = dict(mode="whole")
    return model


def complexity(config):
    """What mmseg's tools/analysis_tools/get_flops.py finds, for an image of this size."""
    model = peer.build(config).eval()
    if hasattr(model, "auxiliary_head"):
        model.auxiliary_head = None
    found = get_model_complexity_info(
        model, input_shape=(3, *SIZE), show_table=False, show_arch=False
    )
    return dict(size=list(SIZE), multiply_adds=int(found["flops"]), parameters=int(found["params"]))


def run(number, name, path):
    os.makedirs(name)
    config = section(path)
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
    pictures = [peer.image(*SIZE, rng) for _ in range(2)]
    labels = [peer.label_map(*SIZE, classes, rng) for _ in range(2)]
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
    peer.write_tensors(
        f"{name}/gradients.safetensors",
        {n: p.grad for n, p in model.named_parameters() if p.grad is not None},
    )
    peer.write_json(f"{name}/complexity.json", complexity(config))
    print(name, {key: round(float(value), 4) for key, value in log.items()}, flush=True)


def main():
    for number, (name, path) in enumerate(CONFIGS.items()):
        run(number, name, path)


if __name__ == "__main__":
    main()
