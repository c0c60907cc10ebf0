#!/usr/bin/env bash
# Installs learn2learn beside metarl in a virtual environment of its own (.venv-peers), for the parity test and for
# scripts/benchmark_fewshot.py:
#
#     scripts/setup_peers.sh                     PYTHON=python3.12 VENV=.venv-peers override
#     .venv-peers/bin/python -m pytest tests/metarl/fewshot/test_parity.py
#     .venv-peers/bin/python scripts/benchmark_fewshot.py --json results/benchmarks/fewshot.json
#
# learn2learn 0.2.0 comes as a source archive whose build fails on Python 3.11 and newer: it ships C written by a
# Cython too old for them. Asking setuptools for build_ext alone has Cython write that C anew. Of its requirements only
# what importing it takes is installed: qpth does not build any more, gsutil fetches a data set that is not used here.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv-peers}

[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
pip() { "$VENV/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }

pip install -c constraints.txt -e . pytest hypothesis
pip install --no-deps learn2learn==0.2.0 --config-settings=--build-option=build_ext
pip install -c constraints.txt gym==0.26.2 scipy requests tqdm pillow
pip install --no-deps torchvision==0.28.0 # the release that belongs to the torch of constraints.txt

"$VENV/bin/python" scripts/peers.py
