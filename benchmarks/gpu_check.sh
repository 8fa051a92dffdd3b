#!/usr/bin/env bash
# The first minutes on a GPU: what has to be known, in the order in which it matters.
#
#   bash benchmarks/gpu_check.sh engine    at most 6 minutes: CUDA tests; plain decoding, verifying
#                                          and synthetic drafts on 1B and 8B shapes, by engine
#   bash benchmarks/gpu_check.sh methods   at most 4 minutes: the embedded pairs with the CUDA clock
#   ... --rehearse                         the same commands on a CPU with tiny sizes
#
# Every step has its own limit and prints as it goes; one that fails or runs out of time does not
# stop the rest. JSON and logs go to $OUT, or to build/gpu_check. No network is needed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

part=${1:-} rehearse=no
case "$*" in
  engine | methods) ;;
  "engine --rehearse" | "methods --rehearse") rehearse=yes; export OMP_NUM_THREADS=1 ;;
  *) sed -n '2,11s/^# \{0,1\}//p' benchmarks/gpu_check.sh; exit 2 ;;
esac

python=python3
[ -x .venv/bin/python ] && python=.venv/bin/python
export PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}$PWD" PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
out=${OUT:-build/gpu_check}
mkdir -p "$out"
failed=()

step() { # NAME SECONDS COMMAND...
  local name=$1 limit=$2 begun=$SECONDS status
  shift 2
  [ $rehearse = yes ] && limit=$((10 * limit)) # a busy CPU shows that it runs, not how fast
  printf '\n=== %s (at most %s s): %s\n' "$name" "$limit" "$*"
  timeout --kill-after=5 "$limit" "$@"
  status=$?
  case $status in
    0) printf -- '--- %s: done in %s s\n' "$name" $((SECONDS - begun)) ;;
    124 | 137) failed+=("$name (out of time)"); printf -- '--- %s: OUT OF TIME\n' "$name" ;;
    *) failed+=("$name (exit $status)"); printf -- '--- %s: FAILED, exit %s\n' "$name" "$status" ;;
  esac
}

specbench() { step "$1" "$2" "$python" -m specbench "${@:3}"; }

bench() { # NAME SECONDS SHAPE ENGINES OPTIONS...
  local name=$1 limit=$2 shape=$3 engines=$4
  shift 4
  if [ $rehearse = yes ]; then
    shape=small engines=eager
    set -- "$@" --tokens 12 --context 16 --rounds 1 --device cpu
  fi
  specbench "$name" "$limit" bench-engine --shape "$shape" --engine "$engines" \
    --output "$out/${name// /_}.json" "$@"
}

card() {
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.mem,clocks.max.sm,power.limit,temperature.gpu,mig.mode.current --format=csv 2>/dev/null \
    || echo "no nvidia-smi"
  "$python" - <<'PYTHON'
import torch, transformers
print("torch", torch.__version__, "CUDA", torch.version.cuda, "transformers", transformers.__version__)
print("devices:", [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())])
PYTHON
}

run() { # NAME SECONDS OVERRIDES...
  local name=$1 limit=$2
  shift 2
  [ $rehearse = yes ] && set -- "$@" model.device=cpu timing.repeats=1 timing.threads=1 task.limit=1
  specbench "$name" "$limit" run -m "$@" results_dir="$out/results"
}

card
if [ "$part" = engine ]; then
  step "CUDA tests" 100 "$python" -m pytest -q -rs -p no:cacheprovider tests/cuda \
    tests/unit/models/kernels/test_on_cuda.py
  # Bandwidth, host share, generate; 8 and 16 tokens over one; a prediction held against the clock.
  bench "1B graph kernels eager" 80 llama_1b graph,kernels,eager --verify 1,8,16,64 --rounds 3
  bench "8B graph kernels" 90 llama_8b graph,kernels --no-transformers --verify 1,8,16,64 --rounds 3
  bench "1B graph compile" 90 llama_1b graph,compile --no-transformers --verify 1,8 --rounds 3
else
  text=(method=token_sd,pld,static_tree,draft_verify)
  [ $rehearse = yes ] && text=(method=token_sd,static_tree max_new_tokens=16)
  text+=(model=tiny_text task=tiny task.limit=6 timing.repeats=2)
  specbench doctor 25 doctor
  run "text, greedy" 60 "${text[@]}"
  run "text, sampled" 45 "${text[@]}" sampling.temperature=1
  chameleon=(lumina --methods ar mc_sjd --repeats 1)
  if [ $rehearse = yes ]; then chameleon+=(--tokens 8); else
    chameleon+=(--shape chameleon_7b --device cuda --tokens 300)
  fi
  step "mc_sjd on the Chameleon shape" 60 "$python" -m benchmarks.picture_speed "${chameleon[@]}"
  run "pictures" 45 method=sjd,mc_sjd model=tiny_image task.limit=2 timing.repeats=2
fi

printf '\n=== %s: ' "$part"
if [ ${#failed[@]} = 0 ]; then
  echo "every step done"
else
  printf '%s failed:\n' "${#failed[@]}"
  printf '  %s\n' "${failed[@]}"
  exit 1
fi
