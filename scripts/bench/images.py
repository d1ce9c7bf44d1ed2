"""images.py FOLDER: made images of the sizes that the recipes see (ADE20K: JPEG 683x512; Cityscapes: PNG 2048x1024), and a checkpoint."""

import os
import sys

import cv2
import numpy as np
import side  # noqa: F401  (finds the parity scripts)

import peer
from mmengine.config import Config


def main():
    folder = os.path.abspath(sys.argv[1])
    if os.path.exists(f"{folder}/ready"):
        return
    rng = np.random.default_rng(9)
    for split, count in [("training", 24), ("validation", 100)]:
        os.makedirs(f"{folder}/ade/images/{split}", exist_ok=True)
        os.makedirs(f"{folder}/ade/annotations/{split}", exist_ok=True)
        for index in range(count):
            cv2.imwrite(
                f"{folder}/ade/images/{split}/{index:04}.jpg",
                peer.image(512, 683, rng),
                [cv2.IMWRITE_JPEG_QUALITY, 93],
            )
            cv2.imwrite(
                f"{folder}/ade/annotations/{split}/{index:04}.png",
                peer.label_map(512, 683, 150, rng, ignored=False) + 1,
            )
    city = f"{folder}/cityscapes"
    os.makedirs(f"{city}/leftImg8bit/train/a", exist_ok=True)
    os.makedirs(f"{city}/gtFine/train/a", exist_ok=True)
    for index in range(8):
        cv2.imwrite(
            f"{city}/leftImg8bit/train/a/a_{index:06}_000019_leftImg8bit.png",
            peer.image(1024, 2048, rng),
        )
        cv2.imwrite(
            f"{city}/gtFine/train/a/a_{index:06}_000019_gtFine_labelTrainIds.png",
            peer.label_map(1024, 2048, 19, rng),
        )
    model = peer.segmentor("psp", 18, 150)
    peer.write_checkpoint(f"{folder}/checkpoint.pth", peer.randomise(peer.build(model), 10), 150)
    section = dict(
        type="ADE20KDataset",
        data_root=f"{folder}/ade",
        data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(256, 192), keep_ratio=True),
            dict(type="LoadAnnotations", reduce_zero_label=True),
            dict(type="PackSegInputs"),
        ],
    )
    loader = dict(
        batch_size=1,
        num_workers=1,
        persistent_workers=True,
        sampler=dict(type="DefaultSampler", shuffle=False),
        dataset=section,
    )
    ours = dict(
        model=model,
        test_dataloader=loader,
        test_evaluator=dict(type="IoUMetric", iou_metrics=["mIoU"]),
        test_cfg=dict(type="TestLoop"),
    )
    peer.write_config(f"{folder}/test.yaml", ours)
    theirs = dict(
        default_scope="mmseg",
        env_cfg=dict(
            cudnn_benchmark=False,
            mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
            dist_cfg=dict(backend="gloo"),
        ),
        visualizer=dict(
            type="SegLocalVisualizer",
            vis_backends=[dict(type="LocalVisBackend")],
            name="visualizer",
        ),
        default_hooks=dict(
            logger=dict(type="LoggerHook", interval=50),
            visualization=dict(type="SegVisualizationHook"),
        ),
        log_level="INFO",
        load_from=None,
        resume=False,
    )
    Config({**ours, **theirs}).dump(f"{folder}/test.py")
    open(f"{folder}/ready", "w").close()


main()
