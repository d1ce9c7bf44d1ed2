"""The learning rate of every schedule at every iteration of its whole range, in f64."""

import numpy as np
import torch
from mmengine.optim import DefaultOptimWrapperConstructor  # noqa: F401  (registers the schedulers)
from mmengine.registry import PARAM_SCHEDULERS

import peer

EPOCH = 371  # iterations an epoch, for schedules given in epochs


def poly(end, **more):
    return [dict(type="PolyLR", eta_min=1e-4, power=0.9, begin=0, end=end, by_epoch=False, **more)]


SCHEDULES = {
    **{f"schedule_{k}k": (k * 1000, 0.01, poly(k * 1000)) for k in [20, 25, 40, 80, 160, 240, 320]},
    "warmup_poly": (
        160000,
        0.00006,
        [
            dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1500),
            dict(type="PolyLR", eta_min=0.0, power=1.0, begin=1500, end=160000, by_epoch=False),
        ],
    ),
    "linear_then_multistep": (
        30000,
        0.02,
        [
            dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
            dict(
                type="MultiStepLR",
                begin=0,
                end=30000,
                milestones=[16000, 22000, 22001, 28000],
                gamma=0.3,
                by_epoch=False,
            ),
        ],
    ),
    "constant_then_cosine": (
        20000,
        0.05,
        [
            dict(type="ConstantLR", factor=0.3333, by_epoch=False, begin=0, end=1000),
            dict(
                type="CosineAnnealingLR",
                T_max=19000,
                eta_min=1e-5,
                by_epoch=False,
                begin=1000,
                end=20000,
            ),
        ],
    ),
    "cosine_over_again": (
        9000,
        0.05,
        [
            dict(
                type="CosineAnnealingLR",
                T_max=1000,
                eta_min=1e-5,
                by_epoch=False,
                begin=0,
                end=9000,
            )
        ],
    ),
    "cosine_ratio": (
        5000,
        0.05,
        [
            dict(
                type="CosineAnnealingLR",
                T_max=5000,
                eta_min_ratio=0.01,
                by_epoch=False,
                begin=0,
                end=5000,
            )
        ],
    ),
    "epochs": (
        24 * EPOCH,
        0.01,
        [
            dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=300),
            dict(
                type="MultiStepLR", by_epoch=True, begin=0, end=24, milestones=[16, 22], gamma=0.1
            ),
        ],
    ),
    "poly_by_epoch": (
        12 * EPOCH,
        0.01,
        [dict(type="PolyLR", by_epoch=True, begin=0, end=12, power=0.9, eta_min=1e-4)],
    ),
    "poly_epoch_to_iteration": (
        12 * EPOCH,
        0.01,
        [
            dict(
                type="PolyLR",
                by_epoch=True,
                convert_to_iter_based=True,
                begin=1,
                end=12,
                power=0.9,
                eta_min=1e-4,
            )
        ],
    ),
    "linear_ends_early": (
        3000,
        0.01,
        [
            dict(
                type="LinearLR",
                start_factor=0.2,
                end_factor=0.9,
                by_epoch=False,
                begin=200,
                end=1100,
            )
        ],
    ),
}


def rates(iterations, lr, configs):
    """Two parameter groups, the second at ten times the rate, as a head's lr_mult makes."""
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD(
        [dict(params=[parameters[0]], lr=lr), dict(params=[parameters[1]], lr=10 * lr)], lr=lr
    )
    schedulers = [
        PARAM_SCHEDULERS.build(
            dict(config, optimizer=optimizer), default_args=dict(epoch_length=EPOCH)
        )
        for config in configs
    ]
    seen = np.empty((iterations, 2))
    for iteration in range(iterations):
        seen[iteration] = [group["lr"] for group in optimizer.param_groups]
        optimizer._opt_called = True
        for scheduler in schedulers:
            if not scheduler.by_epoch or (iteration + 1) % EPOCH == 0:
                scheduler.step()
    return seen


def main():
    index, tensors = [], {}
    for name, (iterations, lr, configs) in SCHEDULES.items():
        tensors[name] = rates(iterations, lr, configs)
        index.append(
            dict(
                name=name, iterations=iterations, lr=lr, epoch_length=EPOCH, param_scheduler=configs
            )
        )
        print(name, tensors[name][0], tensors[name][-1], flush=True)
    peer.write_tensors("rates.safetensors", tensors)
    peer.write_json("index.json", index)
    peer.write_config(
        "schedules.yaml", {entry["name"]: entry["param_scheduler"] for entry in index}
    )


main()
