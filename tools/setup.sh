#!/usr/bin/env bash
# Installs what is missing on Debian 12 or Ubuntu, finds or fetches LibTorch, and builds targets in build/release:
#
#     bash tools/setup.sh             # the programs, pi0 and pi0-server
#     bash tools/setup.sh all         # the tests too
#
# Running it again does nothing that is already done. LibTorch: CMAKE_PREFIX_PATH or Torch_DIR if one of them leads to
# it, else the active Python's, else torch from pip in .venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ $# -gt 0 ] || set -- pi0 pi0-server

torch_version=2.13.0

mkdir -p build
exec 9>build/setup.lock # two builds of one folder would get in each other's way
flock -n 9 || { echo "setup: waiting until another setup in this folder has ended"; flock 9; }

. tools/packages.sh
install_packages $(missing_packages "${build_tools[@]}" "${build_libraries[@]}")

[ -x .venv/bin/python ] || python3 -m venv .venv
if [ -z "${Torch_DIR:-}" ] && [ -z "${CMAKE_PREFIX_PATH:-}" ]; then
  if ! python3 -c 'import torch' 2>/dev/null; then
    if ! .venv/bin/python -c "import torch, sys; sys.exit(torch.__version__.split('+')[0] != '$torch_version')" 2>/dev/null; then
      echo "setup: installing torch $torch_version into .venv"
      .venv/bin/python -m pip install -q --disable-pip-version-check "torch==$torch_version" "numpy<2"
    fi
    PATH="$PWD/.venv/bin:$PATH"
  fi
fi

cmake --preset release >build/configure.log 2>&1 || { cat build/configure.log >&2; exit 1; }
cmake --build --preset release -j "$(nproc)" --target "$@"
