#!/bin/sh
# Makes the reference data of `make parity` under target/parity/data, with mmsegmentation itself. Parts that are there are kept.
# Usage: scripts/parity/data.sh [PART ...]   (PART: models zoo training metrics transforms schedules ranks; all by default)
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
python=$("$root/scripts/peer.sh")
data=$root/target/parity/data
mkdir -p "$data"
[ $# -gt 0 ] || set -- models zoo training metrics transforms schedules ranks
for part in "$@"; do
    script=$root/scripts/parity/$part.py
    made=$(cat "$root/scripts/parity/peer.py" "$script" | sha256sum | cut -d' ' -f1)
    [ "$(cat "$data/$part/made-by" 2> /dev/null || true)" = "$made" ] && continue
    echo "parity data: $part" >&2
    rm -rf "${data:?}/$part"
    mkdir -p "$data/$part"
    (cd "$data/$part" && CUDA_VISIBLE_DEVICES=-1 PYTHONPATH="$root/scripts/parity" PYTHONWARNINGS=ignore "$python" "$script" > log 2>&1) \
        || { tail -20 "$data/$part/log" >&2; echo "making the parity data failed: $data/$part/log" >&2; exit 1; }
    echo "$made" > "$data/$part/made-by"
done
