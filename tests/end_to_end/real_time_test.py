"""Real-time chunking, asked for by openpi's own client: requests that say which actions the robot has still to do."""

import json
import unittest

import numpy as np
from openpi_client import msgpack_numpy
from openpi_client.websocket_client_policy import WebsocketClientPolicy

from batch_test import ask_together, batch_sizes
from support import MORE_POLICIES, POLICIES, TemporaryFolderTest, golden_request, make_checkpoint, one_instruction_set, relative_rms, run, serve

NAME = "pi05_droid_jointpos_polaris"
FOLDER = POLICIES / NAME
ARGUMENTS = ["--config", NAME, "--checkpoint-dir", FOLDER, "--precision", "float32", *one_instruction_set()]
DONE, DELAY = 5, 3  # actions carried out before the request, and meanwhile


def continuing(answer, **more):
    """The next request, with other noise, of a robot whose joints have moved."""
    request = golden_request(FOLDER)
    request["noise"] = -request["noise"]
    request["observation/joint_position"] = request["observation/joint_position"] + 0.1
    if answer is None:
        return request
    return {**request, "prev_chunk": answer["actions"][DONE:], "inference_delay": DELAY, **more}


class RealTimeTest(TemporaryFolderTest):
    def infer_file(self, request, *arguments):
        """What `pi0 infer` answers to the request in a file."""
        path, output = self.folder / "request.msgpack", self.folder / "answer.msgpack"
        path.write_bytes(msgpack_numpy.packb(request))
        done = run("pi0", "infer", *arguments, "--request", path, "--output", output)
        self.assertEqual(done.returncode, 0, done.stderr)
        return msgpack_numpy.unpackb(output.read_bytes())["actions"]

    def test_chunks_continue_the_previous_one(self):
        with serve(*ARGUMENTS) as server:
            client = WebsocketClientPolicy("127.0.0.1", server.port)
            first = client.infer(golden_request(FOLDER))
            alone = client.infer(continuing(None))["actions"]
            guided = client.infer(continuing(first))["actions"]
            frozen = client.infer(continuing(first, rtc="freeze"))["actions"]
            again = client.infer(continuing(None))["actions"]
        left = first["actions"][DONE:]
        scale = np.abs(left).max()

        def apart(chunk, begin, end):
            return np.abs(chunk[begin:end] - left[begin:end]).max() / scale

        self.assertGreater(apart(alone, 0, DELAY), 0.1)
        self.assertLess(apart(guided, 0, DELAY), 0.5 * apart(alone, 0, DELAY))
        self.assertLess(apart(guided, DELAY, 6), apart(alone, DELAY, 6))
        self.assertLess(apart(frozen, 0, DELAY), 1e-5)
        self.assertGreater(apart(frozen, DELAY, 6), 1e-3)
        np.testing.assert_array_equal(again, alone)
        np.testing.assert_array_equal(self.infer_file(continuing(first), *ARGUMENTS), guided)

    def test_aloha_with_its_own_units(self):
        folder = MORE_POLICIES / "pi0_aloha_towel"
        arguments = ["--config", "pi0_aloha_towel", "--checkpoint-dir", make_checkpoint(folder, self.folder / "aloha")]
        request = golden_request(folder)
        with serve(*arguments) as server:
            client = WebsocketClientPolicy("127.0.0.1", server.port)
            first = client.infer(request)["actions"]
            noise = -request["noise"]
            frozen = client.infer(
                {**request, "noise": noise, "prev_chunk": first, "inference_delay": 20, "rtc": "freeze"}
            )["actions"]
        np.testing.assert_allclose(frozen[:20], first[:20], rtol=0, atol=1e-5 * np.abs(first).max())
        self.assertGreater(np.abs(frozen[20:] - first[20:]).max(), 1e-3)

    def test_refusals_name_the_field_and_the_server_goes_on(self):
        with serve(*ARGUMENTS, "--num-steps", 1) as server:
            first = WebsocketClientPolicy("127.0.0.1", server.port).infer(golden_request(FOLDER))
            for change, expected in (
                ({"prev_chunk": first["actions"][:, :7]}, r"prev_chunk: found float64 array \[15, 7\], expected"),
                ({"prev_chunk": np.zeros((0, 8))}, r"prev_chunk: found float64 array \[0, 8\], expected"),
                ({"prev_chunk": np.full((4, 8), np.inf)}, "prev_chunk: value 0 is inf, expected finite"),
                ({"inference_delay": 11}, "inference_delay: found 11, expected an integer from 0 to 10"),
                ({"inference_delay": 1.5}, "inference_delay: found float, expected an integer"),
                ({"execution_horizon": 2}, "execution_horizon: found 2, expected an integer, at least 3"),
                ({"rtc": "frozen"}, "rtc: found 'frozen', expected one of guided, freeze"),
            ):
                client = WebsocketClientPolicy("127.0.0.1", server.port)
                with self.assertRaisesRegex(RuntimeError, expected):
                    client.infer(continuing(first, **change))
            answer = WebsocketClientPolicy("127.0.0.1", server.port).infer(continuing(first))
            self.assertEqual(answer["actions"].shape, (15, 8))

    def test_quantized_requests_are_measured_as_others(self):
        with serve(*ARGUMENTS) as server:
            first = WebsocketClientPolicy("127.0.0.1", server.port).infer(golden_request(FOLDER))
        formats = ["--input-fmt", "float8_e4m3", "--output-fmt", "float16", "--num-steps", 4, "--skip-masked"]
        calls, errors, chunks = [], [], []
        for name, request in (("alone", continuing(None)), ("guided", continuing(first))):
            stats = self.folder / f"{name}.json"
            chunks.append(self.infer_file(request, *ARGUMENTS, *formats, "--stats-output", stats))
            layers = json.loads(stats.read_text())["layers"]
            calls.append([row["n_calls"] for row in layers])
            errors.append([row["rmse"] for row in layers if row["component"] == "action_head" and row["n_calls"] > 2])
        self.assertEqual(*calls)
        self.assertNotEqual(*errors)
        exact = self.infer_file(continuing(first), *ARGUMENTS, "--num-steps", 4, "--skip-masked")
        self.assertLess(relative_rms(chunks[1], exact), 0.1)
        self.assertGreater(relative_rms(chunks[0], exact), 0.1)

    def test_requests_of_one_batch_continue_their_own(self):
        with serve(*ARGUMENTS, "--skip-masked", "--max-batch", 4) as server:
            client = WebsocketClientPolicy("127.0.0.1", server.port)
            first = client.infer(golden_request(FOLDER))
            requests = [continuing(None), continuing(first), continuing(first, rtc="freeze"), continuing(first)]
            alone = [client.infer(request)["actions"] for request in requests]
            together = ask_together(server, requests * 2)
        self.assertGreater(max(batch_sizes(together)), 1, "no requests came together")
        for answer, expected in zip(together, alone * 2, strict=True):
            self.assertLess(relative_rms(answer["actions"], expected), 1e-4)

    def test_recorded_requests_are_swept_as_they_were_asked(self):
        records, sweep = self.folder / "records", self.folder / "sweep"
        with serve(*ARGUMENTS) as server:
            first = WebsocketClientPolicy("127.0.0.1", server.port).infer(golden_request(FOLDER))
        with serve(*ARGUMENTS, "--record", records) as server:
            guided = WebsocketClientPolicy("127.0.0.1", server.port).infer(continuing(first))["actions"]
            self.assertEqual(server.stop(), 0)
        recorded = msgpack_numpy.unpackb((records / "000000.request.msgpack").read_bytes())
        np.testing.assert_array_equal(self.infer_file(recorded, *ARGUMENTS), guided)
        done = run(
            "pi0", "sweep", *ARGUMENTS, "--observations", records, "--output", sweep, "--pairs", "float8_e4m3/float16",
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    unittest.main()
