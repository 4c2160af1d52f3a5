#!/usr/bin/env bash
# serve.sh SERVER PI0 CONFIG CHECKPOINT: starts the example server, sends it the recorded request, ends it with SIGTERM.
set -euo pipefail
exec 3< <("$1" "$3" "$4")
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT
read -r -u 3 line
echo "$line"
"$2" client --port "${line##* }" --request "$4/request.msgpack"
kill -TERM "$server"
cat <&3
wait "$server"
