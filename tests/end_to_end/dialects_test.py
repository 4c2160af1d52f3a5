"""What clients of other servers of openpi's protocol send and expect, and what the server says about requests."""

import json
import re
import unittest
import urllib.error
import urllib.request

import msgpack
import numpy as np
import websockets.sync.client
from openpi_client import msgpack_numpy
from openpi_client.websocket_client_policy import WebsocketClientPolicy

from support import GOLDENS, PATIENCE_S, POLICIES, TemporaryFolderTest, golden_request, read, serve

NAME = "pi05_droid_jointpos_polaris"
FOLDER = POLICIES / NAME
MODEL = ["--checkpoint-dir", FOLDER, "--num-steps", 1]
ARGUMENTS = ["--config", NAME, *MODEL]
CONFIG = GOLDENS.parent.parent / "configs/policies" / f"{NAME}.json"
ROBOARENA = {"image_resolution": [224, 224], "needs_wrist_camera": True, "n_external_cameras": 1,
             "needs_stereo_camera": False, "needs_session_id": False, "action_space": "joint_position"}  # fmt: skip


def package_encoding(value):
    """Arrays as the package msgpack-numpy packs them."""
    if isinstance(value, np.ndarray):
        return {b"nd": True, b"type": value.dtype.str, b"kind": b"", b"shape": value.shape, b"data": value.tobytes()}
    if isinstance(value, np.generic):
        return {b"nd": False, b"type": value.dtype.str, b"data": value.tobytes()}
    return value


def with_text_keys(value):
    packed = msgpack_numpy.pack_array(value)
    return packed if packed is value else {key.decode(): part for key, part in packed.items()}


class Connection:
    """A client that packs as it is told and gets what comes."""

    def __init__(self, server, path="", packed=msgpack_numpy.pack_array):
        self.packed = packed
        self.socket = websockets.sync.client.connect(f"ws://127.0.0.1:{server.port}{path}", compression=None)
        self.metadata = self.receive()

    def receive(self):
        message = self.socket.recv(timeout=PATIENCE_S)
        return message if isinstance(message, str) else msgpack_numpy.unpackb(message)

    def ask(self, request):
        self.socket.send(msgpack.packb(request, default=self.packed))
        return self.receive()


def http(server, method, path):
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.headers, refusal.read().decode()


