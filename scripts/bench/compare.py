#!/usr/bin/env python3
"""Side by side with mmsegmentation 1.2.2 in one run: rounds of ours then theirs, medians and ratios.

Usage: scripts/bench/compare.py [--rounds 5] [CASE ...]      (see CASES; all by default)

Each measurement is a process of its own, so that neither side warms anything for the other; within one, the median of its
steps counts. What is measured is printed as a table and kept in target/bench/results.json.
"""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import socket
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BENCH = ROOT / "scripts" / "bench"
DATA = ROOT / "target" / "bench"
OURS = ROOT / "target" / "release" / "bench"
SEGSLURM = ROOT / "target" / "release" / "segslurm"

ENVIRONMENT = dict(os.environ, CUDA_VISIBLE_DEVICES="-1", PYTHONWARNINGS="ignore")


def run(command, **environment):
    """Runs a process; returns its last line of JSON, its whole time, and its peak memory if it says so."""
    environment = {**ENVIRONMENT, "BENCH_STARTED": repr(time.time()), **environment}
    start = time.perf_counter()
    done = subprocess.run(
        [str(part) for part in command], env=environment, capture_output=True, text=True, cwd=DATA
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr[-2000:]}")
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return dict(json.loads(lines[-1]) if lines else {}, process=seconds)


def step(name, n):
    def figures(out):
        return {
            "ms a step": 1000 * statistics.median(out["seconds"]),
            "peak MB": out["peak_bytes"] / 1e6,
        }

    return dict(
        ours=lambda _: figures(run([OURS, "train-step", name, n])),
        theirs=lambda python: figures(run([python, BENCH / "train_step.py", name, n])),
    )


def startup(name):
    def figures(out):
        return {"s to the first step": out["seconds"][0]}

    return dict(
        ours=lambda _: figures(run([OURS, "startup", name])),
        theirs=lambda python: figures(run([python, BENCH / "startup.py", name])),
    )


def transforms(recipe, folder, n):
    def figures(out):
        return {
            "img a core-second": out["images"] / out["cpu"],
            "img a second, one process": out["images"] / out["wall"],
        }

    return dict(
        ours=lambda _: figures(run([OURS, "transforms", recipe, DATA / folder, n])),
        theirs=lambda python: figures(
            run([python, BENCH / "transforms.py", recipe, DATA / folder, n])
        ),
    )


def loader(recipe, folder, n):
    def figures(out):
        return {"img a second, two workers": out["images"] / out["wall"]}

    return dict(
        ours=lambda _: figures(run([OURS, "loader", recipe, DATA / folder, n])),
        theirs=lambda python: figures(run([python, BENCH / "loader.py", recipe, DATA / folder, n])),
    )


def inference():
    def ours(_):
        out = run(
            [
                SEGSLURM,
                "test",
                DATA / "test.yaml",
                DATA / "checkpoint.pth",
                "--work-dir",
                DATA / "work",
            ]
        )
        return {"img a second, whole process": 100 / out["process"]}

    def theirs(python):
        out = run([python, BENCH / "inference.py", DATA])
        return {
            "img a second, whole process": 100 / out["process"],
            "img a second, loop alone": 100 / out["wall"],
        }

    return dict(ours=ours, theirs=theirs)


@contextlib.contextmanager
def link(mbit):
    """Two places that a rank can run in, and the first one's address: this machine twice, or two network namespaces joined by a
    link of so many Mbit/s each way (for root)."""
    if mbit is None:
        yield [[], []], "127.0.0.1"
        return
    names = [f"segslurm-bench-{os.getpid()}-{end}" for end in range(2)]

    def ip(*command):
        subprocess.run(["ip", *command], check=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ip(
            "link",
            "add",
            "bench",
            "netns",
            names[0],
            "type",
            "veth",
            "peer",
            "name",
            "bench",
            "netns",
            names[1],
        )
        for end, name in enumerate(names):
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "address", "add", f"10.213.7.{end + 1}/24", "dev", "bench")
            ip("-n", name, "link", "set", "bench", "up")
            shaped = [
                "tc",
                "qdisc",
                "add",
                "dev",
                "bench",
                "root",
                "tbf",
                "rate",
                f"{mbit}mbit",
                "burst",
                "512k",
                "latency",
                "50ms",
            ]
            ip("netns", "exec", name, *shaped)
        yield [
            ["ip", "netns", "exec", name, "env", "GLOO_SOCKET_IFNAME=bench"] for name in names
        ], "10.213.7.1"
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


