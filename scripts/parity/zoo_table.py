"""Writes the table of docs/zoo.md from what `make zoo` found in target/zoo."""

import json
import os
import re
import sys

root, page = sys.argv[1:]
FIGURES = [
    "equal labels in percent",
    "the first losses",
    "the first gradients",
    "running statistics",
]
HEAD = "| family | configs | different models | equal labels, % | losses | gradients | statistics | excused gradients |\n|---|---|---|---|---|---|---|---|\n"


def rows():
    for family in sorted(os.listdir(root)):
        folder = os.path.join(root, family)
        try:
            figures = open(os.path.join(folder, "figures")).read()
            configs = json.load(open(os.path.join(folder, "configs.json")))
        except OSError:
            continue
        cells = []
        for name in FIGURES:
            found = re.findall(rf"^zoo: [^:]*: {name}[^:]*: (\S+) \(limit", figures, re.M)
            values = [float(it) for it in found]
            if len(values) < len(configs):
                break
            cells.append(f"{min(values):.4g}" if "equal" in name else f"{max(values):.1e}")
        else:
            excused = re.findall(
                r"(\d+) gradients up to (\S+), over mmseg's own spread: (\S+) \(", figures
            )
            most = max(((float(apart), number) for number, apart, _ in excused), default=None)
            cells.append(
                f"{sum(int(number) for number, _, _ in excused)}, up to {most[0]:.1e}"
                if most
                else ""
            )
            count = sum(len(paths) for paths in configs.values())
            yield family, f"| {family} | {count} | {len(configs)} | {' | '.join(cells)} |\n"


text = open(page).read()
before, rest = text.split(HEAD)
kept = dict()
while rest.startswith("| "):
    line, rest = rest.split("\n", 1)
    kept[line.split(" | ")[0][2:]] = line + "\n"
kept.update(rows())
open(page, "w").write(before + HEAD + "".join(kept[name] for name in sorted(kept)) + rest)
