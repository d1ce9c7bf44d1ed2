"""Each transform of mmseg and mmcv with its random choices written down, on odd sizes; and the two training recipes as a whole."""

import copy

import cv2
import numpy as np
from mmseg.datasets.transforms import transforms as mmseg_transforms
from mmseg.registry import TRANSFORMS

import peer


class Draws:
    """numpy's random module, remembering what it gave."""

    def __init__(self):
        self.seen = []

    def __getattr__(self, name):
        def call(*args, **kwargs):
            value = getattr(np.random, name)(*args, **kwargs)
            self.seen.append((name, plain(value)))
            return value

        return call


def plain(value):
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def sample(height, width, number):
    rng = np.random.default_rng(number)
    return dict(
        img=peer.image(height, width, rng),
        gt_seg_map=peer.label_map(height, width, 19, rng),
        seg_fields=["gt_seg_map"],
        img_shape=(height, width),
        ori_shape=(height, width),
    )


def photometric(seen):
    """The draws of PhotoMetricDistortion in the order the transform makes them, by name."""
    seen = list(seen)

    def coin_then():
        return seen.pop(0)[1] if seen.pop(0)[1] else None

    chosen = dict(brightness=coin_then())
    chosen["contrast_first"] = bool(
        seen.pop(0)[1]
    )  # mode 1 applies contrast before saturation, mode 0 after hue
    if chosen["contrast_first"]:
        chosen["contrast"] = coin_then()
    chosen["saturation"] = coin_then()
    chosen["hue"] = coin_then()
    if not chosen["contrast_first"]:
        chosen["contrast"] = coin_then()
    assert not seen, seen
    return chosen


def apply(config, results):
    """Runs one transform; returns what it chose."""
    transform = TRANSFORMS.build(copy.deepcopy(config))
    kind = config["type"]
    chosen = {}
    if kind == "RandomCrop":
        # crop_bbox is cached only inside a cache_random_params context, so ask once and hold the answer.
        box = transform.crop_bbox(results)
        transform.crop_bbox = lambda _results: box
        chosen = dict(top=box[0], left=box[2], height=box[1] - box[0], width=box[3] - box[2])
    draws = Draws()
    kept, mmseg_transforms.random = mmseg_transforms.random, draws
    try:
        out = transform(results)
    finally:
        mmseg_transforms.random = kept
    if kind in ("RandomResize", "RandomChoiceResize"):
        chosen = dict(scale=out["scale"])
    elif kind == "RandomFlip":
        chosen = dict(direction=plain(out["flip_direction"]))
    elif kind == "PhotoMetricDistortion":
        chosen = photometric(draws.seen)
    elif draws.seen:
        chosen = dict(draws=draws.seen)
    return out, chosen


def recipes():
    crop_ade, crop_city = (96, 96), (96, 128)
    return {
        "ade20k": [
            dict(type="RandomResize", scale=(384, 96), ratio_range=(0.5, 2.0), keep_ratio=True),
            dict(type="RandomCrop", crop_size=crop_ade, cat_max_ratio=0.75),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PhotoMetricDistortion"),
        ],
        "cityscapes": [
            dict(type="RandomResize", scale=(256, 128), ratio_range=(0.5, 2.0), keep_ratio=True),
            dict(type="RandomCrop", crop_size=crop_city, cat_max_ratio=0.75),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PhotoMetricDistortion"),
        ],
    }


