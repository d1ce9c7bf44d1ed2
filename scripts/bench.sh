#!/bin/sh
# Speed and memory beside mmsegmentation's, as medians of interleaved rounds and their ratios.
# Usage: scripts/bench.sh [--rounds N] [CASE ...]   (see scripts/bench/compare.py)
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
cargo build --release --workspace --bin segslurm --bin bench
exec python3 scripts/bench/compare.py "$@"
