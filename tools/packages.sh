# Sourced: packages of Debian and of Python for the scripts here.

build_tools=(g++ cmake ninja-build ccache pkg-config python3 python3-venv)
build_libraries=(libboost-dev libmsgpack-cxx-dev libcli11-dev libspdlog-dev libfmt-dev nlohmann-json3-dev
  libssl-dev libzstd-dev libsentencepiece-dev libjpeg-dev libpng-dev libstb-dev libre2-dev prometheus-cpp-dev catch2)
simulator_libraries=(libegl1 libgles2 libopengl0)  # to draw without a screen

missing_packages() {
  local package
  for package in "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
  done
}

install_packages() {
  [ $# -gt 0 ] || return 0
  echo "$(basename "$0" .sh): installing $*"
  local as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# What tools/examples/reacher needs, in .venv.
install_simulator() {
  local needed=tools/examples/reacher/requirements.txt
  if ! cmp -s "$needed" .venv/reacher_requirements.txt; then
    echo "$(basename "$0" .sh): installing $needed into .venv"
    .venv/bin/python -m pip install -q --disable-pip-version-check -r "$needed"
    cp "$needed" .venv/reacher_requirements.txt
  fi
}
