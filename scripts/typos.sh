#!/usr/bin/env bash
# Looks for misspelled words in everything that git tracks, by typos.toml; fetches the program from PyPI where it is not there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=1.52.0
typos=$(command -v typos || true)
if [ -z "$typos" ]; then
    typos=target/tools/bin/typos
    if [ ! -x $typos ]; then
        python3 -m venv target/tools
        target/tools/bin/pip --quiet --disable-pip-version-check install "typos==$version"
    fi
fi
exec "$typos" --format brief
