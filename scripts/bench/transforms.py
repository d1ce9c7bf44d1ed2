"""transforms.py RECIPE FOLDER N: mmseg's training transforms, files to packed samples, in one process."""

import sys
import time

import side

ROOT = {"ade20k": ("images/training", ".jpg", True), "cityscapes": ("leftImg8bit/train/a", ".png", False)}


def pipeline(recipe):
    scale, crop = {"ade20k": ((2048, 512), (512, 512)), "cityscapes": ((2048, 1024), (512, 1024))}[recipe]
    return [
        dict(type="LoadImageFromFile"),
        dict(type="LoadAnnotations", reduce_zero_label=recipe == "ade20k"),
        dict(type="RandomResize", scale=scale, ratio_range=(0.5, 2.0), keep_ratio=True),
        dict(type="RandomCrop", crop_size=crop, cat_max_ratio=0.75),
        dict(type="RandomFlip", prob=0.5),
        dict(type="PhotoMetricDistortion"),
        dict(type="PackSegInputs"),
    ]


def main():
    import peer
    from mmseg.registry import DATASETS

    recipe, root, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if recipe == "ade20k":
        prefix = dict(img_path="images/training", seg_map_path="annotations/training")
        dataset = dict(type="ADE20KDataset", data_root=root, data_prefix=prefix)
    else:
        prefix = dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train")
        dataset = dict(type="CityscapesDataset", data_root=root, data_prefix=prefix)
    dataset = DATASETS.build(dict(dataset, pipeline=pipeline(recipe)))
    peer.seed(1)
    for index in range(4):
        dataset[index % len(dataset)]
    wall, cpu = time.perf_counter(), time.process_time()
    for index in range(n):
        dataset[index % len(dataset)]
    side.report(images=n, wall=time.perf_counter() - wall, cpu=time.process_time() - cpu)


main()
