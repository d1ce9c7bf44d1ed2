"""transforms.py RECIPE FOLDER N: mmseg's training transforms, files to packed samples, in one process."""

import sys
import time

import side

ROOT = {
    "ade20k": ("images/training", ".jpg", True),
    "cityscapes": ("leftImg8bit/train/a", ".png", False),
}


def pipeline(recipe):
    scale, crop = {"ade20k": ((2048, 512), (512, 512)), "cityscapes": ((2048, 1024), (512, 1024))}[
        recipe
    ]
    return [
        dict(type="LoadImageFromFile"),
        dict(type="LoadAnnotations", reduce_zero_label=recipe == "ade20k"),
        dict(type="RandomResize", scale=scale, ratio_range=(0.5, 2.0), keep_ratio=True),
        dict(type="RandomCrop", crop_size=crop, cat_max_ratio=0.75),
        dict(type="RandomFlip", prob=0.5),
        dict(type="PhotoMetricDistortion"),
        dict(type="PackSegInputs"),
    ]


def dataset(recipe, root):
    """The dataset's section of a config."""
    if recipe == "ade20k":
        prefix = dict(img_path="images/training", seg_map_path="annotations/training")
        section = dict(type="ADE20KDataset", data_root=root, data_prefix=prefix)
    else:
        prefix = dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train")
        section = dict(type="CityscapesDataset", data_root=root, data_prefix=prefix)
    return dict(section, pipeline=pipeline(recipe))


def main():
    import peer
    from mmseg.registry import DATASETS

    recipe, root, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
    samples = DATASETS.build(dataset(recipe, root))
    peer.seed(1)
    for index in range(4):
        samples[index % len(samples)]
    wall, cpu = time.perf_counter(), time.process_time()
    for index in range(n):
        samples[index % len(samples)]
    side.report(images=n, wall=time.perf_counter() - wall, cpu=time.process_time() - cpu)


if __name__ == "__main__":
    main()
