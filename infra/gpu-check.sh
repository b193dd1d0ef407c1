#!/usr/bin/env bash
# Checks and measures this project on one NVIDIA GPU in at most ten minutes, in the checkout's root:
#   infra/gpu-check.sh             runs every step, goes on after one that fails, exits 1 if any has
#   infra/gpu-check.sh --dry-run   prints the commands alone
# PYTHON is the Python to run (default: python), DATA a labelled set in MVTec layout (default: a drawn one), WEIGHTS what
# --detector.weights takes (default: random, for speed alone). Logs and figures come into build/gpu-check/.
set -uo pipefail

python=${PYTHON:-python}
folder=$PWD/build/gpu-check
data=${DATA:-$folder/drawn/data}
weights=${WEIGHTS:-random}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} RAY_DATA_USE_DATASOURCE_V2=0 RAY_USAGE_STATS_ENABLED=0 RAY_ADDRESS=local
summary=() failures=0 dry_run=no

# step NAME SECONDS COMMAND...
step() {
  local name=$1 limit_s=$2 began=$SECONDS code
  shift 2
  if [[ $dry_run == yes ]]; then
    printf 'timeout %s ' "$limit_s"
    printf '%q ' "$@"
    printf '\n'
    return
  fi
  echo "== $name (at most $limit_s s)"
  # A process that keeps a GPU busy may not hear SIGTERM.
  timeout --kill-after=10 "$limit_s" "$@" >"$folder/$name.log" 2>&1
  code=$?
  tail -n 12 "$folder/$name.log"
  case $code in
    0) summary+=("ok      $name, $((SECONDS - began)) s") ;;
    124 | 137) summary+=("FAILED  $name: not done after $limit_s s") ;;
    *) summary+=("FAILED  $name: exit code $code, see $folder/$name.log") ;;
  esac
  [[ $code -eq 0 ]] || failures=$((failures + 1))
}

case "${1:-}" in
  "") ;;
  --dry-run) dry_run=yes ;;
  *)
    sed -n '2,6p' "$0" >&2
    exit 2
    ;;
esac

if [[ $dry_run == no ]]; then
  rm -rf "$folder"
  mkdir -p "$folder"
fi
draw='import sys, pathlib; from jobs.synthetic.archive import draw_archive; draw_archive(pathlib.Path(sys.argv[1]))'

step device 20 nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv
step draw 40 "$python" -c "$draw" "$folder/drawn"
step tests 150 "$python" -m pytest -q -p no:cacheprovider -m gpu tests/model/test_gpu.py
step network 60 "$python" -m jobs.benchmark gpu --preset differnet --output "$folder/network.json"
step network-fast 40 "$python" -m jobs.benchmark gpu --preset differnet_fast --batch-photos 256 \
  --output "$folder/network-fast.json"
# One worker of Ray Train on a GPU is a process group of NCCL with one member.
step training 90 "$python" -m jobs.train --data "$data" --category all --detectors "$folder/detectors" --use-gpu \
  --workers 1 --variant differnet --optimizer.epochs 1 --detector.precision bf16 --detector.weights "$weights"
step reproduction 80 "$python" -m jobs.benchmark reproduction --data "$data" --recipes published --epochs 1 --seeds 0 \
  --train-angles 4 --test-angles 4 --precision bf16 --weights "$weights" --output "$folder/reproduction"
step end-to-end 110 "$python" -m jobs.benchmark job --use-gpu --job-photos 1000 --repeats 1 --output "$folder/job.json"

[[ $dry_run == no ]] || exit 0
printf '\n'
printf '%s\n' "${summary[@]}"
exit $((failures > 0))
