"""Ten optimizer steps from given weights on given batches: every loss, the first step's gradients and running statistics.

A loss in training is no smooth function: ReLUs, and batch norms over the two values of a 1x1 pooling, make of a rounding error
what the next steps enlarge. So that ten steps can be compared at all, the learning rate is mmseg's for a batch of two (0.01 for
16) and the residual branches begin small. How far mmseg's own losses move when its pixels change by 1e-7 is measured with each
case: a case where that is more than half of what we are held to would prove nothing.
"""

import contextlib
import os

import numpy as np
import torch
from mmengine.optim import build_optim_wrapper

import peer

STEPS = 10
NOISE = 1e-7
SIZE = (81, 97)
SGD = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.00125, momentum=0.9, weight_decay=0.0005),
    clip_grad=None,
)
ADAMW = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=0.0006, betas=[0.9, 0.999], weight_decay=0.01),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_lr_mult=2.0,
        custom_keys={"decode_head": dict(lr_mult=10.0), "backbone.stem": dict(decay_mult=0.5)},
    ),
    clip_grad=dict(max_norm=1.0, norm_type=2),
    accumulative_counts=2,
)
NESTEROV = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.00125, momentum=0.9, weight_decay=0.0005, nesterov=True),
    clip_grad=dict(max_norm=35, norm_type=2),
)
ADAM = dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=0.0001, weight_decay=0.0001))


def batches(classes, number, ignored):
    """Ten batches of two; unless nothing may be ignored, the images of the odd ones are smaller than the size and so padded by the preprocessor."""
    rng = np.random.default_rng(number)
    made = []
    for step in range(STEPS):
        sizes = (
            [SIZE, SIZE]
            if step % 2 == 0 or not ignored
            else [(SIZE[0] - 7, SIZE[1]), (SIZE[0], SIZE[1] - 11)]
        )
        made.append(
            (
                [peer.image(*s, rng) for s in sizes],
                [peer.label_map(*s, classes, rng, ignored) for s in sizes],
            )
        )
    return made


def begin(config, number):
    """The model with weights of its number. The last norm of a residual branch is small, as mmseg (`zero_init_residual`) has it at the start."""
    peer.seed(number)  # Some layers keep the weights that they were made with.
    model = peer.randomise(peer.build(config), number)
    with torch.no_grad():
        for block in model.backbone.modules():
            if hasattr(block, "conv2") and hasattr(block, "norm2"):
                (block.norm3 if hasattr(block, "conv3") else block.norm2).weight.mul_(0.01)
    return model


def steps(name, config, optim_wrapper, number, made, amp, noise):
    """The losses of every step; without noise, what belongs to the case is written."""
    model = begin(config, number)
    if not noise:
        peer.write_checkpoint(f"{name}/checkpoint.pth", model, config["decode_head"]["num_classes"])
    wrapper = build_optim_wrapper(model, peer.plain(optim_wrapper))
    wrapper.initialize_count_status(model, 0, STEPS)
    model.train()
    curve = []
    for step, (pictures, labels) in enumerate(made):
        context = torch.autocast("cpu", dtype=amp) if amp else contextlib.nullcontext()
        with context:
            data = model.data_preprocessor(peer.packed(pictures, labels), True)
            if noise:
                exact = data["inputs"].double()
                data["inputs"] = (exact * (1 + noise * torch.randn_like(exact))).float()
            losses = model(**data, mode="loss")
        total, log = model.parse_losses(losses)
        curve.append({key: float(value) for key, value in log.items()})
        if step == 0 and not noise:
            peer.write_tensors(f"{name}/buffers.safetensors", dict(model.named_buffers()))
            # The gradients before accumulation scales them, and before clipping.
            total.backward(retain_graph=True)
            peer.write_tensors(
                f"{name}/gradients.safetensors",
                {n: p.grad for n, p in model.named_parameters() if p.grad is not None},
            )
            for parameter in model.parameters():
                parameter.grad = None
        wrapper.update_params(total)
    return curve


def apart(curve, other):
    """The largest difference of a loss, relative to it."""
    return max(
        abs(ours[key] - theirs[key]) / abs(theirs[key])
        for ours, theirs in zip(curve, other)
        for key in theirs
        if "loss" in key
    )


def run(name, config, optim_wrapper, number, amp=None, ignored=True):
    os.makedirs(name)
    config = dict(config, data_preprocessor=dict(peer.PREPROCESSOR, size=list(SIZE)))
    peer.write_config(f"{name}/config.yaml", dict(model=config, optim_wrapper=optim_wrapper))
    made = batches(config["decode_head"]["num_classes"], 1000 + number, ignored)
    tensors = {}
    for step, (pictures, labels) in enumerate(made):
        for i, (picture, label) in enumerate(zip(pictures, labels)):
            tensors[f"{step}.image.{i}"], tensors[f"{step}.label.{i}"] = picture, label
    peer.write_tensors(f"{name}/batches.safetensors", tensors)
    curve = steps(name, config, optim_wrapper, number, made, amp, 0.0)
    peer.write_json(f"{name}/losses.json", curve)
    spread = apart(steps(name, config, optim_wrapper, number, made, amp, NOISE), curve)
    peer.write_json(f"{name}/spread.json", spread)
    print(name, [round(c["loss"], 4) for c in curve], spread, flush=True)


def main():
    for number, (name, config) in enumerate(peer.cases().items()):
        run(name, config, SGD, 300 + number)
    small = peer.segmentor("psp", 18, 19)
    run("adamw_clip_accumulate", small, ADAMW, 310)
    run("nesterov_clip", small, NESTEROV, 311)
    run("adam", small, ADAM, 312)
    run("amp_bf16", small, SGD, 313, amp=torch.bfloat16)
    frozen = peer.segmentor("psp", 50, 19)
    frozen["backbone"].update(frozen_stages=1, norm_eval=True, type="ResNetV1d")
    run("frozen_norm_eval_v1d", frozen, SGD, 314)
    weights = peer.segmentor("fcn", 18, 6)
    weights["decode_head"]["loss_decode"]["class_weight"] = [0.5, 1.0, 1.5, 2.0, 0.8, 1.2]
    run(
        "class_weight", weights, SGD, 315, ignored=False
    )  # mmseg indexes the weights by 255 where a pixel is ignored.
    losses = peer.segmentor("fcn", 18, 6)
    losses["decode_head"]["loss_decode"] = [
        dict(type="CrossEntropyLoss", loss_weight=1.0, avg_non_ignore=True, loss_name="loss_ce"),
        dict(type="DiceLoss", loss_weight=3.0, loss_name="loss_dice"),
    ]
    losses["auxiliary_head"]["sampler"] = dict(type="OHEMPixelSampler", thresh=0.7, min_kept=2000)
    run("dice_ohem_non_ignore", losses, SGD, 317)
    sigmoid = peer.segmentor("fcn", 18, 6)
    sigmoid["decode_head"]["loss_decode"] = dict(
        type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0
    )
    run("sigmoid", sigmoid, SGD, 316)


if __name__ == "__main__":
    main()
