#!/usr/bin/env bash
# clang-tidy 14 with the checks of .clang-tidy:
#
#     bash tools/tidy.sh                          # every room
#     bash tools/tidy.sh tools/sweep server/tls   # files whose path begins with one of these
#
# It reads compile commands of a build folder of its own (build/tidy), which compiles nothing. All rooms take much
# longer than the tests do to build, so tools/test.sh does not run it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/packages.sh
install_packages $(missing_packages "${build_tools[@]}" "${build_libraries[@]}" clang-14 clang-tidy-14)

mkdir -p build
[ -n "${Torch_DIR:-}" ] || [ ! -f build/release/CMakeCache.txt ] ||
  export Torch_DIR=$(sed -n 's/^Torch_DIR:PATH=//p' build/release/CMakeCache.txt)
cmake --preset tidy >build/configure.log 2>&1 || { cat build/configure.log >&2; exit 1; }

[ $# -gt 0 ] || set -- model/ protocol/ quant/ server/ tools/ tests/
files=$(python3 - "$@" <<'PYTHON'
import json, os, sys
root = os.getcwd() + "/"
for entry in json.load(open("build/tidy/compile_commands.json")):
    file = os.path.relpath(entry["file"], root)
    if not file.startswith("build/") and any(file.startswith(part) for part in sys.argv[1:]):
        print(file)
PYTHON
)
[ -n "$files" ] || { echo "tidy: no file begins with: $*" >&2; exit 2; }
sort -u <<<"$files" | xargs -P "$(nproc)" -n 1 clang-tidy-14 -p build/tidy --quiet
