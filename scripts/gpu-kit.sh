#!/usr/bin/env bash
# Builds what `make gpu-check` needs on a machine with a GPU but without Rust or a network, into target/gpu-kit: the program and its
# benchmarks, linked against PyTorch's CUDA build and stripped, and mmsegmentation's wheels (pure Python). Copy the checkout there with
# that folder in it; PyTorch 2.11 with CUDA has to be installed there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

kit=target/gpu-kit
LIBTORCH=$(scripts/libtorch.sh cuda)
export LIBTORCH
CARGO_TARGET_DIR=target/cuda cargo build --release --bin segslurm --example bench
mkdir -p "$kit/wheels"
strip -o "$kit/segslurm" target/cuda/release/segslurm
strip -o "$kit/bench" target/cuda/release/examples/bench
# PyTorch, numpy, opencv and matplotlib are that machine's own; setuptools because mmengine still imports pkg_resources.
wheels=(mmsegmentation==1.2.2 mmengine==0.10.7 mmcv-lite==2.1.0 addict ftfy prettytable termcolor wcwidth yapf platformdirs "setuptools<81")
[ -e "$kit/wheels/complete" ] || python3 -m pip download --quiet --no-deps --dest "$kit/wheels" "${wheels[@]}"
: >"$kit/wheels/complete"
du -sh "$kit"
