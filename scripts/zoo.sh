#!/bin/sh
# Holds every different model among mmsegmentation's own configs against mmsegmentation: label maps, losses, gradients, running statistics.
# Usage: scripts/zoo.sh [FAMILY ...]   (FAMILY: a folder of mmseg's configs; all those that segslurm has by default)
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
python=$(scripts/peer.sh)
data=$root/target/zoo
[ $# -gt 0 ] || set -- bisenetv1 bisenetv2 cgnet convnext ddrnet deeplabv3 deeplabv3plus erfnet fastfcn fastscnn fcn hrnet icnet mobilenet_v2 \
    mobilenet_v3 ocrnet poolformer pspnet resnest segformer segnext sem_fpn stdc swin twins unet upernet
failed=
for family in "$@"; do
    echo "zoo: $family"
    rm -rf "${data:?}/$family"
    mkdir -p "$data/$family/zoo"
    (cd "$data/$family/zoo" && CUDA_VISIBLE_DEVICES=-1 PYTHONPATH="$root/scripts/parity" PYTHONWARNINGS=ignore "$python" "$root/scripts/parity/zoo.py" "$family" > ../log 2>&1) \
        || { tail -20 "$data/$family/log" >&2; echo "mmseg's results of $family failed: $data/$family/log" >&2; failed="$failed $family"; continue; }
    SEGSLURM_PARITY_DATA=$data/$family CUDA_VISIBLE_DEVICES=-1 "${CARGO:-cargo}" test --quiet --test parity -- --ignored --nocapture zoo:: > "$data/$family/figures" 2>&1 \
        || failed="$failed $family"
    grep "^zoo: .*:" "$data/$family/figures" || cat "$data/$family/figures"
    # What was compared is large.
    rm -rf "$data/$family/zoo"
done
"$python" scripts/parity/zoo_table.py "$data" docs/zoo.md
[ -z "$failed" ] || { echo "beyond their limits:$failed" >&2; exit 1; }
