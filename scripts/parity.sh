#!/bin/sh
# Holds our numbers against mmsegmentation's: makes the reference data where it is missing, then compares.
# Usage: scripts/parity.sh [test-name ...]
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
scripts/parity/data.sh
python=$(scripts/peer.sh)
SEGSLURM_PEER_PYTHON=$python SEGSLURM_PARITY_DATA=$root/target/parity/data CUDA_VISIBLE_DEVICES=-1 \
    "${CARGO:-cargo}" test --test parity -- --ignored --nocapture --test-threads=1 "$@"
