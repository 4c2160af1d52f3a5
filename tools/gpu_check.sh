#!/usr/bin/env bash
# Builds, tests and times everything on a machine with an NVIDIA GPU that has no network, within minutes.
#
#     OPENPI_DIR=... PI0_QUANT_DIR=... bash tools/gpu_check.sh --prepare FOLDER    # anywhere with a network
#     bash tools/gpu_check.sh --packages FOLDER --output RESULTS                   # on the GPU's machine
#
# --prepare FOLDER     only puts into FOLDER what the other machine may lack: this system's packages of the libraries,
#                      transformers as openpi has it, and the peers, of checkouts in OPENPI_DIR and PI0_QUANT_DIR
# --packages FOLDER    such a folder; it is unpacked beside the build, nothing is installed
# --programs FOLDER    pi0, tests/model_test and tests/quant_test, built before; default: build them here
# --output FOLDER      gets log.txt, results.json and results.txt (build/gpu_check/results)
# --work FOLDER        holds all else that is made on the way (build/gpu_check)
# --deadline SECONDS   of everything; later steps get what is left (480)
# --limit STEP=SECONDS of one step, more than once if need be (see `limits` below)
# --only STEP,STEP...  leaves the other steps out, with what an earlier run unpacked and built
# --repeats N          timed runs of ours and of each peer (10)
# --compile-mode MODE  of torch.compile (reduce-overhead; openpi's own, max-autotune, takes longer than all else)
# --device cuda:N      the GPU to measure (cuda:0); the tests take the first one
#
# Needs Linux on x86-64, CUDA's compiler, cmake, ninja, g++, and a python3 with PyTorch for CUDA. Steps: unpack, build,
# model_test and quant_test (their [gpu] cases: goldens, format pairs, every pattern rounded), bench_skip and
# bench_keep (full-size pi05 with random weights, masked inputs skipped or kept), peers (openpi eager and pi0-quant),
# compiled (openpi under torch.compile). One that fails or takes too long does not stop the rest. The exit code is 0 if
# all passed. Without a GPU it builds and says what could not run. It changes no setting of the GPU.
set -uo pipefail
export LC_ALL=C # numbers have points
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() { sed -n '2,/^set/{s/^# \{0,1\}//p}' "$root/tools/gpu_check.sh"; }
say() { echo "gpu_check: $*"; }
refuse() {
  say "$*" >&2
  exit 2
}

declare -A limits=([unpack]=60 [build]=150 [model_test]=60 [quant_test]=60 [bench_skip]=60 [bench_keep]=60
  [peers]=100 [compiled]=200)
export root=$PWD work=$PWD/build/gpu_check output='' packages='' programs='' repeats=10 device=cuda:0
export compile_mode=reduce-overhead
prepare='' only='' deadline=480

while [ $# -gt 0 ]; do
  case $1 in --help | -h) usage && exit ;; esac
  [ $# -gt 1 ] || refuse "$1 has no value; --help lists the options"
  case $1 in
    --prepare) prepare=$(realpath -m "$2") ;;
    --packages) packages=$(realpath -m "$2") ;;
    --programs) programs=$(realpath -m "$2") ;;
    --output) output=$(realpath -m "$2") ;;
    --work) work=$(realpath -m "$2") ;;
    --deadline) deadline=$2 ;;
    --limit) [ -n "${limits[${2%%=*}]:-}" ] || refuse "${2%%=*} is none of the steps: ${!limits[*]}"
      limits[${2%%=*}]=${2#*=} ;;
    --only) only=$2 ;;
    --repeats) repeats=$2 ;;
    --compile-mode) compile_mode=$2 ;;
    --device) device=$2 ;;
    *) refuse "$1 is no option; --help lists them" ;;
  esac
  shift 2
