#!/usr/bin/env bash
# Sets up, builds and runs every test: the rooms without LibTorch under ThreadSanitizer, the fuzzers on all that they
# found before and for another 4 seconds each (PI0_FUZZ_SECONDS=60 for more), and then all tests. Tests run side by side;
# those that measure time or need every core say so in their CMakeLists.txt.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
jobs=$(nproc)
at_once=$((jobs + 1))  # some tests mostly wait
bash tools/setup.sh all

python_packages=("openpi-client==0.1.2" "numpy<2" msgpack websockets pillow typing_extensions "pandas<3" "clang-format==18.1.8"
  kubernetes-validate)
if ! .venv/bin/python -c 'import openpi_client.websocket_client_policy, PIL, pandas, kubernetes_validate' 2>/dev/null ||
  ! .venv/bin/clang-format --version 2>/dev/null | grep -q 18.1.8; then
  echo "test: installing ${python_packages[*]} into .venv"
  .venv/bin/python -m pip install -q --disable-pip-version-check "${python_packages[@]}"
fi

. tools/packages.sh
install_simulator
install_packages $(missing_packages bubblewrap openssl clang-14 libclang-rt-14-dev "${simulator_libraries[@]}")
missing=$(missing_packages chromium fonts-dejavu-core haproxy munge prometheus slurm-wlm)
if [ ! -d /run/systemd/system ]; then
  install_packages $missing
elif [ -n "$missing" ]; then
  echo "test: not installed on a machine with systemd, where some start daemons; tests that need them skip:" $missing
fi

cmake --preset tsan >build/configure.log
cmake --build --preset tsan -j "$jobs"
ctest --preset tsan -j "$at_once"

Torch_DIR=$(sed -n 's/^Torch_DIR:PATH=//p' build/release/CMakeCache.txt) cmake --preset fuzz "-DPI0_FUZZ_SECONDS=${PI0_FUZZ_SECONDS:-4}" >build/configure.log
cmake --build --preset fuzz -j "$jobs"
ctest --preset fuzz

ctest --preset release -j "$at_once"
