"""Writes decoding.json: JPEG files of every kind, and the pixels that OpenCV's imread makes of them.

Run by hand, from the repository root, when a case is added:

    "$(scripts/peer.sh)" integration-tests/golden/decoding.py
"""

import io
import json
import os

import cv2
import numpy as np
from PIL import Image

here = os.path.dirname(os.path.abspath(__file__))
HEIGHT, WIDTH = 35, 27  # Neither fills its last block; three stripes of blocks.


def picture(channels):
    """Waves of another length in each channel, with an edge."""
    y, x, c = np.mgrid[:HEIGHT, :WIDTH, :channels]
    waves = 127 + 90 * np.sin(x / (2 + c) + y / (5 - c % 3)) * np.cos(y / (3 + c))
    return np.where(x + y > 40, 255 - waves, waves).astype(np.uint8)


def encoded(channels, **options):
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[channels]
    pixels = picture(channels)
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels, mode).save(file, "JPEG", quality=85, **options)
    return file.getvalue()


files = {
    "4:4:4": encoded(3, subsampling=0),
    "4:2:2": encoded(3, subsampling=1),
    "4:2:0": encoded(3, subsampling=2),
    "4:2:0, progressive": encoded(3, subsampling=2, progressive=True),
    "4:2:0, restarts": encoded(3, subsampling=2, restart_marker_blocks=1),
    "grey": encoded(1),
    "four inks": encoded(4),
}
cases = []
for name, file in files.items():
    pixels = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
    cases.append(dict(name=name, file=file.hex(), shape=list(pixels.shape[:2]), pixels=pixels.tobytes().hex()))
with open(os.path.join(here, "decoding.json"), "w") as file:
    file.write("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
