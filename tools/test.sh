#!/usr/bin/env bash
# Sets up, builds and runs every test: first the rooms without LibTorch under ThreadSanitizer, then the fuzzers,
# half a minute each, then all.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup.sh

clients=("openpi-client==0.1.2" "numpy<2" msgpack websockets pillow typing_extensions)
if ! .venv/bin/python -c 'import openpi_client.websocket_client_policy, PIL' 2>/dev/null; then
  echo "test: installing ${clients[*]} into .venv"
  .venv/bin/pip install -q --disable-pip-version-check "${clients[@]}"
fi

. tools/packages.sh
install_packages $(missing_packages openssl clang-14 libclang-rt-14-dev)
missing=$(missing_packages chromium fonts-dejavu-core haproxy munge prometheus slurm-wlm)
if [ ! -d /run/systemd/system ]; then
  install_packages $missing
elif [ -n "$missing" ]; then
  echo "test: not installed on a machine with systemd, where some start daemons; tests that need them skip:" $missing
fi

cmake --preset tsan >build/configure.log
cmake --build --preset tsan -j "$(nproc)"
ctest --preset tsan

Torch_DIR=$(sed -n 's/^Torch_DIR:PATH=//p' build/release/CMakeCache.txt) cmake --preset fuzz >build/configure.log
cmake --build --preset fuzz -j "$(nproc)"
ctest --preset fuzz

ctest --preset release
