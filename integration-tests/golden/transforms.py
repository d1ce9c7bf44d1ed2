"""Writes transforms.json and state_dicts.json: OpenCV's resizes, mmseg's photometric distortion, mmseg's names of tensors.

Run by hand, from the repository root, when a case is added:

    "$(scripts/peer.sh)" integration-tests/golden/transforms.py
"""

import json
import os
import sys
import zlib

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "..", "scripts", "parity"))

import cv2
import numpy as np
from mmseg.datasets.transforms import transforms as mmseg_transforms

import peer
from formulas import numbers


def noise(name, height, width, channels):
    shape = (height, width) if channels == 1 else (height, width, channels)
    return (numbers(name, height * width * channels) * 256).astype(np.uint8).reshape(shape)


METHODS = dict(bicubic=cv2.INTER_CUBIC, area=cv2.INTER_AREA, lanczos=cv2.INTER_LANCZOS4)


def resizes():
    cases = []
    for source, target in [
        ((13, 17), (20, 27)),
        ((13, 17), (8, 11)),
        ((12, 16), (6, 8)),
        ((11, 15), (23, 9)),
        ((7, 9), (7, 21)),
        ((19, 23), (5, 4)),
        ((20, 24), (5, 6)),
        ((9, 1), (4, 3)),
    ]:
        name = f"{source}->{target}"
        image, label = noise(f"image {name}", *source, 3), noise(f"label {name}", *source, 1)
        cases.append(
            dict(
                name=name,
                source=source,
                target=target,
                bilinear=cv2.resize(image, target[::-1], interpolation=cv2.INTER_LINEAR)
                .tobytes()
                .hex(),
                **{
                    name: cv2.resize(image, target[::-1], interpolation=method).tobytes().hex()
                    for name, method in METHODS.items()
                },
                nearest=cv2.resize(label, target[::-1], interpolation=cv2.INTER_NEAREST)
                .tobytes()
                .hex(),
            )
        )
    # Where nearest neighbours are hard: the source's index of every column, for ratios that rounding could turn.
    rows = []
    for source, target in [
        (100, 333),
        (333, 100),
        (512, 683),
        (683, 512),
        (49, 343),
        (1000, 999),
        (201, 67),
        (255, 85),
    ]:
        places = np.arange(source, dtype=np.uint16).view(np.uint8).reshape(source, 2)
        low, high = (
            cv2.resize(
                np.ascontiguousarray(places[None, :, part]),
                (target, 1),
                interpolation=cv2.INTER_NEAREST,
            )[0].astype(int)
            for part in (0, 1)
        )
        found = low + 256 * high
        rows.append(
            dict(source=source, target=target, crc=zlib.crc32(found.astype("<u2").tobytes()))
        )
    return cases, rows


class Script:
    """numpy's random module with the answers given."""

    def __init__(self, answers):
        self.answers = list(answers)

    def randint(self, *_args):
        return self.answers.pop(0)

    uniform = randint


def photometric():
    cases = []
    for brightness, contrast_first, contrast, saturation, hue in [
        (17.5, True, 1.31, 0.63, -11),
        (-29.25, False, 0.57, 1.44, 17),
        (None, True, None, 1.5, None),
        (None, False, None, 0.5, None),
        (None, True, None, None, -18),
        (None, False, None, None, 9),
        (31.9, True, 1.49, None, None),
        (None, False, 0.5, None, None),
    ]:
        answers = []
        for value in (
            [brightness]
            + ["mode"]
            + ([contrast] if contrast_first else [])
            + [saturation, hue]
            + ([] if contrast_first else [contrast])
        ):
            answers += (
                [int(contrast_first)] if value == "mode" else [0] if value is None else [1, value]
            )
        transform = mmseg_transforms.PhotoMetricDistortion()
        script = Script(answers)
        kept, mmseg_transforms.random = mmseg_transforms.random, script
        try:
            image = transform(dict(img=noise("photometric", 8, 12, 3)))["img"]
        finally:
            mmseg_transforms.random = kept
        assert not script.answers
        cases.append(
            dict(
                brightness=brightness,
                contrast_first=contrast_first,
                contrast=contrast,
                saturation=saturation,
                hue=hue,
                image=image.tobytes().hex(),
            )
        )
    return cases


def state_dicts():
    """How many tensors, and the CRC-32 of a line for each: name, shape."""
    cases = {}
    models = dict(peer.cases(), fcn_r18=peer.segmentor("fcn", 18, 19))
    models["pspnet_r50_v1d"] = peer.segmentor("psp", 50, 19)
    models["pspnet_r50_v1d"]["backbone"]["type"] = "ResNetV1d"
    models["pspnet_r50_resnet"] = peer.segmentor("psp", 50, 19)
    models["pspnet_r50_resnet"]["backbone"]["type"] = "ResNet"
    for name, config in models.items():
        state = peer.build(config).state_dict()
        text = "".join(f"{key} {list(value.shape)}\n" for key, value in state.items())
        names = list(state)
        cases[name] = dict(
            model=config,
            tensors=len(state),
            first=names[0],
            last=names[-1],
            crc=zlib.crc32(text.encode()),
        )
        if name == "pspnet_r18":
            cases[name]["names"] = names
    return cases


def write(name, value):
    path = os.path.join(here, f"{name}.json")
    with open(path, "w") as file:
        json.dump(peer.plain(value), file, separators=(",", ":"))
        file.write("\n")
    print(name, os.path.getsize(path), flush=True)


cases, rows = resizes()
write("transforms", dict(resize=cases, nearest=rows, photometric=photometric()))
write("state_dicts", state_dicts())
