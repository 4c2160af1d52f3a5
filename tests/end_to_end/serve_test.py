"""pi0-server on a golden checkpoint, talked to with openpi's own client."""

import signal
import unittest
import urllib.request

import numpy as np
from openpi_client import image_tools, msgpack_numpy
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from websockets.exceptions import InvalidStatus

from support import GOLDENS, PATIENCE_S, POLICIES, TemporaryFolderTest, golden_request, read, relative_rms, run, serve, wait_until

NAME = "pi05_droid_jointpos_polaris"
FOLDER = POLICIES / NAME
ARGUMENTS = ["--config", NAME, "--checkpoint-dir", FOLDER, "--kernels", "reference"]
PICTURE = GOLDENS.parent.parent / "tools/data/table.png"


class ServeTest(TemporaryFolderTest):
    def test_openpi_client(self):
        with serve(*ARGUMENTS) as server:
            client = WebsocketClientPolicy("127.0.0.1", server.port)
            self.assertEqual(client.get_server_metadata()["action_horizon"], 15)
            answers = [client.infer(golden_request(FOLDER)) for _ in range(3)]
            client.reset()
            expected = read(FOLDER / "response.msgpack")
            for answer in answers:
                self.assertEqual(list(answer), ["actions", "policy_timing", "server_timing"])
                self.assertLess(relative_rms(answer["actions"], expected["actions"]), 2e-2)
                np.testing.assert_array_equal(answer["actions"], answers[0]["actions"])
                self.assertEqual(answer["actions"].dtype, np.float64)
            self.assertNotIn("prev_total_ms", answers[0]["server_timing"])
            self.assertIn("prev_total_ms", answers[1]["server_timing"])
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/healthz", timeout=PATIENCE_S) as reply:
                self.assertEqual((reply.status, reply.read()), (200, b"OK\n"))
            self.assertEqual(server.stop(), 0)

            output = self.folder / "answer.msgpack"
            done = run(
                "pi0", "infer", *ARGUMENTS, "--request", FOLDER / "request.msgpack",
                "--noise", FOLDER / "noise.safetensors", "--output", output,
            )  # fmt: skip
            self.assertEqual(done.returncode, 0, done.stderr)
            np.testing.assert_array_equal(read(output)["actions"], answers[0]["actions"])

    def test_bad_request_is_refused_and_named(self):
        with serve(*ARGUMENTS, "--num-steps", 1) as server:
            for change, expected in (
                ({"observation/joint_position": np.zeros(6)}, "observation/joint_position"),
                ({"observation/wrist_image_left": None}, "observation/wrist_image_left"),
                ({"noise": np.zeros((3, 32), np.float32)}, "noise"),
                ({"observation/gripper_position": np.array([np.nan])}, "observation/gripper_position"),
            ):
                client = WebsocketClientPolicy("127.0.0.1", server.port)
                with self.assertRaisesRegex(RuntimeError, expected):
                    client.infer({**golden_request(FOLDER), **change})
            self.assertEqual(WebsocketClientPolicy("127.0.0.1", server.port).infer(golden_request(FOLDER))["actions"].shape, (15, 8))
            self.assertEqual(server.stop(signal.SIGINT), 0)

    def test_request_in_hand_is_answered_before_the_end(self):
        with serve(*ARGUMENTS, "--num-steps", 300) as server:
            client = WebsocketClientPolicy("127.0.0.1", server.port)
            server.put_in_hand(client, golden_request(FOLDER))
            self.assertEqual(server.stop(), 0)
            self.assertEqual(msgpack_numpy.unpackb(client._ws.recv())["actions"].shape, (15, 8))

    def test_a_second_signal_ends_a_drain(self):
        with serve(*ARGUMENTS, "--drain-seconds", 600) as server:
            client = WebsocketClientPolicy("127.0.0.1", server.port)
            server.process.terminate()
            wait_until(lambda: "no new clients" in server.log_text(), "the drain")
            self.assertEqual(client.infer(golden_request(FOLDER))["actions"].shape, (15, 8))
            with self.assertRaisesRegex(InvalidStatus, "503"):
                WebsocketClientPolicy("127.0.0.1", server.port)
            self.assertEqual(server.stop(), 1)

    def test_sim_evals_flow(self):
        """What sim-evals' DROID client does: resize on the client, float32 state of torch's shapes."""
        with serve(*ARGUMENTS, "--num-steps", 2) as server:
            client = WebsocketClientPolicy("localhost", server.port)
            camera = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), dtype=np.uint8)
            chunk = client.infer(
                {
                    "observation/exterior_image_1_left": image_tools.resize_with_pad(camera, 224, 224),
                    "observation/wrist_image_left": image_tools.resize_with_pad(camera, 224, 224),
                    "observation/joint_position": np.zeros(7, np.float32),
                    "observation/gripper_position": np.zeros(1, np.float32),
                    "prompt": "put the banana in the bin",
                }
            )["actions"]
            self.assertEqual(chunk.shape, (15, 8))
            action = np.concatenate([chunk[0][:-1], np.ones((1,))])
            self.assertEqual(action.dtype, np.float64)

    def test_command_line_client(self):
        with serve(*ARGUMENTS, "--num-steps", 2) as server:
            address = ["--port", server.port]
            picture = run("pi0", "client", *address, "--image", PICTURE, "--prompt", "wave", "--repeats", 3)
            self.assertEqual(picture.returncode, 0, picture.stderr)
            self.assertIn("[15, 8]", picture.stdout)
            self.assertIn("median of 3", picture.stdout)
            request, answer = self.folder / "request.msgpack", self.folder / "answer.msgpack"
            request.write_bytes(msgpack_numpy.packb(golden_request(FOLDER)))
            replay = run("pi0", "client", *address, "--request", request, "--output", answer)
            self.assertEqual(replay.returncode, 0, replay.stderr)
            self.assertEqual(read(answer)["actions"].shape, (15, 8))
            refused = run("pi0", "client", *address, "--image", PICTURE)
            self.assertEqual(refused.returncode, 1)
            self.assertIn("Prompt is required", refused.stderr)
        nobody = run("pi0", "client", *address, "--image", PICTURE)
        self.assertEqual(nobody.returncode, 1)
        self.assertIn(str(server.port), nobody.stderr)

    def test_taken_port(self):
        with serve(*ARGUMENTS) as server:
            second = run("pi0-server", *ARGUMENTS, "--host", "127.0.0.1", "--port", server.port)
            self.assertEqual(second.returncode, 1)
            self.assertIn(f"port {server.port}", second.stderr)
            self.assertIn("taken", second.stderr)


if __name__ == "__main__":
    unittest.main()