done
for name in ${only//,/ }; do [ -n "${limits[$name]:-}" ] || refuse "$name is none of the steps: ${!limits[*]}"; done
for number in "$deadline" "$repeats" "${limits[@]}"; do
  [[ $number =~ ^[1-9][0-9]*$ ]] || refuse "$number is no whole number above 0"
done

# Every package named on the command line, and those of the same version that it needs: its shared libraries.
with_shared_libraries() {
  local package
  for package in "$@"; do
    echo "$package"
    apt-cache show --no-all-versions "$package" | sed -n 's/^Depends: //p' | tr , '\n' |
      sed -nE 's/^ *(libboost[0-9.]+-dev).*/\1/p; s/^ *([^ ]+) \(= .*/\1/p'
  done
}

prepare_packages() {
  . tools/packages.sh
  [ -d "${OPENPI_DIR:-}" ] && [ -d "${PI0_QUANT_DIR:-}" ] ||
    refuse "OPENPI_DIR and PI0_QUANT_DIR have to name checkouts of openpi and pi0-quant"
  local build=$work/prepare system=$work/prepare/system package
  rm -rf "$build"
  mkdir -p "$build"/{debs,system,peers/openpi/src/openpi,peers/pi0-quant} "$prepare"

  local names
  names=$(with_shared_libraries "${build_libraries[@]}" pkgconf-bin libpkgconf3 | sort -u)
  (cd "$build/debs" && apt-get download -qq $names) || return
  for package in "$build"/debs/*.deb; do dpkg -x "$package" "$system" || return; done
  # Where a compiler looks that knows nothing of the folder; documents and what is large and not needed go.
  cp -a "$system"/usr/include/x86_64-linux-gnu/. "$system/usr/include/" || return
  rm -rf "$system"/usr/share/{doc,doc-base,lintian} "$system"/usr/include/x86_64-linux-gnu \
    "$system"/usr/lib/x86_64-linux-gnu/{engines-3,ossl-modules,lib{ssl,crypto}.a} "$system/etc"
  cat >"$system/usr/bin/pkg-config" <<'PKG_CONFIG'
#!/bin/sh
bin=$(dirname "$0")
LD_LIBRARY_PATH=$bin/../lib/x86_64-linux-gnu exec "$bin/pkgconf" "$@"
PKG_CONFIG
  chmod +x "$system/usr/bin/pkg-config"

  python3 -m pip install -q --disable-pip-version-check --no-deps --no-compile --only-binary=:all: \
    --target "$build/site" transformers==4.53.2 'tokenizers>=0.21,<0.22' 'huggingface-hub>=0.30,<1' || return
  local source=$OPENPI_DIR/src/openpi
  cp -r "$source/models_pytorch/transformers_replace/." "$build/site/transformers/" &&
    cp -r "$source"/{__init__.py,models_pytorch} "$build/peers/openpi/src/openpi/" &&
    cp -r "$PI0_QUANT_DIR/pi0_inout" "$build/peers/pi0-quant/" || return
  find "$build" -name __pycache__ -prune -exec rm -rf {} +
  tar -C "$build" -cJf "$prepare/packages.tar.xz" system site peers || return
  rm -rf "$build"
  say "$(du -h "$prepare/packages.tar.xz")"
}
if [ -n "$prepare" ]; then
  prepare_packages || refuse "could not prepare $prepare"
  exit
fi

# Each step is a function of its name; it runs in a shell of its own, where the first failure ends it.
unpack() {
  rm -rf "$unpacked"
  mkdir "$unpacked"
  if command -v xz >/dev/null; then
    tar -C "$unpacked" -xJf "$packages/packages.tar.xz"
  else
    python3 -W ignore -m tarfile -e "$packages/packages.tar.xz" "$unpacked"
  fi
}

# CUDA's compiler may have come without the libraries that PyTorch's CMake files and headers ask for: then those of
# PyTorch's own CUDA join it in a folder.
complete_toolkit() {
  local own toolkit=$work/cuda libraries folder file name
  for own in "$(nvcc --dryrun -x cu /dev/null 2>&1 | sed -n 's/^#\$ TOP=//p')" \
    "$(dirname "$(realpath "$(command -v nvcc)")")/.." /usr/local/cuda; do
    [ ! -e "$own/bin/nvcc" ] || break
  done
  own=$(realpath "$own")
  libraries=$own/lib64
  [ -d "$libraries" ] || libraries=$own/lib
  if [ -e "$own/include/cublas_v2.h" ] && [ -e "$libraries/libcublas.so" ]; then return; fi
  [ -d "$own/nvvm" ] || return 0 # no folder of its own, but the system's
  rm -rf "$toolkit"
  mkdir -p "$toolkit"/{include,lib64,targets/x86_64-linux}
  cp -r "$own"/{bin,nvvm} "$toolkit" # no links: the compiler finds the rest from where it is itself
  for folder in "$torch"/../nvidia/*/include "$own/include"; do # its own last: where both have a file, that one stays
    cp -rs --remove-destination "$(realpath "$folder")/." "$toolkit/include/"
  done
  cp -rs "$libraries/." "$toolkit/lib64/"
  ln -s lib64 "$toolkit/lib"
  ln -s ../../{include,lib64,lib} "$toolkit/targets/x86_64-linux/"
  for file in "$torch"/../nvidia/*/lib/*.so*; do
    file=$(realpath "$file")
    for name in "${file##*/}" "$(basename "${file%%.so*}").so"; do
      [ -e "$toolkit/lib64/$name" ] || ln -s "$file" "$toolkit/lib64/$name"
    done
  done
  export PATH=$toolkit/bin:$PATH CUDACXX=$toolkit/bin/nvcc
  export CUDA_HOME=$toolkit CUDA_PATH=$toolkit CUDAToolkit_ROOT=$toolkit
}

