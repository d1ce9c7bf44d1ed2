"""gpu_step.py BATCH fp32|amp N: the train step of mmseg's PSPNet-R50 on 512x1024 images, on the first GPU."""

import sys

import side
import torch

batch, precision, n = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
torch.set_default_device("cuda")
side.MODELS["gpu"] = ("psp", 50, 150, batch, 512, 1024)
model, optimizer, images, samples = side.learner("gpu")
model, images = model.cuda(), images.cuda()
scaler = torch.amp.GradScaler("cuda", enabled=precision == "amp")


def step():
    with torch.autocast("cuda", enabled=precision == "amp"):
        total, _ = model.parse_losses(model(images, samples, mode="loss"))
    optimizer.zero_grad()
    scaler.scale(total).backward()
    scaler.step(optimizer)
    scaler.update()
    return total.item()


side.report(seconds=side.timed(step, n), images=batch)
