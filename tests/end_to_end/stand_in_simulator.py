"""A simulator in a few lines: asks a policy server for actions with openpi's own client and says how its episodes went.

    stand_in_simulator.py HOST PORT SCENE EPISODES OUTPUT_DIR succeed|say-nothing|fail|abort|wait|hang|kill-server
"""

import os
import pathlib
import signal
import subprocess
import sys
import time

from openpi_client import msgpack_numpy
from openpi_client.websocket_client_policy import WebsocketClientPolicy

REQUEST = pathlib.Path(__file__).parent.parent / "goldens/policies/pi05_droid_jointpos_polaris/request.msgpack"

host, port, scene, episodes, output_dir, behaviour = sys.argv[1:]
client = WebsocketClientPolicy(host, int(port))
for _ in range(int(episodes)):
    assert client.infer(msgpack_numpy.unpackb(REQUEST.read_bytes()))["actions"].shape[1] == 8
pathlib.Path(output_dir, "episode_0.mp4").write_bytes(b"pictures")
elsewhere = pathlib.Path("runs", scene)
elsewhere.mkdir(parents=True, exist_ok=True)
(elsewhere / "episode_1.mp4").write_bytes(b"other pictures")
if behaviour == "fail":
    sys.exit("no such scene")
if behaviour == "abort":
    os.abort()
if behaviour == "wait":
    time.sleep(600)
if behaviour == "hang":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.fork()
    time.sleep(600)
if behaviour == "kill-server":
    subprocess.run(["pkill", "-KILL", "-f", f"/pi0-server --.* --port {port} "], check=True)
    time.sleep(600)
if behaviour != "say-nothing":
    print(f"scene {scene}: {scene}/{episodes}", flush=True)