build() {
  local libraries=$unpacked/system/usr
  ! command -v nvcc >/dev/null || complete_toolkit
  if [ -d "$libraries" ]; then
    export CMAKE_PREFIX_PATH=$libraries BOOST_ROOT=$libraries OPENSSL_ROOT_DIR=$libraries
    export PKG_CONFIG=$libraries/bin/pkg-config PKG_CONFIG_SYSROOT_DIR=$unpacked/system
    export PKG_CONFIG_LIBDIR=$libraries/lib/x86_64-linux-gnu/pkgconfig:$libraries/share/pkgconfig
  fi
  local here
  here=$(nvidia-smi -i "${device#cuda:}" --query-gpu=compute_cap --format=csv,noheader 2>/dev/null || true)
  export TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-${here:-9.0}}
  cmake --preset release -B "$programs" -DTorch_DIR="$torch/share/cmake/Torch"
  cmake --build "$programs" -j "$(nproc)" --target pi0 pi0-server model_test quant_test -- -k 0
}

model_test() { run_tests model_test; }
quant_test() { run_tests quant_test; }
run_tests() {
  cd tests
  LD_LIBRARY_PATH=$library_path "$programs/tests/$1" '[gpu]' --durations yes
}

bench_skip() { bench skip; }
bench_keep() { bench keep; }
bench() { # as tools/compare_peers.sh
  LD_LIBRARY_PATH=$library_path "$programs/pi0" bench --config pi05_droid --random-weights "--$1-masked" --all-modes \
    --input-fmt float8_e4m3 --output-fmt float16 --quantize-attention none --device "$device" --repeats "$repeats" \
    --json "$work/$1.json"
}

peers() { time_peers eager original original_untracked; }
compiled() { time_peers --compile-mode "$compile_mode" compiled; }
time_peers() {
  PYTHONPATH=$unpacked/site "${PEERS_PYTHON:-python3}" tools/peers.py --without-jax --device "$device" \
    --repeats "$repeats" --json "$work/${FUNCNAME[1]}.json" "$@"
}
export -f unpack complete_toolkit build model_test quant_test run_tests bench_skip bench_keep bench
export -f peers compiled time_peers

# step NAME [WHY]: runs a step, its lines as they come, and records what became of it; WHY it cannot run: not at all.
step() {
  local name=$1 why=${2:-} limit=${limits[$1]} left=$((deadline - SECONDS)) start=$EPOCHREALTIME
  local status='' code=0 seconds=0 pipe i
  [[ -z $only || ,$only, == *,$name,* ]] || return 0
  [ "$left" -ge "$limit" ] || limit=$left
  [ "$limit" -gt 0 ] || why=${why:-"the deadline of $deadline s was over"}
  if [ -n "$why" ]; then
    status='not run'
    say "$name: not run: $why" | tee -a "$output/log.txt"
  else
    say "$name: $limit s at most" | tee -a "$output/log.txt"
    # A program that is left behind may hold the pipe open: the last line, not its end, says that all is in the log.
    exec {pipe}> >(sed -u "s/^/$name: /" | tee -a "$output/log.txt")
    timeout --kill-after=3 "$limit" bash -euo pipefail -c "$name" >&"$pipe" 2>&1 {pipe}>&- || code=$?
    echo "exit code $code" >&"$pipe"
    exec {pipe}>&-
    for ((i = 0; i < 100; i++)); do
      ! grep -q "^$name: exit code $code$" "$output/log.txt" || break
      sleep 0.1
    done
    sed -i "/^$name: exit code $code$/d" "$output/log.txt"
    seconds=$(awk "BEGIN { printf \"%.1f\", $EPOCHREALTIME - $start }")
    case $code in
      0) status=passed ;;
      124) status='timed out' why="took more than $limit s" ;;
      137) # killed: by the limit, or for the memory that it took
        if ((${seconds%.*} >= limit)); then status='timed out' why="took more than $limit s"; fi ;;
    esac
    [ -n "$status" ] || status=failed why="exit code $code"
    # A test program passes when it has nothing to run.
    if [ "$status" = passed ] && grep -q "^$name: .*no GPU: not run" "$output/log.txt"; then
      status='not run' why='no GPU'
    elif [ "$status" = passed ] && grep -q "^$name: No tests ran" "$output/log.txt"; then
      status='not run' why='no such tests'
    fi
    say "$name: $status after $seconds s${why:+: $why}" | tee -a "$output/log.txt"
  fi
  [ "$status" = passed ] || all_passed=false
  printf '%s\t%s\t%s\t%s\n' "$name" "$status" "$seconds" "$why" >>"$work/steps.tsv"
  python3 tools/gpu_check_report.py "$work" "$output"
}

