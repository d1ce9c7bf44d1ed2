#!/usr/bin/env bash
# Finds libtorch, or makes a folder with it from PyPI's wheels, and prints the folder.
#
#   scripts/libtorch.sh [auto|cpu|cuda]
#
# `auto`, the default, is `cuda` with CUDA=1 and where there is an NVIDIA GPU, else `cpu`; CUDA=0 is `cpu` in any case.
# Order: LIBTORCH (a folder with include/ and lib/), then LIBTORCH_USE_PYTORCH=1 (the PyTorch of this python3),
# then a folder beside this script's parent, made on first use. `cpu` cuts the CPU part out of the wheel into .libtorch
# (437 MB on disk, links no CUDA); `cuda` keeps the whole wheel and adds the NVIDIA wheels and NCCL's headers in .libtorch-cuda
# (about 5 GB). The folder is built beside its place and renamed into it: an interrupted run leaves nothing half-made.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
flavour=${1:-auto}
torch_version=2.11.0
header_wheels=(nvidia-cuda-crt==13.0.88 nvidia-cuda-cccl==13.0.85)
cpu_wheels=("torch==$torch_version" nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85)

say() { printf 'libtorch: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

need() { command -v "$1" >/dev/null 2>&1 || fail "$1 is missing: $2"; }

if [ "$flavour" = auto ]; then
    case ${CUDA:-} in
    1) flavour=cuda ;;
    0) flavour=cpu ;;
    "") if nvidia-smi -L >/dev/null 2>&1; then flavour=cuda; else flavour=cpu; fi ;;
    *) fail "CUDA is \"$CUDA\": expected 1 for GPUs or 0 for the CPU; unset it to have GPUs used where there are some" ;;
    esac
fi
# PyTorch's wheels for CUDA 13.0 lack two packages of headers; a toolkit or a cluster's module has them.
headers() {
    local around=("$1/../nvidia" "$1/nvidia" "${CUDA_HOME:-/usr/local/cuda}" "$root/.libtorch-cuda-headers")
    [ -z "$(find "${around[@]}" -path '*/crt/host_defines.h' 2>/dev/null | head -n 1)" ] || return 0
    [ -n "$(find "$1/../nvidia" -name 'libcudart.so.13' 2>/dev/null | head -n 1)" ] || return 0
    say "fetching headers of CUDA 13.0 from PyPI"
    build=$(mktemp -d "$root/.libtorch-making.XXXXXX")
    trap 'rm -rf "$build"' EXIT
    python3 -m pip install --quiet --no-deps --target "$build/headers" "${header_wheels[@]}" >&2
    mv "$build/headers" "$root/.libtorch-cuda-headers"
}
# Says what the chosen libtorch is, holds it against what was asked for, and prints it.
chosen() {
    local folder=$1 has=cpu
    [ -e "$folder/lib/libtorch_cuda.so" ] && has=cuda
    if [ "$flavour" = cuda ] && [ $has = cpu ]; then
        fail "$folder is a CPU build of libtorch, and GPUs are wanted (CUDA=1, or there is one here): unset what names it, or say CUDA=0"
    fi
    [ $has = cpu ] || headers "$folder"
    echo "$folder"
}

need c++ "install a C++17 compiler (Debian, Ubuntu: apt-get install g++)"
need make "install make (Debian, Ubuntu: apt-get install make)"
need cargo "install Rust 1.95 or newer from https://rustup.rs"

if [ -n "${LIBTORCH:-}" ]; then
    [ -e "$LIBTORCH/lib/libtorch_cpu.so" ] || fail "LIBTORCH=$LIBTORCH holds no lib/libtorch_cpu.so; unset LIBTORCH to have one made, or point it at a libtorch folder"
    say "using LIBTORCH=$LIBTORCH"
    chosen "$LIBTORCH"
    exit
fi
if [ -n "${LIBTORCH_USE_PYTORCH:-}" ]; then
    [ "$LIBTORCH_USE_PYTORCH" = 1 ] || fail "LIBTORCH_USE_PYTORCH is \"$LIBTORCH_USE_PYTORCH\": set it to 1, or unset it"
    need python3 "install python3, or unset LIBTORCH_USE_PYTORCH"
    folder=$(python3 -c 'import torch; print(torch.__path__[0])' 2>/dev/null) ||
        fail "LIBTORCH_USE_PYTORCH=1, but this python3 cannot import torch; pip install torch==$torch_version, or unset it"
    say "using the PyTorch of $(command -v python3)"
    chosen "$folder"
    exit
fi

case $flavour in
cpu) place="$root/.libtorch" ;;
cuda) place="$root/.libtorch-cuda" ;;
*) fail "unknown flavour $flavour: auto, cpu or cuda" ;;
esac
if [ -e "$place/build-version" ]; then
    say "$place is ready (PyTorch $(cat "$place/build-version"))"
    echo "$place"
    exit
fi

need python3 "install python3 (Debian, Ubuntu: apt-get install python3)"
python3 -m pip --version >/dev/null 2>&1 || fail "pip is missing: install it (Debian, Ubuntu: apt-get install python3-pip)"

build=$(mktemp -d "$root/.libtorch-making.XXXXXX")
trap 'rm -rf "$build"' EXIT
trap 'exit 130' INT TERM

unpack() { python3 - "$1" "$2" <<'PY'
import sys, zipfile
wheel, target = sys.argv[1:]
zipfile.ZipFile(wheel).extractall(target)
PY
}

if [ "$flavour" = cpu ]; then
    say "fetching PyTorch $torch_version (530 MB) from PyPI"
    python3 -m pip download --no-deps --dest "$build/wheels" "${cpu_wheels[@]}" >&2
    say "unpacking"
    for wheel in "$build"/wheels/*.whl; do unpack "$wheel" "$build/unpacked"; done
    mkdir -p "$build/libtorch/lib"
    mv "$build/unpacked/torch/include" "$build/libtorch/include"
    for library in libtorch_cpu.so libc10.so libgomp.so.1; do
        mv "$build/unpacked/torch/lib/$library" "$build/libtorch/lib/"
    done
    for library in libcudart.so.13 libcupti.so.13; do
        found=$(find "$build/unpacked/nvidia" -name "$library" | head -n 1)
        [ -n "$found" ] || fail "$library is not in the wheels ${cpu_wheels[*]}"
        mv "$found" "$build/libtorch/lib/"
    done
    ln -s libtorch_cpu.so "$build/libtorch/lib/libtorch.so"
else
    say "fetching PyTorch $torch_version with its NVIDIA wheels (about 2.5 GB) from PyPI"
    python3 -m pip install --target "$build/site" "torch==$torch_version" "${header_wheels[@]}" >&2
    mv "$build/site" "$build/libtorch"
    ln -s torch/include "$build/libtorch/include"
    ln -s torch/lib "$build/libtorch/lib"
fi
# The marker comes last, inside the folder that is renamed: its presence means that everything else is there.
echo "$torch_version" >"$build/libtorch/build-version"
rm -rf "$place"
mv "$build/libtorch" "$place"
say "made $place"
echo "$place"
