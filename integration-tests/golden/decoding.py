"""Writes decoding.json: image files of every kind, and the pixels that OpenCV's imread makes of them.

Run by hand, from the repository root, when a case is added:

    "$(scripts/peer.sh)" integration-tests/golden/decoding.py

with tifffile and imagecodecs installed beside it. Label maps stand in it as Pillow opens them.
"""

import io
import json
import os
import struct
import zlib

import cv2
import numpy as np
import tifffile
from PIL import Image

here = os.path.dirname(os.path.abspath(__file__))
HEIGHT, WIDTH = 35, 27  # Neither fills its last block; three stripes of blocks.


def picture(channels):
    """Waves of another length in each channel, with an edge."""
    y, x, c = np.mgrid[:HEIGHT, :WIDTH, :channels]
    waves = 127 + 90 * np.sin(x / (2 + c) + y / (5 - c % 3)) * np.cos(y / (3 + c))
    return np.where(x + y > 40, 255 - waves, waves).astype(np.uint8)


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def image(channels, mode=None):
    pixels = picture(channels)
    mode = mode or {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels, mode)


def encoded(channels, **options):
    return saved(image(channels, "CMYK" if channels == 4 else None), "JPEG", quality=85, **options)


def deep(channels, end):
    """16 bits a channel, written by OpenCV."""
    pixels = picture(channels).astype(np.uint16) * 257 - 90
    return cv2.imencode(end, pixels[..., 0] if channels == 1 else pixels)[1].tobytes()


def tagged(bits, channels=1, byteorder="<", **options):
    """A TIFF as tifffile writes it."""
    pixels = picture(channels).astype(np.uint16 if bits > 8 else np.uint8)
    pixels = pixels * 257 - 90 if bits > 8 else pixels >> 8 - bits
    pixels = pixels[..., 0] if channels == 1 else pixels
    if options.get("planarconfig") == "separate":
        pixels = pixels.transpose(2, 0, 1)
    if bits < 8:
        options["bitspersample"] = bits
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, byteorder=byteorder, **options)
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
HEIGHT, WIDTH = 11, 13  # No blocks in what follows.


def four_bits():
    """A BMP of 4 bits a pixel, which none of the writers here makes."""
    indices = np.array(few)[::-1]
    padded = np.zeros((HEIGHT, 32), np.uint8)
    padded[:, :WIDTH] = indices
    rows = (padded[:, ::2] << 4 | padded[:, 1::2]).tobytes()
    palette = b"".join(
        bytes([blue, green, red, 0])
        for red, green, blue in np.array(few.getpalette()[:48]).reshape(16, 3).tolist()
    )
    header = struct.pack("<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, 4, 0, len(rows), 2835, 2835, 16, 0)
    return (
        b"BM"
        + struct.pack("<IHHI", 14 + 40 + 64 + len(rows), 0, 0, 14 + 40 + 64)
        + header
        + palette
        + rows
    )


def sixteen_bits(green):
    """A BMP of 5 bits a colour, or of 6 for green."""
    blue, of_green, red = (picture(3)[::-1, :, it].astype(np.uint16) for it in range(3))
    pixels = np.zeros((HEIGHT, WIDTH + WIDTH % 2), np.uint16)
    pixels[:, :WIDTH] = red >> 3 << 5 + green | of_green >> 8 - green << 5 | blue >> 3
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F) if green == 6 else b""
    start = 14 + 40 + len(masks)
    header = struct.pack(
        "<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, 16, 3 if masks else 0, pixels.nbytes, 2835, 2835, 0, 0
    )
    return (
        b"BM"
        + struct.pack("<IHHI", start + pixels.nbytes, 0, 0, start)
        + header
        + masks
        + pixels.tobytes()
    )