# Why a step that needs these, `gpu` or files, cannot run; nothing if it can.
lacks() {
  local need
  for need in "$@"; do
    case $need in
      gpu) "$has_gpu" || { echo "no GPU" && return; } ;;
      *) [ -e "$need" ] || { echo "$need is not there" && return; } ;;
    esac
  done
}

tell() { # about the machine
  printf '%s\t%s\n' "$1" "$2" >>"$work/machine.tsv"
  say "$1: $2" | tee -a "$output/log.txt"
}

export output=${output:-$work/results} unpacked=$work/packages PYTHONUNBUFFERED=1 has_gpu=false torch='' library_path=''
all_passed=true
mkdir -p "$work" "$output" || exit
rm -f "$work"/{steps,machine}.tsv "$work"/{skip,keep,peers,compiled}.json "$output"/{log.txt,results.json,results.txt}
command -v nvcc >/dev/null || PATH=$PATH:/usr/local/cuda/bin
! nvidia-smi -L >/dev/null 2>&1 || has_gpu=true
IFS=$'\t' read -r torch_version torch < <(python3 -c '
import importlib.metadata, importlib.util
print(importlib.metadata.version("torch"), importlib.util.find_spec("torch").submodule_search_locations[0], sep="\t")
' 2>/dev/null)
# The packages' libraries, PyTorch's, and those of CUDA that came with it.
library_path=$unpacked/system/usr/lib/x86_64-linux-gnu:$torch/lib
for folder in "$torch"/../nvidia/*/lib; do library_path+=:$folder; done
library_path+=${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

tell GPU "$(nvidia-smi -i "${device#cuda:}" --query-gpu=name,memory.total --format=csv,noheader 2>/dev/null || echo none)"
tell driver "$(nvidia-smi -i "${device#cuda:}" --query-gpu=driver_version --format=csv,noheader 2>/dev/null || echo none)"
tell nvcc "$(nvcc --version 2>/dev/null | sed -n 's/.*release [^V]*//p' | grep . || echo none)"
tell PyTorch "${torch_version:-none}"
tell CPU "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores"
tell memory "$(awk '/MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo)"
tell system "$(. /etc/os-release && echo "$PRETTY_NAME"), $(uname -r)"

if [ -n "$packages" ]; then step unpack "$(lacks "$packages/packages.tar.xz")"; fi
if [ -z "$programs" ]; then
  programs=$work/build
  step build "$([ -n "$torch" ] || echo "python3 has no PyTorch")"
fi
step model_test "$(lacks "$programs/tests/model_test")"
step quant_test "$(lacks "$programs/tests/quant_test")"
for masked in skip keep; do step "bench_$masked" "$(lacks gpu "$programs/pi0")"; done

[ ! -d "$unpacked/peers" ] ||
  export OPENPI_DIR=${OPENPI_DIR:-$unpacked/peers/openpi} PI0_QUANT_DIR=${PI0_QUANT_DIR:-$unpacked/peers/pi0-quant}
peers_lack=$(lacks gpu "${OPENPI_DIR:-OPENPI_DIR}" "${PI0_QUANT_DIR:-PI0_QUANT_DIR}")
step peers "$peers_lack"
step compiled "$peers_lack"

cat "$output/results.txt"
"$has_gpu" || say "missing here: an NVIDIA GPU and its driver, so nothing was checked on one"
command -v nvcc >/dev/null || say "missing here: CUDA's compiler, so nothing was built for a GPU"
say "results: $output/results.json, $output/results.txt, $output/log.txt"
"$all_passed"