SINGLE = [
    ("resize_keep_up", dict(type="Resize", scale=(300, 200), keep_ratio=True), 1),
    ("resize_keep_down", dict(type="Resize", scale=(64, 48), keep_ratio=True), 1),
    ("resize_exact", dict(type="Resize", scale=(151, 83), keep_ratio=False), 1),
    ("resize_half", dict(type="Resize", scale_factor=0.5, keep_ratio=True), 1),
    ("resize_factor", dict(type="Resize", scale_factor=1.37, keep_ratio=True), 1),
    ("resize_same", dict(type="Resize", scale=(131, 97), keep_ratio=True), 1),
    (
        "random_resize",
        dict(type="RandomResize", scale=(260, 130), ratio_range=(0.5, 2.0), keep_ratio=True),
        6,
    ),
    (
        "random_choice_resize",
        dict(
            type="RandomChoiceResize",
            scales=[int(96 * x * 0.1) for x in range(5, 21)],
            resize_type="ResizeShortestEdge",
            max_size=384,
        ),
        4,
    ),
    ("crop", dict(type="RandomCrop", crop_size=(64, 80), cat_max_ratio=0.75), 3),
    ("crop_larger", dict(type="RandomCrop", crop_size=(200, 100)), 1),
    ("flip_horizontal", dict(type="RandomFlip", prob=1.0, direction="horizontal"), 1),
    ("flip_vertical", dict(type="RandomFlip", prob=1.0, direction="vertical"), 1),
    ("flip_diagonal", dict(type="RandomFlip", prob=1.0, direction="diagonal"), 1),
    ("photometric", dict(type="PhotoMetricDistortion"), 24),
    ("pad_size", dict(type="Pad", size=(160, 144), pad_val=dict(img=(7, 8, 9), seg=255)), 1),
    ("pad_divisor", dict(type="Pad", size_divisor=32, pad_val=dict(img=0, seg=255)), 1),
    ("pad_square", dict(type="Pad", pad_to_square=True, pad_val=dict(img=114, seg=255)), 1),
    ("resize_shortest_edge", dict(type="ResizeShortestEdge", scale=70, max_size=90), 1),
    ("resize_to_multiple", dict(type="ResizeToMultiple", size_divisor=32), 1),
]


def main():
    index, tensors = [], {}

    def record(name, config, before, run):
        tensors[f"{name}.before.image"], tensors[f"{name}.before.label"] = (
            before["img"],
            before["gt_seg_map"],
        )
        after, chosen = run(copy.deepcopy(before))
        tensors[f"{name}.after.image"], tensors[f"{name}.after.label"] = (
            after["img"],
            after["gt_seg_map"],
        )
        index.append(dict(name=name, transform=config, chosen=chosen))

    number = 600
    for name, config, times in SINGLE:
        for turn in range(times):
            number += 1
            peer.seed(number)
            size = [(97, 131), (120, 85), (131, 97)][turn % 3]
            record(
                f"{name}.{turn}",
                config,
                sample(*size, number),
                lambda results, config=config: apply(config, results),
            )
    for name, steps in recipes().items():
        for turn in range(12):
            number += 1
            peer.seed(number)

            def run(results, steps=steps):
                chosen = []
                for step in steps:
                    results, choice = apply(step, results)
                    chosen.append(choice)
                return results, chosen

            size = [(96, 128), (97, 141)][turn % 2] if name == "ade20k" else (128, 256)
            record(f"recipe_{name}.{turn}", steps, sample(*size, number), run)
    # Loading: zero as ignored, and every other label one lower.
    rng = np.random.default_rng(599)
    labels = peer.label_map(40, 50, 12, rng)
    loader = TRANSFORMS.build(dict(type="LoadAnnotations", reduce_zero_label=True))
    cv2.imwrite("labels.png", labels)
    loaded = loader(
        dict(seg_map_path="labels.png", seg_fields=[], reduce_zero_label=True, label_map=None)
    )
    tensors["reduce_zero_label.before.label"], tensors["reduce_zero_label.after.label"] = (
        labels,
        loaded["gt_seg_map"].astype(np.uint8),
    )
    tensors["reduce_zero_label.before.image"] = tensors["reduce_zero_label.after.image"] = np.zeros(
        (1, 1, 3), np.uint8
    )
    # Decoding: the files lie beside, the tensors are what OpenCV reads from them.
    files = dict(
        jpeg_420=[
            cv2.IMWRITE_JPEG_QUALITY,
            90,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
        ],
        jpeg_444=[
            cv2.IMWRITE_JPEG_QUALITY,
            90,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
        ],
        jpeg_422=[
            cv2.IMWRITE_JPEG_QUALITY,
            90,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
        ],
        jpeg_progressive=[cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
        png=[],
    )
    for name, options in files.items():
        path = f"{name}.{'png' if name == 'png' else 'jpg'}"
        cv2.imwrite(path, peer.image(97, 131, rng), options)
        tensors[f"decoded.{path}"] = TRANSFORMS.build(dict(type="LoadImageFromFile"))(
            dict(img_path=path)
        )["img"]
    cv2.imwrite("grey.png", peer.image(41, 53, rng)[:, :, 0])
    tensors["decoded.grey.png"] = TRANSFORMS.build(dict(type="LoadImageFromFile"))(
        dict(img_path="grey.png")
    )["img"]
    peer.write_tensors("samples.safetensors", tensors)
    peer.write_json("index.json", index)
    print(len(index), "samples", flush=True)


main()
