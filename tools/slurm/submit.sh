#!/usr/bin/env bash
# Submits a sweep to Slurm, as an array of shards and a job that merges them, and prints the jobs' ids:
#
#     bash tools/slurm/submit.sh 4 --partition=cpu --cpus-per-task=16 -- \
#       --config NAME --checkpoint-dir DIR --observations DIR --output DIR
#
# First the number of shards (4%2: two at a time), then sbatch's options, after -- those of pi0 sweep. When a
# shard fails the merge is cancelled; run the same command again to continue from the results so far.
# PI0 is the program (pi0 in PATH, else build/release/pi0).
set -euo pipefail
folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
fail() { echo "submit.sh: $*" >&2; exit 2; }

shards=${1:-}
[[ $shards =~ ^[1-9][0-9]*(%[1-9][0-9]*)?$ ]] || fail "found '$shards', expected a number of shards first, as 4 or 4%2"
shift
options=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  options+=("$1")
  shift
done
[ $# -gt 0 ] || fail "found no --, expected it before the options of pi0 sweep"
shift
output=
for ((i = 1; i <= $#; ++i)); do
  case ${!i} in
    --output) output=${*:i+1:1} ;;
    --output=*) output=${!i#*=} ;;
  esac
done
[ -n "$output" ] || fail "found no --output DIR among the options of pi0 sweep"
PI0=$(realpath -m "$(command -v "${PI0:-pi0}" || echo "${PI0:-$folder/../../build/release/pi0}")")
[ -x "$PI0" ] || fail "$PI0: is no program; set PI0, or put pi0 into PATH"
export PI0

sweep=$(sbatch --parsable "${options[@]}" --array="1-$shards" "$folder/sweep.sbatch" "$@")
merge=$(sbatch --parsable --output=%x-%j.log "${options[@]}" --job-name=pi0-merge --cpus-per-task=1 --mem=1G \
  --dependency="afterok:${sweep%%;*}" --kill-on-invalid-dep=yes \
  --wrap="$(printf '%q ' exec "$PI0" merge "$output" --output "$output")")
echo "sweep: job ${sweep%%;*}, ${shards%%%*} shards"
echo "merge: job ${merge%%;*}, after them"
