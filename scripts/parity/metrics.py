"""A made dataset in ADE20K's layout, and the metric table that mmseg's own tools/test.py prints for it.

`metrics.py` makes all; `metrics.py test CONFIG.py CHECKPOINT OUT.json` runs only the peer's test, for a checkpoint of ours.
"""

import glob
import json
import os
import re
import subprocess
import sys

import numpy as np

CLASSES = 150
SIZES = [(97, 131), (120, 90), (75, 160), (128, 128)]
SCALE = (256, 96)


def pipeline(*resize):
    return [
        dict(type="LoadImageFromFile"),
        *(resize or [dict(type="Resize", scale=SCALE, keep_ratio=True)]),
        dict(type="LoadAnnotations", reduce_zero_label=True),
        dict(type="PackSegInputs"),
    ]


def config(model, suffix, root, mode):
    dataset = dict(
        type="ADE20KDataset",
        data_root=root,
        img_suffix=suffix,
        data_prefix=dict(img_path=f"images/{suffix[1:]}", seg_map_path="annotations/validation"),
        pipeline=pipeline(),
    )
    test_cfg = (
        dict(mode="whole")
        if mode != "slide"
        else dict(mode="slide", crop_size=[65, 81], stride=[43, 50])
    )
    return dict(
        model=dict(model, test_cfg=test_cfg),
        test_dataloader=dict(
            batch_size=1,
            num_workers=0,
            persistent_workers=False,
            sampler=dict(type="DefaultSampler", shuffle=False),
            dataset=dataset,
        ),
        test_evaluator=dict(type="IoUMetric", iou_metrics=["mIoU", "mDice", "mFscore"]),
        test_cfg=dict(type="TestLoop"),
        tta_model=dict(type="SegTTAModel"),
        tta_pipeline=[
            dict(type="LoadImageFromFile"),
            dict(
                type="TestTimeAug",
                transforms=[
                    [
                        dict(type="Resize", scale_factor=r, keep_ratio=True)
                        for r in [0.75, 1.0, 1.25]
                    ],
                    [
                        dict(type="RandomFlip", prob=0.0, direction="horizontal"),
                        dict(type="RandomFlip", prob=1.0, direction="horizontal"),
                    ],
                    [dict(type="LoadAnnotations", reduce_zero_label=True)],
                    [dict(type="PackSegInputs")],
                ],
            ),
        ],
    )


def only_mmseg():
    return dict(
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


def test(config_path, checkpoint, out, *more):
    """Runs tools/test.py and keeps its summary and its table."""
    import importlib.util

    mmseg = importlib.util.find_spec("mmseg").submodule_search_locations[0]
    work = out + ".work"
    environment = dict(os.environ, TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD="1")
    command = [
        sys.executable,
        f"{mmseg}/.mim/tools/test.py",
        config_path,
        checkpoint,
        "--work-dir",
        work,
        *more,
    ]
    subprocess.run(command, check=True, env=environment)
    with open(glob.glob(f"{work}/*/2*.json")[-1]) as file:
        summary = json.loads(file.readlines()[-1])
    columns, rows = [], {}
    for line in open(glob.glob(f"{work}/*/*.log")[-1]):
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and cells[0] == "Class":
            columns = cells[1:]
        elif line.startswith("|"):
            rows[cells[0]] = {
                name: None if cell == "nan" else float(cell)
                for name, cell in zip(columns, cells[1:])
            }
    summary = {k: v for k, v in summary.items() if re.fullmatch("aAcc|m[A-Z].*", k)}
    assert len(rows) == CLASSES, len(rows)
    with open(out, "w") as file:
        json.dump(dict(summary=summary, classes=rows), file, indent=1)
    print(out, summary, flush=True)


def make():
    import cv2
    import torch
    from mmengine.config import Config
    from mmengine.dataset import Compose

    import peer

    root = os.path.abspath("dataset")
    for folder in ["images/png", "images/jpg", "annotations/validation"]:
        os.makedirs(f"{root}/{folder}")
    section = peer.segmentor("psp", 18, CLASSES)
    model = peer.randomise(peer.build(section), 400)
    with torch.no_grad():
        model.decode_head.conv_seg.weight.mul_(30)  # Clear decisions, as a trained network's.
    peer.write_checkpoint("checkpoint.pth", model, CLASSES)
    rng = np.random.default_rng(401)
    prepare = Compose([t for t in pipeline() if t["type"] != "LoadAnnotations"])
    model.cfg = None
    model.test_cfg = Config(dict(mode="whole"))
    for index in range(12):
        picture = peer.image(*SIZES[index % len(SIZES)], rng)
        cv2.imwrite(f"{root}/images/png/{index:03}.png", picture)
        cv2.imwrite(f"{root}/images/jpg/{index:03}.jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])
        data = prepare(dict(img_path=f"{root}/images/png/{index:03}.png"))
        with torch.no_grad():
            result = model.test_step(
                dict(inputs=[data["inputs"]], data_samples=[data["data_samples"]])
            )[0]
        labels = result.pred_sem_seg.data[0].numpy().astype(np.uint8)
        wrong = peer.label_map(*labels.shape, CLASSES, rng, ignored=False)
        labels = (
            np.where(
                rng.random((1, 1)) + cv2.resize(rng.random((6, 6)), labels.shape[::-1]) > 1.1,
                wrong,
                labels,
            )
            + 1
        )
        labels[peer.label_map(*labels.shape, 10, rng, ignored=False) == 3] = (
            0  # ADE20K's unlabelled.
        )
        cv2.imwrite(f"{root}/annotations/validation/{index:03}.png", labels.astype(np.uint8))
    for name, suffix, mode, more in [
        ("whole", ".png", "whole", []),
        ("slide", ".png", "slide", []),
        ("jpeg", ".jpg", "whole", []),
        ("tta", ".png", "whole", ["--tta"]),
    ]:
        ours = config(section, suffix, root, mode)
        peer.write_config(f"{name}.yaml", ours)
        Config({**tuples(ours), **only_mmseg()}).dump(f"{name}.py")
        test(f"{name}.py", "checkpoint.pth", f"{name}.json", *more)


def tuples(value, key=None):
    """mmcv asserts that sizes are tuples."""
    if isinstance(value, dict):
        return {k: tuples(v, k) for k, v in value.items()}
    if isinstance(value, list) and key in ("scale", "crop_size", "stride"):
        return tuple(value)
    if isinstance(value, list):
        return [tuples(v) for v in value]
    return value


if sys.argv[1:2] == ["test"]:
    test(*sys.argv[2:])
else:
    make()
