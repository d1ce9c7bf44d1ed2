"""What the peer's benchmarks share: mmseg's models, the clock, the peak, and the one JSON line each prints."""

import json
import os
import resource
import sys
import time

os.environ.setdefault("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "parity"))

# name -> (head, depth, classes, batch, height, width)
MODELS = {
    "pspnet_r18": ("psp", 18, 19, 4, 128, 128),
    "pspnet_r50": ("psp", 50, 150, 2, 256, 256),
}


def learner(name, batch=None):
    """A model in training mode with dropout as published, its SGD, and one batch already on the device."""
    import peer
    import torch

    head, depth, classes, n, height, width = MODELS[name]
    config = peer.segmentor(head, depth, classes)
    config["decode_head"]["dropout_ratio"] = config["auxiliary_head"]["dropout_ratio"] = 0.1
    model = peer.build(config).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=0.0005)
    n = batch or n
    images = torch.randn(n, 3, height, width)
    labels = torch.randint(0, classes, (n, height, width)).numpy().astype("uint8")
    samples = peer.packed([image.permute(1, 2, 0).numpy() for image in images], list(labels))[
        "data_samples"
    ]
    return model, optimizer, images, samples


def step(model, optimizer, images, samples, forward=None):
    """Forward, losses, backward, SGD; the loss is read, as a log line would."""
    losses = (forward or model)(images, samples, mode="loss")
    total, _ = (model.parse_losses if forward is None else forward.module.parse_losses)(losses)
    optimizer.zero_grad()
    total.backward()
    optimizer.step()
    return total.item()


def timed(action, n, warm=2):
    for _ in range(warm):
        action()
    seconds = []
    for _ in range(n):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return seconds


def report(**values):
    values["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    values["cpu_seconds"] = time.process_time()
    print(json.dumps(values), flush=True)
