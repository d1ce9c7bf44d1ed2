#!/usr/bin/env bash
# Builds all that `make gpu-check` needs on a machine with a GPU but without Rust or a network, into target/gpu-kit: the program and its
# benchmarks, linked against PyTorch's CUDA build and stripped, mmsegmentation's wheels (pure Python), and the scripts and configs. Copy
# that folder there and start scripts/gpu-check.sh in it; PyTorch 2.11 with CUDA has to be installed there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

kit=target/gpu-kit
LIBTORCH=$(scripts/libtorch.sh cuda)
export LIBTORCH
CARGO_TARGET_DIR=target/cuda cargo build --release --workspace --bin segslurm --bin bench
mkdir -p "$kit/wheels"
strip -o "$kit/segslurm" target/cuda/release/segslurm
strip -o "$kit/bench" target/cuda/release/bench
# PyTorch, numpy, opencv and matplotlib are that machine's own; setuptools because mmengine still imports pkg_resources.
wheels=(mmsegmentation==1.2.2 mmengine==0.10.7 mmcv-lite==2.1.0 addict ftfy prettytable termcolor wcwidth yapf platformdirs "setuptools<81")
[ -e "$kit/wheels/complete" ] || python3 -m pip download --quiet --no-deps --dest "$kit/wheels" "${wheels[@]}"
: >"$kit/wheels/complete"
# Scripts and configs as they lie here, in the folders that they look for each other in.
for part in scripts configs tools; do rm -rf "${kit:?}/$part"; done
cp --parents -r scripts/gpu-check.sh scripts/bench scripts/parity configs/demo configs/_base_ tools/bench/*.yaml "$kit"
find "$kit" -name __pycache__ -prune -exec rm -rf {} +
size=$(du -sm "$kit" | cut -f1)
echo "$kit: $size MiB"
[ "$size" -le 60 ] || { echo "$kit is over 60 MiB, more than can be carried everywhere" >&2; exit 1; }
