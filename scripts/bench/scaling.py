#!/usr/bin/env python3
"""How far data-parallel training goes: efficiency against one GPU by bucket size, network and number of GPUs.

Usage: scripts/bench/scaling.py [--step SECONDS] [--check]

When each gradient comes is measured here (`bench gradients pspnet_r50`), as a share of the backward pass. A bucket leaves when it is
full and the one before it is through; a ring moves 2 (N - 1) / N of its bytes over each GPU's share of the network, and has a
latency. SyncBN waits for two collectives a layer, which nothing hides. `--check` holds the same arithmetic against what `compare.py
ranks ranks.2500mbit ranks.1000mbit` has measured with PSPNet-R18 over Gloo.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
MIB = 1 << 20
FIRST = 1 * MIB  # `model_wrapper_cfg`: the first bucket is small.
LAYERS = 64  # SyncBN layers of PSPNet-R50 with its auxiliary head.
# Bytes a second that one GPU's share of the network moves, and seconds for a small collective to get through.
NETWORKS = [
    ("NVLink in one machine, 200 GB/s", 200e9, {8: 30e-6}),
    ("200 Gb/s a GPU", 25e9, {8: 30e-6, 64: 60e-6, 512: 120e-6}),
    ("100 Gb/s for a machine of 8", 12.5e9 / 8, {64: 60e-6, 512: 120e-6}),
    ("10 Gb/s for a machine of 8", 1.25e9 / 8, {64: 60e-6, 512: 120e-6}),
]


def schedule(*arguments, **environment):
    """Forward and backward pass in seconds, and (seconds, bytes) for every gradient."""
    bench = ROOT / "target" / "release" / "bench"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", **environment}
    found = [
        json.loads(
            subprocess.run(
                [bench, "gradients", *arguments],
                check=True,
                capture_output=True,
                text=True,
                env=environment,
            ).stdout
        )
        for _ in range(3)
    ]
    return sorted(found, key=lambda it: it["backward"])[1]


def buckets(came, cap):
    """(when it is full, its bytes) of every bucket."""
    made, size, limit = [], 0, min(FIRST, cap)
    for seconds, numbers in came:
        if size and size + numbers > limit:
            made.append((last, size))
            size, limit = 0, cap
        size += numbers
        last = seconds
    return made + [(last, size)]


def tail(made, backward, world, bandwidth, latency):
    """Seconds after the end of the backward pass until the last bucket is through."""
    free = 0.0
    for full, size in made:
        free = max(free, full) + latency + 2 * (world - 1) / world * size / bandwidth
    return max(0.0, free - backward)


def table(step):
    measured = schedule("pspnet_r50")
    share = measured["backward"] / (measured["forward"] + measured["backward"])
    backward = step * share
    came = [
        (backward * seconds / measured["backward"], numbers)
        for seconds, numbers in measured["came"]
    ]
    total = sum(numbers for _, numbers in came)
    halves = [sum(n for s, n in came if s <= part * backward) / total for part in [0.25, 0.5, 0.75]]
    print(
        f"\n{step} s a step, {share:.0%} of it the backward pass; {total / 1e6:.1f} MB, of which {halves[0]:.0%}, {halves[1]:.0%} and {halves[2]:.0%} are there after a quarter, a half and three quarters of it\n"
    )
    print("| network, a GPU's share | GPUs | 1 MiB | 25 MiB | one bucket |\n|---|---|---|---|---|")
    for name, bandwidth, latencies in NETWORKS:
        for world, latency in latencies.items():
            waits = [
                tail(buckets(came, cap), backward, world, bandwidth, latency)
                for cap in [MIB, 25 * MIB, 1 << 40]
            ]
            shown = [
                f"{step / (step + wait + 2 * LAYERS * latency):.0%}".replace("%", " %")
                for wait in waits
            ]
            print(f"| {name} | {world} | {' | '.join(shown)} |")


def check():
    """The arithmetic beside what was measured, for two ranks over a link."""
    cases = json.loads((ROOT / "target" / "bench" / "results.json").read_text())["cases"]
    measured = schedule("pspnet_r18", "2", OMP_NUM_THREADS="1")
    alone = (
        statistics.median(
            one["ms a step, gradients sent after backward"] for one in cases["ranks"]["ours"]
        )
        / 1000
    )
    print(
        "| link | sent after backward: reckoned | measured | while it goes on: reckoned | measured |\n|---|---|---|---|---|"
    )
    for name, mbit in [("2.5 Gb/s", 2500), ("1 Gb/s", 1000)]:
        ours = cases[f"ranks.{mbit}mbit"]["ours"]
        bandwidth = mbit * 1e6 / 8
        total = sum(numbers for _, numbers in measured["came"])
        after = alone + total / bandwidth
        early = alone + tail(
            buckets(measured["came"], 25 * MIB), measured["backward"], 2, bandwidth, 0.0
        )
        found = [
            statistics.median(one[key] for one in ours)
            for key in ["ms a step, gradients sent after backward", "ms a step"]
        ]
        print(
            f"| {name} | {1000 * after:.0f} ms | {found[0]:.0f} ms | {1000 * early:.0f} ms | {found[1]:.0f} ms |"
        )


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--step", type=float, nargs="*", default=[0.55, 0.11])
parser.add_argument("--check", action="store_true")
args = parser.parse_args()
if args.check:
    check()
for step in args.step:
    table(step)