class DialectsTest(TemporaryFolderTest):
    def test_encodings_paths_and_endpoints_get_the_same_actions(self):
        recordings = self.folder / "recordings"
        with serve(*ARGUMENTS, "--record", recordings, "--log-level", "debug") as server:
            request = golden_request(FOLDER)
            plain = Connection(server).ask(request)
            self.assertEqual(set(plain["server_timing"]), {"infer_ms", "queue_ms", "decode_ms"})
            for path, packed in (
                ("/openpi/policy", msgpack_numpy.pack_array),
                ("/?model=pi0", package_encoding),
                ("/robot", with_text_keys),
            ):
                np.testing.assert_array_equal(Connection(server, path, packed).ask(request)["actions"], plain["actions"])
            scalars = {**request, "observation/joint_position": list(request["observation/joint_position"])}
            for packed in (msgpack_numpy.pack_array, package_encoding, with_text_keys):
                np.testing.assert_array_equal(Connection(server, packed=packed).ask(scalars)["actions"], plain["actions"])

            client = Connection(server)
            np.testing.assert_array_equal(client.ask({**request, "endpoint": "infer"})["actions"], plain["actions"])
            self.assertEqual(client.ask({"endpoint": "reset", "session_id": "7"}), "reset successful")
            self.assertNotIn("prev_total_ms", client.ask(request)["server_timing"])
            self.assertEqual(client.ask({"endpoint": "load"}), "endpoint: found 'load', expected 'infer' or 'reset'")

            bare = Connection(server, "/v1/realtime/robot/openpi")
            np.testing.assert_array_equal(bare.ask({**request, "endpoint": "infer"}), plain["actions"])
            self.assertIn("observation/exterior_image_1_left: missing", bare.ask({"prompt": "wave"}))
            self.assertEqual(server.stop(), 0)
            log = server.log_text()
        self.assertRegex(log, r"\[debug\] 127\.0\.0\.1:\d+: answered \d+ bytes with \d+ in \S+ ms: queue_ms \S+, decode_ms ")
        summed = re.findall(r"\[info\] (\d+) requests? answered: infer_ms median \S+, worst \S+; queue_ms median ", log)
        self.assertEqual(sum(map(int, summed)), 10)
        self.assertRegex(log, r"warmed up in \S+ s\n(.*\n)*.*serving on ")
        for recording in recordings.glob("*.request.msgpack"):
            self.assertNotIn("endpoint", read(recording))

    def test_metadata(self):
        with serve(*ARGUMENTS) as server:
            metadata = WebsocketClientPolicy("127.0.0.1", server.port).get_server_metadata()
        self.assertEqual(list(metadata), ["action_horizon", "action_names", "request_fields", "image_format", "pi0_version"])
        self.assertEqual(metadata["action_horizon"], 15)
        self.assertEqual(metadata["action_names"], [*(f"joint_{i}" for i in range(1, 8)), "gripper"])
        self.assertLessEqual(set(read(FOLDER / "request.msgpack")), set(metadata["request_fields"]))
        self.assertRegex(metadata["pi0_version"], r"^pi0 \d+\.\d+\.\d+ ")

        own = self.folder / "own.json"
        config = json.loads(CONFIG.read_text())
        for metadata in ({"action_horizon": 3, "reset_pose": [0.5]}, ROBOARENA):
            own.write_text(json.dumps({**config, "metadata": metadata}))
            with serve("--config-file", own, *MODEL) as server:
                sent = WebsocketClientPolicy("127.0.0.1", server.port).get_server_metadata()
            self.assertEqual({**sent, **metadata}, sent)
            if metadata is ROBOARENA:  # its client makes a PolicyServerConfig of them, which refuses more
                self.assertEqual(sent, ROBOARENA)

    def test_plain_http(self):
        with serve(*ARGUMENTS) as server:
            status, _, about = http(server, "GET", "/")
            self.assertEqual(status, 200)
            self.assertRegex(about, "openpi's clients.*\n.*GET /stats")
            for path in ("/healthz?deep=1", "/metrics?x", "/"):
                self.assertEqual(http(server, "HEAD", path)[::2], (200, ""))
                self.assertEqual(http(server, "OPTIONS", path)[1]["Allow"], "GET, HEAD, OPTIONS")
            status, _, text = http(server, "GET", "/stats?x")
            self.assertEqual(status, 404)
            self.assertIn("no statistics: the server was started without formats", text)

    def test_states_and_images_out_of_range(self):
        statistics = json.loads((FOLDER / "assets/droid/norm_stats.json").read_text())["norm_stats"]["state"]
        middle = (np.array(statistics["q01"]) + np.array(statistics["q99"])) / 2
        request = {
            **golden_request(FOLDER),
            "observation/joint_position": middle[:7],
            "observation/gripper_position": middle[7:8],
        }
        wrapping = {**request, "observation/wrist_image_left": np.full((224, 224, 3), 128, np.float32)}
        with serve(*ARGUMENTS) as server:
            client = WebsocketClientPolicy("127.0.0.1", server.port)
            client.infer(request)
            self.assertNotIn("out of range", server.log_text())
            far = middle[:7].copy()
            far[2] = 1e4
            for _ in range(2):
                client.infer({**request, "observation/joint_position": far})
            self.assertEqual(server.log_text().count("after normalization observation/joint_position[2] is "), 1)
            metric = 'pi0_state_values_out_of_range{dimension="observation/joint_position[%d]"} %d\n'
            self.assertIn(metric % (2, 2), server.metrics())
            self.assertIn(metric % (3, 0), server.metrics())
            with self.assertRaisesRegex(RuntimeError, "observation/wrist_image_left: found the level 128"):
                client.infer(wrapping)
        with serve(*ARGUMENTS, "--allow-image-wrap") as server:
            client = WebsocketClientPolicy("127.0.0.1", server.port)
            wrapped = client.infer(wrapping)["actions"]
            image = np.full((224, 224, 3), 255 * 128 % 256, np.uint8)
            np.testing.assert_array_equal(
                wrapped, client.infer({**request, "observation/wrist_image_left": image})["actions"]
            )


if __name__ == "__main__":
    unittest.main()
