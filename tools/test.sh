#!/usr/bin/env bash
# Sets up, builds and runs every test: first the rooms without LibTorch under ThreadSanitizer, then all.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup.sh

clients=("openpi-client==0.1.2" "numpy<2" msgpack websockets pillow typing_extensions)
if ! .venv/bin/python -c 'import openpi_client.websocket_client_policy, PIL' 2>/dev/null; then
  echo "test: installing ${clients[*]} into .venv"
  .venv/bin/pip install -q --disable-pip-version-check "${clients[@]}"
fi

. tools/packages.sh
install_packages $(missing_packages openssl)
missing=$(missing_packages chromium fonts-dejavu-core haproxy munge prometheus slurm-wlm)
if [ ! -d /run/systemd/system ]; then
  install_packages $missing
elif [ -n "$missing" ]; then
  echo "test: not installed on a machine with systemd, where some start daemons; tests that need them skip:" $missing
fi

cmake --preset tsan >build/configure.log
cmake --build --preset tsan -j "$(nproc)"
ctest --preset tsan

ctest --preset release
