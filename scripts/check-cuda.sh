#!/usr/bin/env bash
# Without a GPU: builds segslurm for GPUs, shows what it says of itself, compiles its CUDA kernels for several generations of cards, and
# is refused the GPUs that are not there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

LIBTORCH=$(scripts/libtorch.sh cuda)
export LIBTORCH CARGO_TARGET_DIR=target/cuda
cargo build --release --workspace --bin segslurm --bin bench
cargo test --release --package segslurm-native --no-run
segslurm=target/cuda/release/segslurm

version=$("$segslurm" --version)
echo "$version"
grep -qE '^libtorch .*\(CUDA [0-9]+\.[0-9]+, .*NCCL [0-9.]+\)$' <<<"$version" || { echo "--version does not name CUDA and NCCL" >&2; exit 1; }
python3 scripts/check_kernels.py "$LIBTORCH"
if nvidia-smi -L >/dev/null 2>&1; then
    echo "there is a GPU here: make gpu-check tries it"
    exit
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
code=0
said=$(CUDA_VISIBLE_DEVICES=0 "$segslurm" train configs/demo/pspnet_r18-d8_demo-128x128.yaml --work-dir "$work" 2>&1) || code=$?
echo "$said"
[ $code = 69 ] || { echo "GPUs that are not there end in exit code $code in place of 69" >&2; exit 1; }
