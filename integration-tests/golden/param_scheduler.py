"""Makes param_scheduler.json: learning rates as mmengine 0.10.7 schedules them, sampled over the whole training.

Run with mmengine and torch installed: python integration-tests/golden/param_scheduler.py
"""

import json
import os

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS

import mmengine.optim.scheduler  # noqa: F401  (registers the schedulers)

POLY = dict(type="PolyLR", eta_min=1e-4, power=0.9, begin=0, end=80000, by_epoch=False)
WARM = dict(type="LinearLR", start_factor=1e-6, begin=0, end=1500, by_epoch=False)

# name: (param_scheduler, initial rates, epochs?, max_epochs, epoch_length, max_iters)
CASES = {
    "poly_80k": ([POLY], [0.01, 0.1], False, 1, 2000, 80000),
    "warmup_then_poly": (
        [WARM, dict(type="PolyLR", eta_min=0.0, power=1.0, begin=1500, end=160000, by_epoch=False)],
        [6e-5, 6e-4],
        False,
        1,
        2000,
        160000,
    ),
    "warmup_over_poly": ([WARM, POLY], [0.01, 0.001], False, 1, 2000, 80000),
    "poly_default_end": (
        [dict(type="PolyLR", power=0.9, by_epoch=False)],
        [0.01],
        False,
        1,
        100,
        3000,
    ),
    "poly_ends_early": (
        [dict(type="PolyLR", power=2.0, eta_min=1e-3, begin=100, end=500, by_epoch=False)],
        [0.02],
        False,
        1,
        100,
        1000,
    ),
    "poly_one_step": (
        [dict(type="PolyLR", begin=3, end=4, by_epoch=False)],
        [0.02],
        False,
        1,
        100,
        10,
    ),
    "linear_down": (
        [dict(type="LinearLR", start_factor=1.0, end_factor=0.1, begin=10, end=90, by_epoch=False)],
        [0.3],
        False,
        1,
        100,
        100,
    ),
    "multi_step": (
        [dict(type="MultiStepLR", milestones=[3, 7, 7, 9], gamma=0.3)],
        [0.1],
        True,
        12,
        5,
        60,
    ),
    "multi_step_by_iter": (
        [dict(type="MultiStepLR", milestones=[600, 800], gamma=0.1, begin=100, by_epoch=False)],
        [0.1],
        False,
        1,
        100,
        1000,
    ),
    "step": ([dict(type="StepLR", step_size=3, gamma=0.5, begin=1)], [0.1], True, 12, 5, 60),
    "constant": ([dict(type="ConstantLR", factor=0.25, begin=0, end=5)], [0.1], True, 12, 5, 60),
    "constant_warmup_multi_step": (
        [
            dict(type="ConstantLR", factor=1 / 3, begin=0, end=200, by_epoch=False),
            dict(type="MultiStepLR", milestones=[8, 11], gamma=0.1),
        ],
        [0.02, 0.04],
        True,
        12,
        100,
        1200,
    ),
    "exponential": (
        [dict(type="ExponentialLR", gamma=0.97, begin=2, end=30)],
        [0.1],
        True,
        40,
        3,
        120,
    ),
    "cosine": (
        [dict(type="CosineAnnealingLR", eta_min=1e-5, by_epoch=False)],
        [0.01, 0.02],
        False,
        1,
        100,
        2000,
    ),
    "cosine_ratio_periods": (
        [dict(type="CosineAnnealingLR", T_max=300, eta_min_ratio=0.05, begin=50, by_epoch=False)],
        [0.01, 0.02],
        False,
        1,
        100,
        2000,
    ),
    "warmup_cosine_converted": (
        [
            dict(type="LinearLR", start_factor=0.1, begin=0, end=2, convert_to_iter_based=True),
            dict(
                type="CosineAnnealingLR",
                T_max=18,
                begin=2,
                end=20,
                eta_min=1e-6,
                convert_to_iter_based=True,
            ),
        ],
        [0.001],
        True,
        20,
        17,
        340,
    ),
    "poly_converted": (
        [
            dict(
                type="PolyLR",
                power=0.9,
                eta_min=1e-4,
                begin=0,
                end=20,
                by_epoch=True,
                convert_to_iter_based=True,
            )
        ],
        [0.01],
        True,
        20,
        31,
        620,
    ),
    "step_converted": (
        [dict(type="StepLR", step_size=2, gamma=0.5, convert_to_iter_based=True)],
        [0.1],
        True,
        9,
        4,
        36,
    ),
    "one_cycle": (
        [dict(type="OneCycleLR", eta_max=0.1, by_epoch=False)],
        [0.01, 0.02],
        False,
        1,
        100,
        200,
    ),
    "one_cycle_three_phases_linear": (
        [
            dict(
                type="OneCycleLR",
                eta_max=0.05,
                total_steps=180,
                pct_start=0.25,
                anneal_strategy="linear",
                div_factor=10.0,
                final_div_factor=100.0,
                three_phase=True,
                begin=7,
                end=150,
                by_epoch=False,
            )
        ],
        [0.01],
        False,
        1,
        100,
        200,
    ),
    "one_cycle_converted_then_cosine": (
        [
            dict(type="OneCycleLR", eta_max=0.02, total_steps=6, end=6, convert_to_iter_based=True),
            dict(type="CosineAnnealingLR", T_max=4, begin=6, end=12, eta_min_ratio=0.1),
        ],
        [0.3],
        True,
        12,
        5,
        60,
    ),
    "cosine_restarts": (
        [
            dict(
                type="CosineRestartLR",
                periods=[30, 60, 45],
                restart_weights=[1, 0.5, 0.25],
                eta_min=1e-4,
                by_epoch=False,
            )
        ],
        [0.01, 0.02],
        False,
        1,
        100,
        200,
    ),
    "cosine_restarts_converted": (
        [
            dict(type="LinearLR", start_factor=0.1, end=2, convert_to_iter_based=True),
            dict(
                type="CosineRestartLR",
                periods=[4, 6],
                restart_weights=[1, 0.7],
                eta_min_ratio=0.01,
                begin=2,
                convert_to_iter_based=True,
            ),
        ],
        [0.01],
        True,
        14,
        7,
        98,
    ),
    **{
        f"{name}_as_param_scheduler": (
            [dict(type=f"{name}ParamScheduler", param_name="lr", by_epoch=False, **more)],
            [0.01],
            False,
            1,
            100,
            50,
        )
        for name, more in dict(
            Poly=dict(power=0.9),
            MultiStep=dict(milestones=[10, 20]),
            Step=dict(step_size=7),
            Constant=dict(factor=0.5, end=9),
            Exponential=dict(gamma=0.9),
            CosineRestart=dict(periods=[50], eta_min=0.0),
            OneCycle=dict(eta_max=0.1),
        ).items()
    },
    "param_schedulers": (
        [
            dict(
                type="LinearParamScheduler",
                param_name="lr",
                start_factor=0.2,
                end=40,
                by_epoch=False,
            ),
            dict(
                type="CosineAnnealingParamScheduler",
                param_name="lr",
                begin=40,
                by_epoch=False,
                eta_min=1e-5,
            ),
        ],
        [0.01],
        False,
        1,
        100,
        200,
    ),
    "plateau": (
        [dict(type="ReduceOnPlateauLR", monitor="mIoU", rule="greater", patience=1, factor=0.5)],
        [0.1, 0.2],
        True,
        20,
        5,
        100,
        {
            5
            * epoch: [20.0, 25.0, 24.0, 25.001, 25.0, 26.0, 20.0, 20.0, 20.0, 20.0, 20.0, 30.0][
                epoch % 12
            ]
            for epoch in range(1, 20)
        },
    ),
    "plateau_cooling_below": (
        [
            dict(
                type="ReduceOnPlateauLR",
                monitor="loss",
                patience=0,
                factor=0.1,
                cooldown=2,
                threshold=0.5,
                threshold_rule="abs",
                min_value=0.004,
                begin=2,
                end=15,
            ),
            dict(type="LinearLR", start_factor=0.5, end=30, by_epoch=False),
        ],
        [0.1, 0.002],
        True,
        20,
        5,
        100,
        {
            5 * epoch: [3.0, 2.0, 1.6, 1.0, 5.0, 5.0, 4.0, 4.0, 0.1][epoch % 9]
            for epoch in range(1, 20)
        },
    ),
    "plateau_of_iterations": (
        [dict(type="ReduceOnPlateauLR", monitor="mIoU", rule="greater", patience=2, threshold=0.1)],
        [0.1],
        False,
        1,
        30,
        100,
        {10 * at: min(30.0, 10.0 * at) for at in range(1, 10)},
    ),
    "epochs_unseen_by_iter_loop": (
        [dict(type="PolyLR", power=0.9, end=20)],
        [0.01],
        False,
        1,
        31,
        620,
    ),
}


