#!/usr/bin/env bash
# On a machine with a GPU: the GPU's numbers against the CPU's, steps in which waiting for the device is forbidden, NCCL, whole runs of
# the program, and PSPNet-R50 at 512x1024 beside mmsegmentation's model. The most important comes first, and whatever became of a part,
# the next one runs, until MINUTES (8) are over: what was not reached then is named. A table of all comes last; the exit code is 1 if
# anything failed or was not reached.
#
# What is checked is the kit of `make gpu-kit`, in whose folder or beside which this is started (then PyTorch's own libraries are
# used), else a build made here.
# Parts by name: scripts/gpu-check.sh operations runs speed memory; OUT names a folder for the full figures.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

nvidia-smi -L >/dev/null 2>&1 || { echo "no GPU here: nvidia-smi -L finds none; nothing was checked" >&2; exit 69; }
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader

kit=target/gpu-kit
[ -x segslurm ] && kit=.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
out=${OUT:-$work/out}
mkdir -p "$out"
if [ -x "$kit/segslurm" ]; then
    segslurm=$PWD/$kit/segslurm bench=$PWD/$kit/bench
    libraries=$(python3 -c 'import torch; print(torch.__path__[0] + "/lib")') || exit 69
    export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    # mmsegmentation from its wheels, and a stand-in for mmcv's compiled operators, which PSPNet never calls.
    if python3 -m pip install --quiet --no-index --no-deps --no-compile --target "$work/site" "$kit"/wheels/*.whl; then
        cp scripts/parity/compiled_operators.py "$work/site/mmcv/_ext.py"
        export PYTHONPATH=$work/site${PYTHONPATH:+:$PYTHONPATH}
    fi
else
    LIBTORCH=$(scripts/libtorch.sh cuda) || exit
    export LIBTORCH
    CARGO_TARGET_DIR=target/cuda cargo build --release --workspace --bin segslurm --bin bench || exit
    segslurm=$PWD/target/cuda/release/segslurm bench=$PWD/target/cuda/release/bench
fi

failed=() table=()
# Seconds left; each part gets at most what is left, and 10 of them are for the end.
left() { echo $((60 * ${MINUTES:-8} - 10 - SECONDS)); }
# told NAME VERDICT SECONDS: a line now, and again in the table at the end.
told() {
    local line
    line=$(printf '%-28s %-12s %4d s' "$1" "$2" "$3")
    echo "$line"
    table+=("$line")
    [ "$2" = passes ] || failed+=("$1")
}
# check NAME SECONDS COMMAND...: runs it, and says how it went.
check() {
    local name=$1 seconds=$2 started=$SECONDS code=0
    shift 2
    if [ "$(left)" -le 0 ]; then
        told "$name" "NOT REACHED" 0
        return 1
    fi
    [ "$seconds" -le "$(left)" ] || seconds=$(left)
    if [ "$(type -t "$1")" = function ]; then "$@"; else timeout "$seconds" "$@"; fi >"$out/$name.txt" 2>&1 || code=$?
    if [ $code = 0 ]; then
        told "$name" passes $((SECONDS - started))
    else
        told "$name" "FAILS ($code)" $((SECONDS - started))
        tail -n 12 "$out/$name.txt" | cut -c1-400 | sed 's/^/    /'
    fi
    return $code
}

# A card that nvidia-smi lists and CUDA cannot use would leave all that follows to the CPU.
usable() {
    local said
    said=$("$segslurm" --version) && echo "$said" && [[ $said != *"no GPU is used"* ]]
}
operations() {
    check the-gpu-is-used 20 usable
    cat "$out/the-gpu-is-used.txt"
    check operations 200 "$bench" gpu-check
    cat "$out/operations.txt"
}

config=configs/demo/pspnet_r18-d8_demo-128x128.yaml
options() {
    printf '%s\n' "train_dataloader.dataset.data_root=$work/demo" "val_dataloader.dataset.data_root=$work/demo" \
        "test_dataloader.dataset.data_root=$work/demo" randomness.seed=7 default_hooks.logger.interval=1 \
        "crop_size=[64,64]" train_dataloader.batch_size=4 default_hooks.checkpoint.interval=5 train_cfg.val_interval=10 \
        train_cfg.max_iters=10 model.decode_head.dropout_ratio=0 model.auxiliary_head.dropout_ratio=0 \
        default_hooks.checkpoint.max_keep_ckpts=9 optimizer.lr=0.005
}
losses() { python3 -c 'import glob, json, sys
file = min(glob.glob(sys.argv[1] + "/*/vis_data/scalars.json"))
print(*(round(it["loss"], 4) for it in map(json.loads, open(file)) if "loss" in it))' "$1"; }
miou() { python3 -c 'import glob, json, sys
file = max(glob.glob(sys.argv[1] + "/*/*.json"))
print(json.load(open(file)).get("mIoU"))' "$1"; }
close() { python3 -c 'import sys
limit, a, b = float(sys.argv[1]), *([float(it) for it in text.split()] for text in sys.argv[2:])
apart = max(abs(x - y) / abs(y) for x, y in zip(a, b, strict=True))
print(f"apart {apart:.1e}, limit {limit:.0e}")
sys.exit(not apart <= limit)' "$@"; }

runs() {
    mapfile -t small < <(options)
    check demo-data 30 "$segslurm" demo-data "$work/demo" --images 40 --size 96x64 --seed 3
    check train-cpu 120 env CUDA_VISIBLE_DEVICES=-1 "$segslurm" train $config --work-dir "$work/cpu" --cfg-options "${small[@]}"
    check train-gpu 120 env SEGSLURM_DEVICE=cuda "$segslurm" train $config --work-dir "$work/gpu" --cfg-options "${small[@]}"
    check losses-gpu-cpu 20 close 2e-2 "$(losses "$work/gpu")" "$(losses "$work/cpu")"
    check resume-gpu 60 env SEGSLURM_DEVICE=cuda "$segslurm" train $config --work-dir "$work/gpu" --resume --cfg-options "${small[@]}" train_cfg.max_iters=14
    check amp-gpu 60 env SEGSLURM_DEVICE=cuda "$segslurm" train $config --work-dir "$work/amp" --amp --cfg-options "${small[@]}"
    check losses-amp-cpu 20 close 5e-2 "$(losses "$work/amp")" "$(losses "$work/cpu")"
    check gloo-two-ranks 90 "$segslurm" dist_train $config 2 --work-dir "$work/gloo" --cfg-options "${small[@]}" env_cfg.dist_cfg.backend=gloo
    check test-gpu 60 env SEGSLURM_DEVICE=cuda "$segslurm" test $config "$work/gpu/iter_10.safetensors" --work-dir "$work/test-gpu" --cfg-options "${small[@]}"
    check test-cpu 60 env CUDA_VISIBLE_DEVICES=-1 "$segslurm" test $config "$work/gpu/iter_10.safetensors" --work-dir "$work/test-cpu" --cfg-options "${small[@]}"
    check miou-gpu-cpu 20 close 1e-2 "$(miou "$work/test-gpu")" "$(miou "$work/test-cpu")"
    head -n 12 "$out/train-gpu.txt"
    echo "losses on the GPU: $(losses "$work/gpu")"
    echo "losses on the CPU: $(losses "$work/cpu")"
    echo "losses in AMP:     $(losses "$work/amp")"
}

# A batch that no card holds ends in an error of its own that names it, without a trace.
beyond_memory() {
    local code=0 said
    timeout 120 "$segslurm" train $config --work-dir "$work/huge" --cfg-options "$@" "crop_size=[4096,4096]" train_dataloader.batch_size=64 \
        >"$work/huge.txt" 2>&1 || code=$?
    said=$(tail -n 1 "$work/huge.txt")
    echo "$said"
    [ $code = 71 ] && [[ $said != *"segslurm's own"* ]] && [[ $said == *"out of memory"* ]]
}
memory() {
    mapfile -t small < <(options)
    [ -d "$work/demo" ] || "$segslurm" demo-data "$work/demo" --images 40 --size 96x64 --seed 3
    check memory 120 beyond_memory "${small[@]}"
    [ ! -e "$out/memory.txt" ] || cut -c1-700 "$out/memory.txt"
}

# Peak memory of the card, sampled: what nvidia-smi says of the whole card, so nobody else should use it.
measured() {
    local peak=0 used
    timeout "$(($(left) < 100 ? $(left) : 100))" "$@" >"$work/out.json" 2>"$work/err.txt" &
    local process=$!
    while kill -0 $process 2>/dev/null; do
        used=$(nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits | head -n 1)
        [ "$used" -gt "$peak" ] && peak=$used
        sleep 0.2
    done
    echo "$peak"
    wait $process
}
# Images a second, the share of a step's time in which at least one kernel runs on the card (kernels as CUPTI traces them, the
# step's time as it is without a trace), kernels a step, and the memory format.
figures() {
    python3 - "$work/out.json" <<'PY'
import json, statistics, sys
it = json.loads(open(sys.argv[1]).readlines()[-1])
step = statistics.median(it["seconds"])
print(round(it["images"] / step, 1), f'{it["kernels"] / step:.0%}', f'{it["kernels"] * 1e3:.1f}', round(it["launches"]), it.get("memory_format", "-"))
PY
}
row() {
    local name=$1 batch=$2 mode=$3 peak speed share kernels launches format
    shift 3
    if [ "$(left)" -lt 20 ]; then
        told "speed-$name-$batch-$mode" "NOT REACHED" 0
        return
    fi
    if ! peak=$(measured "$@"); then
        printf '%-10s %5s %-20s failed: %s\n' "$name" "$batch" "$mode" "$(tail -n 1 "$work/err.txt" | cut -c1-300)"
        cp "$work/err.txt" "$out/speed-$name-$batch-$mode.err"
        failed+=("speed-$name-$batch-$mode")
        return
    fi
    cp "$work/out.json" "$out/speed-$name-$batch-${mode/:/-}.json"
    read -r speed share kernels launches format < <(figures)
    printf '%-10s %5s %-20s %9s %10s %10s %10s %8s  %s\n' "$name" "$batch" "$mode" "$speed" "$peak" "$share" "$kernels" "$launches" "$format"
}
speed() {
    local batch mode
    printf '\nPSPNet-R50, 512x1024, train step\n%-10s %5s %-20s %9s %10s %10s %10s %8s  %s\n' \
        side batch precision 'img/s' 'peak MiB' 'in kernels' 'kernels ms' launches 'memory format'
    for batch in ${BATCHES:-2 8}; do
        for mode in fp32 amp; do
            row segslurm "$batch" "$mode" "$bench" gpu-speed "$batch" "$mode" 20
            row mmseg "$batch" "$mode" python3 scripts/bench/gpu_step.py "$batch" "$mode" 20
        done
    done
    for mode in ${MODES:-}; do
        row segslurm 8 "$mode" "$bench" gpu-speed 8 "$mode" 20
    done
}

for part in "${@:-operations runs speed memory}"; do
    for each in $part; do "$each"; done
done
echo
printf '%s\n' "${table[@]}"
echo "$SECONDS s in all"
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}"
    exit 1
fi
echo "all parts pass"
