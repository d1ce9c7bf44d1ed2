"""Makes optimizers.json: parameters after five steps of torch.optim's optimizers, in every setting that segslurm has.

Parameters and gradients come from a formula that the test repeats. Run with torch installed:
python integration-tests/golden/optimizers.py
"""

import json
import math
import os

import torch

CASES = {
    "sgd": dict(type="SGD", lr=0.1),
    "sgd_decay": dict(type="SGD", lr=0.1, weight_decay=0.05),
    "sgd_momentum": dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=0.0005),
    "sgd_dampening": dict(type="SGD", lr=0.1, momentum=0.9, dampening=0.3),
    "sgd_nesterov": dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    "adam": dict(type="Adam", lr=0.01),
    "adam_decay": dict(type="Adam", lr=0.01, betas=[0.8, 0.95], weight_decay=0.1),
    "adam_amsgrad": dict(type="Adam", lr=0.01, amsgrad=True),
    "adamw": dict(type="AdamW", lr=0.01),
    "adamw_decay": dict(type="AdamW", lr=0.01, eps=1e-3, weight_decay=0.2),
    "adamw_amsgrad": dict(type="AdamW", lr=0.01, amsgrad=True),
}
CLIPS = {
    "none": None,
    "norm": dict(max_norm=1.0),
    "norm_1": dict(max_norm=2.0, norm_type=1),
    "norm_inf": dict(max_norm=0.3, norm_type=math.inf),
    "value": dict(clip_value=0.4),
}


def param(index):
    return torch.tensor(
        [
            [math.sin(1.0 + index + 2 * row + 0.5 * column) for column in range(3)]
            for row in range(2)
        ],
        dtype=torch.float32,
    )


def grad(index, step):
    return torch.tensor(
        [
            [math.cos(0.3 * step + index + row + 1.7 * column) / (1 + step) for column in range(3)]
            for row in range(2)
        ],
        dtype=torch.float32,
    )


def run(config, clip):
    config = dict(config)
    params = [torch.nn.Parameter(param(index)) for index in range(2)]
    optimizer = getattr(torch.optim, config.pop("type"))(params, **config)
    for step in range(5):
        for index, it in enumerate(params):
            # The second parameter takes no part in the first step.
            it.grad = None if index == 1 and step == 0 else grad(index, step)
        if clip and "clip_value" in clip:
            torch.nn.utils.clip_grad_value_(params, **clip)
        elif clip:
            torch.nn.utils.clip_grad_norm_(params, **clip)
        optimizer.step()
    return [it.detach().flatten().tolist() for it in params]


def main():
    golden = {name: run(config, None) for name, config in CASES.items()}
    golden.update(
        {
            f"clip_{name}": run(dict(type="SGD", lr=0.5, momentum=0.9), clip)
            for name, clip in CLIPS.items()
            if clip
        }
    )
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "optimizers.json")
    with open(path, "w") as file:
        file.write(
            "{\n"
            + ",\n".join(
                f"{json.dumps(name)}: {json.dumps(values, separators=(',', ':'))}"
                for name, values in golden.items()
            )
            + "\n}\n"
        )


if __name__ == "__main__":
    main()