def rates(config, initial, epochs, max_epochs, epoch_length, max_iters, measured):
    groups = [dict(params=[torch.nn.Parameter(torch.zeros(1))], lr=lr) for lr in initial]
    optimizer = torch.optim.SGD(groups, lr=initial[0])
    built = []
    for entry in config:
        entry = dict(entry)
        entry.setdefault("end", max_epochs if entry.get("by_epoch", True) else max_iters)
        built.append(
            PARAM_SCHEDULERS.build(
                entry, default_args=dict(optimizer=optimizer, epoch_length=epoch_length)
            )
        )
    every = [[group["lr"] for group in optimizer.param_groups]]
    for done in range(1, max_iters):
        optimizer.step()
        for scheduler in built:
            if not scheduler.by_epoch:
                scheduler.step()
        if epochs and done % epoch_length == 0:
            for scheduler in built:
                if scheduler.by_epoch:
                    scheduler.step()
        if done in measured:
            for scheduler in built:
                if getattr(scheduler, "need_val_args", False):
                    scheduler.step({scheduler.monitor: measured[done]})
        every.append([group["lr"] for group in optimizer.param_groups])
    return every


def sample(count):
    ends = {0, 1, 2, 3, count - 3, count - 2, count - 1}
    inside = {count * part // 16 + shift for part in range(16) for shift in (0, 1)}
    return sorted(at for at in ends | inside if 0 <= at < count)


def main():
    golden = {}
    for name, (
        config,
        initial,
        epochs,
        max_epochs,
        epoch_length,
        max_iters,
        *measured,
    ) in CASES.items():
        measured = measured[0] if measured else {}
        every = rates(config, initial, epochs, max_epochs, epoch_length, max_iters, measured)
        at_all = range(max_iters) if measured else sample(max_iters)
        golden[name] = dict(
            config=config,
            initial=initial,
            epochs=epochs,
            max_epochs=max_epochs,
            epoch_length=epoch_length,
            max_iters=max_iters,
            rates=[[at, every[at]] for at in at_all],
        )
        if measured:
            golden[name]["measured"] = list(measured.items())
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "param_scheduler.json")
    with open(path, "w") as file:
        file.write(
            "{\n"
            + ",\n".join(
                f"{json.dumps(name)}: {json.dumps(case, separators=(',', ':'))}"
                for name, case in golden.items()
            )
            + "\n}\n"
        )


if __name__ == "__main__":
    main()
