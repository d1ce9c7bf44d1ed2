#!/usr/bin/env bash
# Installs what the tests need besides Rust and libtorch: a real Slurm, a real mpirun, network namespaces, shellcheck; and nasm,
# with which JPEG decoding is built at its full speed.
# Without root nothing is installed: the tests that need a missing program say that they were skipped and why.
set -euo pipefail

declare -A package=([slurmctld]=slurm-wlm [munged]=munge [mpirun]=openmpi-bin [ip]=iproute2 [shellcheck]=shellcheck [torchrun]=python3-torch [openssl]=openssl [nasm]=nasm)
missing=()
for program in "${!package[@]}"; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "$program" >/dev/null 2>&1 || missing+=("${package[$program]}")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "tests that need ${missing[*]} will be skipped; to run them: apt-get install ${missing[*]}" >&2
    exit 0
fi
echo "installing ${missing[*]}" >&2
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
