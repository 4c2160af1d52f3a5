#!/usr/bin/env bash
# clang-tidy 14 with the checks of .clang-tidy:
#
#     bash tools/tidy.sh                          # every room
#     bash tools/tidy.sh tools/sweep server/tls   # files whose path begins with one of these
#
# It reads compile commands of a build folder of its own (build/tidy), which compiles nothing. All rooms take much
# longer than the tests do to build, so tools/test.sh does not run it. A file without findings is checked again when
# .clang-tidy, its compile command, itself or a header that it includes changes. Exits with 1 when there are findings.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/packages.sh
install_packages $(missing_packages "${build_tools[@]}" "${build_libraries[@]}" clang-14 clang-tidy-14)

mkdir -p build
[ -n "${Torch_DIR:-}" ] || [ ! -f build/release/CMakeCache.txt ] ||
  export Torch_DIR=$(sed -n 's/^Torch_DIR:PATH=//p' build/release/CMakeCache.txt)
cmake --preset tidy >build/configure.log 2>&1 || { cat build/configure.log >&2; exit 1; }

[ $# -gt 0 ] || set -- model/ protocol/ quant/ server/ tools/ tests/
exec python3 - "$@" <<'PYTHON'
import hashlib, json, os, pathlib, shlex, subprocess, sys
from concurrent.futures import ThreadPoolExecutor

root = pathlib.Path.cwd()
build = root / "build/tidy"


def is_clean(file):
    command = shlex.split(commands[file]["command"])
    preprocess = [*command, "-E", "-C", "-dD", "-o", "-"]  # with its comments (NOLINT) and macros
    source = subprocess.run(preprocess, cwd=commands[file]["directory"], capture_output=True).stdout
    key = hashlib.sha256(b"\0".join([(root / ".clang-tidy").read_bytes(), repr(command).encode(), source])).hexdigest()
    stamp = build / "clean" / file
    if source and stamp.exists() and stamp.read_text() == key:
        return True
    checked = subprocess.run(["clang-tidy-14", "-p", build, "--quiet", file], capture_output=True, text=True)
    if checked.returncode != 0:
        print(checked.stdout or checked.stderr, end="", flush=True)
        return False
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(key)
    return True


entries = json.loads((build / "compile_commands.json").read_text())
commands = {os.path.relpath(entry["file"], root): entry for entry in entries}
files = [file for file in sorted(commands) if not file.startswith("build/") and file.startswith(tuple(sys.argv[1:]))]
if not files:
    sys.exit(f"tidy: no file begins with: {' '.join(sys.argv[1:])}")
with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
    found = list(pool.map(is_clean, files)).count(False)
print(f"tidy: {len(files)} files, {found} with findings")
sys.exit(found > 0)
PYTHON