def pair(command, mbit):
    """Runs the command as two ranks of one thread each; rank 0's figures."""
    with link(mbit) as (places, address), socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
        free.close()
        common = dict(
            OMP_NUM_THREADS="1",
            WORLD_SIZE="2",
            LOCAL_WORLD_SIZE="2",
            MASTER_ADDR=address,
            MASTER_PORT=port,
        )
        second = [str(part) for part in places[1] + command]
        other = subprocess.Popen(
            second,
            env={**ENVIRONMENT, **common, "RANK": "1", "LOCAL_RANK": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        out = run(places[0] + command, RANK="0", LOCAL_RANK="0", **common)
        if other.wait():
            sys.exit(f"{' '.join(second)} failed as rank 1")
        return out


def ranks(n, mbit=None):
    def ours(_):
        sent = {how: pair([OURS, "rank", n, how], mbit) for how in ["overlap", "after"]}
        milliseconds = {how: 1000 * statistics.median(out["seconds"]) for how, out in sent.items()}
        return {
            "ms a step": milliseconds["overlap"],
            "ms a step, gradients sent after backward": milliseconds["after"],
            "ms a step waiting for the other rank": 1000 * sent["overlap"]["waited"],
            "MB sent a step": sent["overlap"]["megabytes"],
        }

    def theirs(python):
        return {
            "ms a step": 1000
            * statistics.median(pair([python, BENCH / "ranks.py", n], mbit)["seconds"])
        }

    return dict(ours=ours, theirs=theirs)


CASES = {
    "train_step.pspnet_r18": step("pspnet_r18", 9),
    "train_step.pspnet_r50": step("pspnet_r50", 3),
    "transforms.ade20k": transforms("ade20k", "ade", 200),
    "transforms.cityscapes": transforms("cityscapes", "cityscapes", 48),
    "loader.ade20k": loader("ade20k", "ade", 200),
    "inference": inference(),
    "startup": startup("pspnet_r18"),
    "ranks": ranks(9),
    "ranks.2500mbit": ranks(9, 2500),
    "ranks.1000mbit": ranks(9, 1000),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["ours", "theirs"], help="leave the other side out")
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], default=[])
    args = parser.parse_args()
    DATA.mkdir(parents=True, exist_ok=True)
    python = subprocess.run(
        [ROOT / "scripts" / "peer.sh"], check=True, capture_output=True, text=True
    ).stdout.strip()
    if not (DATA / "ready").exists():
        subprocess.run(
            [python, BENCH / "images.py", DATA],
            check=True,
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    cases = args.cases or list(CASES)
    links = [case for case in cases if case.endswith("mbit")]
    if links and os.geteuid() != 0:
        print(
            f"left out, as only root can make network namespaces: {', '.join(links)}",
            file=sys.stderr,
        )
        cases = [case for case in cases if case not in links]
    found = {case: {"ours": [], "theirs": []} for case in cases}
    for round_number in range(args.rounds):
        for case in cases:
            for side in [args.only] if args.only else ["ours", "theirs"]:
                found[case][side].append(CASES[case][side](python))
                print(
                    f"round {round_number + 1}: {case}, {side}: {found[case][side][-1]}",
                    file=sys.stderr,
                )
    stamp = dict(date=time.strftime("%Y-%m-%d %H:%M"), machine=machine(), rounds=args.rounds)
    (DATA / "results.json").write_text(json.dumps(dict(**stamp, cases=found), indent=1))
    print(f"{stamp['date']}, {stamp['machine']}, medians of {args.rounds} interleaved rounds\n")
    print("| case | figure | segslurm | mmseg | ours / mmseg's |\n|---|---|---|---|---|")
    for case, sides in found.items():
        for figure in dict.fromkeys(key for side in sides.values() for one in side for key in one):
            ours, theirs = (median(sides[side], figure) for side in ["ours", "theirs"])
            ratio = f"{ours / theirs:.2f}" if ours and theirs else ""
            print(f"| {case} | {figure} | {shown(ours)} | {shown(theirs)} | {ratio} |")


def median(rounds, figure):
    values = [one[figure] for one in rounds if figure in one]
    return statistics.median(values) if values else None


def shown(value):
    return "" if value is None else f"{value:.4g}"


def machine():
    names = [
        line.split(":")[1].strip()
        for line in open("/proc/cpuinfo")
        if line.startswith("model name")
    ]
    return f"{len(names)} x {names[0] if names else platform.machine()}"


main()
