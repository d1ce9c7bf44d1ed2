#!/bin/sh
# Prints the python that runs mmsegmentation 1.2.2, making its throwaway environment first if there is none.
# Usage: scripts/peer.sh   (the environment lies in target/parity/venv; SEGSLURM_PEER_PYTHON names another python that has it)
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
if [ -n "${SEGSLURM_PEER_PYTHON:-}" ]; then
    echo "$SEGSLURM_PEER_PYTHON"
    exit
fi
venv=$root/target/parity/venv
if [ ! -e "$venv/ready" ]; then
    python3 -m venv --help > /dev/null 2>&1 || { echo "python3 with venv and pip is needed: apt install python3-venv python3-pip" >&2; exit 1; }
    echo "making the environment of mmsegmentation 1.2.2 in $venv (about 5 GB, a minute or two)" >&2
    rm -rf "$venv"
    mkdir -p "$root/target/parity"
    python3 -m venv "$venv"
    pip="$venv/bin/pip --quiet --disable-pip-version-check install"
    # setuptools: mmengine and mmcv-lite still import pkg_resources, gone in 81.
    $pip "setuptools<81" wheel >&2
    $pip torch==2.11.0 >&2
    $pip mmsegmentation==1.2.2 mmengine==0.10.7 mmcv-lite==2.1.0 "numpy<2" ftfy regex "opencv-python-headless<4.12" safetensors >&2
    # Models that mmseg's configs take from mmpretrain and mmdet.
    $pip --no-deps mmpretrain==1.2.0 mmdet==3.3.0 torchvision==0.26.0 modelindex model-index mat4py ordered-set >&2
    $pip einops rich tqdm importlib-metadata pycocotools shapely terminaltables markdown click six tabulate requests "numpy<2" >&2
    cp "$root/scripts/parity/compiled_operators.py" "$("$venv/bin/python" -c 'import importlib.util as u; print(u.find_spec("mmcv").submodule_search_locations[0])')/_ext.py"
    "$venv/bin/python" -c 'from mmseg.apis import init_model' >&2
    : > "$venv/ready"
fi
echo "$venv/bin/python"
