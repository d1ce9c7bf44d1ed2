"""Random-weight checkpoints, and the logits and label maps of whole and slide inference."""

import os

import numpy as np
import torch

import peer

CROP, STRIDE = [65, 81], [43, 50]


def inference(model, inputs, metas, mode):
    model.test_cfg = dict(
        whole=dict(mode="whole"), slide=dict(mode="slide", crop_size=CROP, stride=STRIDE)
    )[mode]
    model.test_cfg = type("TestCfg", (dict,), {"__getattr__": dict.__getitem__})(model.test_cfg)
    return model.inference(inputs, metas)


def main():
    # (name, image sizes, original sizes, size divisor of the test padding)
    runs = [
        ("one", [(97, 129)], [(97, 129)], None),
        ("two", [(89, 115)] * 2, [(133, 171), (61, 80)], None),
        ("padded", [(75, 101)], [(75, 101)], 32),
    ]
    index = []
    for number, (name, config) in enumerate(peer.cases().items()):
        os.makedirs(name)
        classes = config["decode_head"]["num_classes"]
        model = peer.randomise(peer.build(config), 100 + number)
        peer.write_config(f"{name}/config.yaml", dict(model=config))
        peer.write_checkpoint(f"{name}/checkpoint.pth", model, classes)
        rng = np.random.default_rng(200 + number)
        for run, sizes, ori_shapes, divisor in runs:
            pictures = [peer.image(*size, rng) for size in sizes]
            model.data_preprocessor.test_cfg = dict(size_divisor=divisor) if divisor else None
            tensors = {f"image.{i}": p for i, p in enumerate(pictures)}
            for mode in ["whole", "slide"]:
                data = model.data_preprocessor(peer.packed(pictures, ori_shapes=ori_shapes), False)
                metas = [s.metainfo for s in data["data_samples"]]
                with torch.no_grad():
                    logits = inference(model, data["inputs"], metas, mode)
                    results = model.postprocess_result(logits, data["data_samples"])
                tensors["input"] = data["inputs"]
                tensors[f"{mode}.logits"] = logits
                for i, result in enumerate(results):
                    tensors[f"{mode}.labels.{i}"] = result.pred_sem_seg.data[0].to(torch.uint8)
            peer.write_tensors(f"{name}/{run}.safetensors", tensors)
            index.append(
                dict(
                    model=name,
                    run=run,
                    ori_shapes=ori_shapes,
                    size_divisor=divisor,
                    crop_size=CROP,
                    stride=STRIDE,
                )
            )
        print(name, "done", flush=True)
    peer.write_json("index.json", index)


main()
