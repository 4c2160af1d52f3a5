#!/usr/bin/env bash
# Builds the programs, makes a small random checkpoint, serves it quantized, sends it a DROID robot's view of a table
# over a real socket, stops it and shows the error of the formats. PI0_DEMO_PORT chooses the port (default:
# a free one); --serve keeps serving, on this machine only.
#
# With --closed-loop: a small trained policy moves the arm of tools/examples/reacher in a simulator, in three formats,
# and build/demo/closed_loop.html compares them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
case "$*" in
  "" | --serve | --closed-loop) ;;
  *) echo "demo: found '$*', expected nothing, --serve or --closed-loop" >&2; exit 2 ;;
esac
bash tools/setup.sh

demo=build/demo
mkdir -p "$demo"
exec 9>"$demo/lock"
flock -n 9 || { echo "demo: another demo is running in this folder" >&2; exit 1; }
if [ "${1:-}" = --closed-loop ]; then
  . tools/packages.sh
  install_packages $(missing_packages "${simulator_libraries[@]}")
  install_simulator
  results=$demo/closed_loop
  rm -rf "$results"
  mkdir -p "$results"
  reacher=tools/examples/reacher
  echo "== pi0 closed-loop --preset reacher: 30 episodes in each of three formats; success is 12.5 mm from the target"
  build/release/pi0 closed-loop --preset reacher --simulator-dir "$reacher" --python "$PWD/.venv/bin/python" \
    --scenes tight --episodes 30 \
    --config-file "$reacher/pi0_reacher.json" --checkpoint-dir "$reacher/pi0" --precision float32 --skip-masked \
    --seed 1 --pairs float32/float32,float8_e4m3/float8_e4m3,float8_e5m2/float8_e5m2 --output "$results"
  build/release/pi0 report "$results"/* --output "$demo/closed_loop.html"
  echo "== videos of the first two episodes of each format:"
  find "$results" -name '*.mp4' | sort
  exit
fi
checkpoint=$demo/checkpoint
if [ ! -f "$checkpoint/model.safetensors" ]; then
  rm -rf "$checkpoint"
  build/release/pi0 make-checkpoint --config pi05_droid --output "$checkpoint"
fi

formats=(--input-fmt float8_e4m3 --output-fmt float16 --stats-output "$demo/stats.json")
echo "== pi0-server --config pi05_droid --checkpoint-dir $checkpoint ${formats[*]}"
log=$demo/server.log
: >"$log"
build/release/pi0-server --config pi05_droid --checkpoint-dir "$checkpoint" \
  "${formats[@]}" --host 127.0.0.1 --port "${PI0_DEMO_PORT:-0}" --log-file "$log" 9>&- &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true' EXIT
port=
for _ in $(seq 300); do
  port=$(sed -n 's|.*serving on [^ ]*:\([0-9]*\).*|\1|p' "$log")
  [ -z "$port" ] || break
  kill -0 "$server" 2>/dev/null || { echo "demo: the server ended, see above" >&2; exit 1; }
  sleep 0.1
done
[ -n "$port" ] || { echo "demo: the server is not ready after 30 s" >&2; exit 1; }

echo "== pi0 client --image tools/data/table.png --wrist-image tools/data/wrist.png"
build/release/pi0 client --port "$port" --image tools/data/table.png \
  --wrist-image tools/data/wrist.png --prompt "put the banana in the green bin" --repeats 5

cat <<TEXT
== the same from Python, with openpi's own client
    from openpi_client.websocket_client_policy import WebsocketClientPolicy
    policy = WebsocketClientPolicy(host="127.0.0.1", port=$port)
    actions = policy.infer(observation)["actions"]   # float64 [15, 8]
TEXT
if [ "${1:-}" = --serve ]; then
  echo "== serving on port $port until Ctrl-C"
  trap 'kill -TERM "$server" 2>/dev/null || true' INT TERM
  wait "$server" || true
else
  echo "== stopping the server; per layer: $demo/stats.json"
  kill -TERM "$server"
  wait "$server"
fi
trap - EXIT
