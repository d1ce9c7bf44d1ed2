"""gpu_step.py BATCH fp32|amp N: the train step of mmseg's PSPNet-R50 on 512x1024 images, on the first GPU.

`kernels` is for how many seconds of a step the device runs kernels, traced after the timing; `by_name` which ones the longest.
"""

import collections
import sys

import side
import torch

batch, precision, n = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
torch.backends.cudnn.benchmark = True  # As mmseg's configs have it.
side.MODELS["gpu"] = ("psp", 50, 150, batch, 512, 1024)
model, optimizer, images, samples = side.learner("gpu")
model, images, samples = model.cuda(), images.cuda(), [it.cuda() for it in samples]
scaler = torch.amp.GradScaler("cuda", enabled=precision == "amp")


def step():
    with torch.autocast("cuda", enabled=precision == "amp"):
        total, _ = model.parse_losses(model(images, samples, mode="loss"))
    optimizer.zero_grad()
    scaler.scale(total).backward()
    scaler.step(optimizer)
    scaler.update()
    return total.item()


def in_kernels(steps):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as trace:
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
    events = [
        it
        for it in trace.profiler.kineto_results.events()
        if it.device_type() == torch.autograd.DeviceType.CUDA
    ]
    kernels = [it for it in events if not it.name().startswith(("Memcpy", "Memset"))]
    busy = until = 0
    for start, end in sorted((it.start_ns(), it.start_ns() + it.duration_ns()) for it in kernels):
        busy += max(0, end - max(start, until))
        until = max(until, end)
    by_name = collections.defaultdict(lambda: [0, 0])
    for it in kernels:
        by_name[it.name()][0] += it.duration_ns() / 1e6 / steps
        by_name[it.name()][1] += 1 / steps
    longest = sorted(([*spent, name] for name, spent in by_name.items()), reverse=True)
    return dict(kernels=busy / 1e9 / steps, launches=len(kernels) / steps, by_name=longest[:20])


seconds = side.timed(step, n)
side.report(seconds=seconds, images=batch, **in_kernels(5))
