#!/usr/bin/env bash
# The paper's comparison on real images, on one CUDA device, in one call:
#
#     benchmarks/gpu_paper.sh NPZ [NPZ...]
#
# Each NPZ has x_train, y_train, x_test, y_test (32x32 images). ResANN(7, 16) and (9, 32), const,
# linear, adaloss and OPT at 1/4, 1/2, 3/4 and 1 of the cost, bfloat16 and compiled, the images on the
# device. EPOCHS (default 30), SEEDS (1) and JOBS (4 runs side by side) shorten or lengthen it, alike
# for every scheme. Results go to $OUT (default runs/gpu-paper): a report and summary.json for each,
# and seconds.txt, from which images per second follow. A second call goes on where one was stopped.
# Needs torch and the [experiments] extra; the package need not be installed.
set -euo pipefail
files=("$@")
[ ${#files[@]} -gt 0 ] || { sed -n '2,13p' "$0"; exit 2; }
for k in "${!files[@]}"; do files[k]=$(realpath "${files[k]}"); done
cd "$(dirname "$0")/.."
out=${OUT:-runs/gpu-paper}
mkdir -p "$out"
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1
for file in "${files[@]}"; do
  for network in resann-7-16 resann-9-32; do
    folder=$out/$(basename "$file" .npz)-$network
    again=()
    [ ! -e "$folder/config.json" ] || again=(--resume)
    start=$SECONDS
    python3 -c 'from loss_balance.experiments.cli import main; main()' compare \
      --data npz --path "$file" --augment crop-flip --network "$network" \
      --schemes const,linear,adaloss,opt --epochs "${EPOCHS:-30}" --seeds "${SEEDS:-1}" \
      --learning-rate 0.1 --batch-size 128 --jobs "${JOBS:-4}" --device cuda --out "$folder" \
      "${again[@]}" 2>&1 | tee "$folder.txt"
    echo "$(basename "$folder") $((SECONDS - start)) s" | tee -a "$out/seconds.txt"
  done
done
