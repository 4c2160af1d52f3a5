#!/usr/bin/env bash
# Times one request of a full-size Pi0.5, ours and our peers', in one go on one device, and prints ratios.
#
#     OPENPI_DIR=... PI0_QUANT_DIR=... VLA_CPP_DIR=... bash tools/compare_peers.sh [--checkpoint-dir DIR]
#
# OPENPI_DIR, PI0_QUANT_DIR   checkouts of openpi and pi0-quant; those that are not named are not timed
# VLA_CPP_DIR                 checkout of vla.cpp, with its build/vla-bench; timed on CPUs alone (see vla_cpp.py)
# PEERS_PYTHON                Python that openpi's models_pytorch runs in; default: openpi's .venv, else python3
# DEVICE                      cpu (default) or cuda:N; on a GPU openpi is timed compiled as well
# REPEATS, THREADS            runs of each (3), CPU threads (all)
# PI0, RESULTS                program (build/release/pi0), folder that keeps the JSON files
#
# Weights are random without --checkpoint-dir. Needs 13 GiB of memory, and a machine with nothing else to do.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

pi0=${PI0:-build/release/pi0}
repeats=${REPEATS:-3}
threads=${THREADS:-$(nproc)}
device=${DEVICE:-cpu}
results=${RESULTS:-$(mktemp -d)}
[ -n "${RESULTS:-}" ] || trap 'rm -rf "$results"' EXIT
[ -x "$pi0" ] || { echo "compare_peers: $pi0 is not there; run tools/setup.sh, or set PI0" >&2; exit 1; }
mkdir -p "$results"
[ $# -gt 0 ] || set -- --random-weights

# Linears alone are rounded, as pi0-quant does where it serves.
formats=(--all-modes --input-fmt float8_e4m3 --output-fmt float16 --quantize-attention none)
found=()
for masked in skip keep; do
  "$pi0" bench --config pi05_droid "$@" "--$masked-masked" "${formats[@]}" --device "$device" \
    --repeats "$repeats" --threads "$threads" --json "$results/$masked.json" >&2
  found+=("ours, $masked masked:=$results/$masked.json")
done

python=${PEERS_PYTHON:-${OPENPI_DIR:-}/.venv/bin/python}
[ -x "$(command -v "$python")" ] || python=python3
if [ -n "${VLA_CPP_DIR:-}" ] && [ "$device" = cpu ]; then
  "$python" tools/vla_cpp.py --json "$results/vla_cpp.json" --pi0 "$pi0" --repeats "$repeats" --threads "$threads"
  found+=("peer:=$results/vla_cpp.json")
fi
if [ -n "${OPENPI_DIR:-}" ]; then
  what=(eager)
  [ "$device" = cpu ] || what+=(compiled)
  [ -z "${PI0_QUANT_DIR:-}" ] || what+=(original original_untracked)
  "$python" tools/peers.py --json "$results/peers.json" --repeats "$repeats" --threads "$threads" \
    --device "$device" "${what[@]}"
  found+=("peer:=$results/peers.json")
fi
python3 tools/compare_peers.py "${found[@]}"
[ -n "${OPENPI_DIR:-}${VLA_CPP_DIR:-}" ] ||
  echo "Only ours was timed: OPENPI_DIR, PI0_QUANT_DIR and VLA_CPP_DIR, checkouts of those programs, add the peers."
