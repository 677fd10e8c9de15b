#!/usr/bin/env bash
# Everything that a CUDA device can show, in one call of at most ten minutes:
#
#     benchmarks/gpu.sh [checks|balance|networks|paper|all] [options of the parts]
#
# Each part has a time of its own, and the next one runs whatever became of the last: checks 85 s,
# balance 55 s, networks 145 s, paper 290 s. Results go to $OUT (default runs/gpu), anew after each
# part: summary.md, a page, and gpu.tar with every figure and log. GPU_CONTINUE=gpu.tar goes on from those of a former call.
# DATA=FILE names the packed images of the paper's part. Compilers keep what they made in $CACHES.
#
# Needs torch or jax, NumPy, pytest, hypothesis and scikit-learn; the package need not be installed.
# On a CPU, in minutes: benchmarks/gpu.sh all --device cpu --smallest
set -u
cd "$(dirname "$0")/.."
parts=${1:-all}
[ $# -eq 0 ] || shift
case "$parts" in
  all) parts="checks balance networks paper" ;;
  checks | balance | networks | paper) ;;
  *) sed -n '2,13p' "$0"; exit 2 ;;
esac
out=${OUT:-runs/gpu}
mkdir -p "$out"
out=$(realpath "$out")
work=$(mktemp -d)
caches=${CACHES:-$(mktemp -d)}
if [ -n "${GPU_CONTINUE:-}" ]; then tar -xf "$GPU_CONTINUE" -C "$work"; fi
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1
export TORCHINDUCTOR_CACHE_DIR=$caches/inductor JAX_COMPILATION_CACHE_DIR=$caches/jax
: > "$work/statuses.txt"
worst=0
for part in $parts; do
  case "$part" in
    checks) limit=85 ;;
    balance) limit=55 ;;
    networks) limit=145 ;;
    paper) limit=290 ;;
  esac
  start=$SECONDS
  timeout --kill-after=5 "$limit" python3 -m "benchmarks.gpu.$part" \
    --out "$work" --seconds $((limit - 3)) "$@" > "$work/$part.log" 2>&1
  status=$?
  echo "$part $status $((SECONDS - start))" | tee -a "$work/statuses.txt"
  [ $status -eq 0 ] || worst=1
  python3 -m benchmarks.gpu.summary "$work" > "$out/summary.md" || worst=1
  tar -cf "$out/gpu.tar" -C "$work" .
done
rm -rf "$work"
cat "$out/summary.md"
exit $worst
