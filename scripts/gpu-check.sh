#!/usr/bin/env bash
# On a machine with a GPU: builds with CUDA, holds the GPU's numbers against the CPU's, runs steps in which waiting for the device is
# forbidden, runs NCCL, and times PSPNet-R50 at 512x1024 beside mmsegmentation's model where this Python has torch and mmsegmentation.
# SEGSLURM_BENCH and SEGSLURM name binaries that were built elsewhere against the same PyTorch, in place of building.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

nvidia-smi -L >/dev/null 2>&1 || { echo "no GPU here: nvidia-smi -L finds none; nothing was checked" >&2; exit 69; }
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader

if [ -z "${SEGSLURM_BENCH:-}" ]; then
    scripts/libtorch.sh cuda
    if [ -z "${LIBTORCH:-}" ] && [ "${LIBTORCH_USE_PYTORCH:-0}" != 1 ]; then
        export LIBTORCH=$PWD/.libtorch-cuda
    fi
    CARGO_TARGET_DIR=target/cuda cargo build --release --features cuda --bin segslurm --example bench
fi
bench=${SEGSLURM_BENCH:-target/cuda/release/examples/bench}
segslurm=${SEGSLURM:-target/cuda/release/segslurm}

"$bench" gpu-check

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$segslurm" demo-data "$work/demo" --images 12 --size 96x64
small=(train_dataloader.batch_size=2 train_cfg.max_iters=4 "crop_size=[64,64]")
small+=(train_dataloader.dataset.data_root="$work/demo" val_dataloader.dataset.data_root="$work/demo")
small+=(test_dataloader.dataset.data_root="$work/demo")
config=configs/demo/pspnet_r18-d8_demo-128x128.yaml
"$segslurm" dist_train "$config" 2 --work-dir "$work/gloo" --cfg-options "${small[@]}" env_cfg.dist_cfg.backend=gloo >"$work/gloo.txt"
echo "two ranks, Gloo: $(tail -n 1 "$work/gloo.txt")"

# Peak memory of the card, sampled: what nvidia-smi says of the whole card, so nobody else should use it.
measured() {
    local peak=0 used
    "$@" >"$work/out.json" &
    local process=$!
    while kill -0 $process 2>/dev/null; do
        used=$(nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits | head -n 1)
        [ "$used" -gt "$peak" ] && peak=$used
        sleep 0.2
    done
    wait $process
    echo "$peak"
}
# Images a second, and the share of a step's time in which at least one kernel runs on the card: kernels as CUPTI traces them, the
# step's time as it is without a trace.
figures() {
    python3 - "$work/out.json" <<'PY'
import json, statistics, sys
it = json.loads(open(sys.argv[1]).readlines()[-1])
step = statistics.median(it["seconds"])
print(round(it["images"] / step, 1), f'{it["kernels"] / step:.0%}')
PY
}
row() {
    local speed share
    read -r speed share < <(figures)
    printf '%-10s %5s %9s %12s %12s %12s\n' "$1" "$batch" "$precision" "$speed" "$peak" "$share"
}
printf '\nPSPNet-R50, 512x1024, train step\n%-10s %5s %9s %12s %12s %12s\n' side batch precision 'img/s' 'peak MiB' 'in kernels'
for batch in 2 8; do
    for precision in fp32 amp; do
        peak=$(measured "$bench" gpu-speed "$batch" "$precision" 20)
        row segslurm
        if python3 -c 'import torch, mmseg' 2>/dev/null; then
            peak=$(measured python3 scripts/bench/gpu_step.py "$batch" "$precision" 20)
            row mmseg
        fi
    done
done
