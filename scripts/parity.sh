#!/bin/sh
# Holds our numbers against mmsegmentation's: makes the reference data where it is missing, then compares.
# Usage: scripts/parity.sh [test-name ...]
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
scripts/parity/data.sh
SEGSLURM_PEER_PYTHON=$(scripts/peer.sh) SEGSLURM_PARITY_DATA=$root/target/parity/data CUDA_VISIBLE_DEVICES=-1 \
    cargo test --release --test parity -- --nocapture --test-threads=1 "$@"
