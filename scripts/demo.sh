#!/usr/bin/env bash
# Trains a small PSPNet on a dataset made for the purpose, tests it, and says where everything is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

segslurm=target/release/segslurm
config=configs/demo/pspnet_r18-d8_demo-128x128.yaml
work_dir=work_dirs/demo

"$segslurm" demo-data data/demo
"$segslurm" train "$config" --work-dir "$work_dir"
checkpoint=$work_dir/$(cat "$work_dir/last_checkpoint")
"$segslurm" test "$config" "$checkpoint" --work-dir "$work_dir" --show-dir painted
newest=$(find "$work_dir" -mindepth 1 -maxdepth 1 -type d -name '[0-9]*' | sort | tail -n 1)
echo
echo "checkpoint        $checkpoint"
echo "log and scalars   $work_dir"
echo "painted pictures  $newest/painted"