def damaged(where, mend):
    """A PNG with one byte of its compressed pixels, or of the sum behind them, changed; `mend` makes its chunk whole again."""
    file = bytearray(saved(image(3), "PNG"))
    data = file.index(b"IDAT") + 4
    end = data + struct.unpack(">I", file[data - 8 : data - 4])[0]
    file[
        {"middle": (data + end) // 2, "sum of bytes": end - 1, "sum of the chunk": end}[where]
    ] ^= 0xFF
    if mend:
        file[end : end + 4] = struct.pack(">I", zlib.crc32(file[data - 4 : end]))
    return bytes(file)


colours, grey, clear = image(3), image(1), image(4)
painted = colours.quantize(37)
few = colours.quantize(16)
bits = grey.point(lambda it: 255 * (it > 120)).convert("1")


files.update(
    {
        **{
            f"TIFF, {name}": saved(it, "TIFF")
            for name, it in dict(
                colours=colours, grey=grey, clear=clear, painted=painted, bits=bits
            ).items()
        },
        **{
            f"TIFF, {name}": saved(colours, "TIFF", compression=name)
            for name in ["tiff_lzw", "tiff_deflate", "packbits"]
        },
        "TIFF, grey and clear": saved(image(2), "TIFF"),
        "TIFF, inks": saved(image(4, "CMYK"), "TIFF"),
        **{f"TIFF, {bits} bits of grey": tagged(bits, photometric="minisblack") for bits in [2, 4]},
        "TIFF, white is zero": tagged(8, photometric="miniswhite"),
        "TIFF, planes": tagged(8, channels=3, planarconfig="separate", photometric="rgb"),
        "TIFF, other end first": tagged(8, channels=3, byteorder=">", photometric="rgb"),
        "TIFF, weighed": tagged(8, channels=4, extrasamples=["assocalpha"], photometric="rgb"),
        "TIFF, a fourth channel": tagged(
            8, channels=4, extrasamples=["unspecified"], photometric="rgb"
        ),
        "TIFF, 16 bits, clear": tagged(
            16, channels=4, extrasamples=["unassalpha"], photometric="rgb"
        ),
        **{
            f"TIFF, turned {way}": saved(colours, "TIFF", tiffinfo={274: way})
            for way in range(2, 9)
        },
        "TIFF, two pages": saved(colours, "TIFF", save_all=True, append_images=[grey]),
        "TIFF, 16 bits, grey": deep(1, ".tiff"),
        "TIFF, 16 bits, colours": deep(3, ".tiff"),
        **{
            f"BMP, {name}": saved(it, "BMP")
            for name, it in dict(
                colours=colours, grey=grey, clear=clear, painted=painted, bits=bits
            ).items()
        },
        "BMP, few": four_bits(),
        "PNG, few": saved(few, "PNG", bits=4),
        "WebP, lossless": saved(colours, "WEBP", lossless=True),
        "WebP, lossless, clear": saved(clear, "WEBP", lossless=True, exact=True),
        "WebP": saved(colours, "WEBP", quality=70),
        "WebP, clear": saved(clear, "WEBP", quality=70),
        **{
            f"PNG, {name}": saved(it, "PNG")
            for name, it in dict(
                colours=colours, grey=grey, clear=clear, painted=painted, bits=bits
            ).items()
        },
        "PNG, grey and clear": saved(image(2), "PNG"),
        "PNG, 16 bits, grey": deep(1, ".png"),
        "PNG, 16 bits, colours": deep(3, ".png"),
        "PNG, one colour is clear": saved(painted, "PNG", transparency=3),
        **{
            f"BigTIFF, {name}": saved(it, "TIFF", big_tiff=True)
            for name, it in dict(
                colours=colours, grey=grey, clear=clear, painted=painted, bits=bits
            ).items()
        },
        "BigTIFF, turned": saved(colours, "TIFF", big_tiff=True, tiffinfo={274: 6}),
        "BigTIFF, other end first": tagged(
            8, channels=3, byteorder=">", photometric="rgb", bigtiff=True
        ),
        **{
            f"TIFF, {channels} bands": tagged(
                8, channels=channels, photometric="minisblack", planarconfig="contig"
            )
            for channels in [5, 8]
        },
        "BMP, 5 bits": sixteen_bits(5),
        "BMP, 6 bits of green": sixteen_bits(6),
        "PNG, middle": damaged("middle", False),
        "PNG, middle, mended": damaged("middle", True),
        "PNG, sum of bytes": damaged("sum of bytes", True),
        "PNG, sum of the chunk": damaged("sum of the chunk", False),
    }
)
# Of one channel, whose values fit a byte.
LABELS = [
    f"{kind}, {what}"
    for kind in ["TIFF", "BigTIFF", "BMP", "PNG"]
    for what in ["grey", "painted", "bits", "few"]
] + ["TIFF, 2 bits of grey", "TIFF, 4 bits of grey"]
cases = []
for name, file in files.items():
    pixels = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
    case = dict(name=name, file=file.hex())
    if pixels is not None:
        case.update(shape=list(pixels.shape[:2]), pixels=pixels.tobytes().hex())
    if name in LABELS:
        case["labels"] = np.array(Image.open(io.BytesIO(file))).astype(np.uint8).tobytes().hex()
    cases.append(case)
with open(os.path.join(here, "decoding.json"), "w") as file:
    file.write("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
