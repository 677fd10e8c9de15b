#!/usr/bin/env bash
# Checks and times everything that a CUDA device can show, in one call: results in $OUT (default
# runs/gpu). Needs torch, pytest, hypothesis, typer and rich; the package need not be installed.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${OUT:-runs/gpu}
mkdir -p "$out"
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1
python3 -m pytest -p no:cacheprovider tests/test_torch_gpu.py tests/test_torch.py 2>&1 | tee "$out/tests.txt"
python3 benchmarks/balancers.py --device cuda 2>&1 | tee "$out/balancers.txt"
