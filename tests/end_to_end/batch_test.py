"""Requests that are answered together, of clients that wait (--max-batch) or in one message, are answered as alone."""

import collections
import json
import threading
import unittest

import numpy as np
from openpi_client import msgpack_numpy
from openpi_client.websocket_client_policy import WebsocketClientPolicy

from support import PATIENCE_S, POLICIES, StatisticsTest, TemporaryFolderTest, golden_request, one_instruction_set, read, relative_rms, run, serve

NAME = "pi05_droid_jointpos_polaris"
FOLDER = POLICIES / NAME
ARGUMENTS = ["--config", NAME, "--checkpoint-dir", FOLDER, "--seed", 5, *one_instruction_set()]
SHORT = [*ARGUMENTS, "--num-steps", 2]  # where requests need not last until others come
E4M3 = ["--input-fmt", "float8_e4m3", "--output-fmt", "float16"]
PROMPTS = ["wave", "put the banana in the bin", "stop", "wave again", "pick up the cup", "open the drawer"]


def different_requests():
    """Six without noise, of different prompts and pictures."""
    requests = []
    for number, prompt in enumerate(PROMPTS):
        request = {**read(FOLDER / "request.msgpack"), "prompt": prompt}
        camera = "observation/exterior_image_1_left"
        request[camera] = request[camera] // (number + 1)
        requests.append(request)
    return requests


def ask_together(server, requests):
    """An answer or an error for each, of clients that ask at the same moment."""
    clients = [WebsocketClientPolicy("127.0.0.1", server.port) for _ in requests]
    start = threading.Barrier(len(requests))
    outcomes = [None] * len(requests)

    def ask(number):
        start.wait()
        try:
            outcomes[number] = clients[number].infer(requests[number])
        except RuntimeError as error:
            outcomes[number] = error

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=PATIENCE_S)
    return outcomes


def infer_batch(client, observations):
    """What the client of openpi's pull request 941 does."""
    client._ws.send(client._packer.pack({"batch": observations}))
    answer = client._ws.recv()
    if isinstance(answer, str):
        raise RuntimeError(answer)
    return msgpack_numpy.unpackb(answer)


def batch_sizes(answers):
    """Requests of one call of the model have one time."""
    return sorted(collections.Counter(answer["policy_timing"]["infer_ms"] for answer in answers).values())


class BatchTest(StatisticsTest, TemporaryFolderTest):
    def setUp(self):
        super().setUp()
        self.stats = self.folder / "stats.json"

    def report(self):
        return json.loads(self.stats.read_text())

    def test_answers_statistics_and_recordings(self):
        requests = different_requests()
        settings = (
            (["--kernels", "reference"], 2e-2),
            ([], 2e-2),
            ([*E4M3, "--stats-output", self.stats], 0.1),
        )
        for number, (arguments, tolerance) in enumerate(settings):
            records = self.folder / f"records{number}"
            with serve(*ARGUMENTS, *arguments, "--max-batch", 4, "--record", records) as server:
                answers = ask_together(server, requests)
                self.assertEqual(server.stop(), 0)
            sizes = batch_sizes(answers)
            self.assertLessEqual(max(sizes), 4)
            self.assertGreater(max(sizes), 1, "no requests came together")
            together = self.report() if self.stats.exists() else None

            # The same requests in the same order, one by one: the seed gives them the same noise.
            recorded = [read(records / f"{i:06}.request.msgpack") for i in range(len(requests))]
            order = [PROMPTS.index(request["prompt"]) for request in recorded]
            self.assertEqual(sorted(order), list(range(len(requests))))
            alone_records = self.folder / f"alone{number}"
            with serve(*ARGUMENTS, *arguments, "--record", alone_records) as server:
                client = WebsocketClientPolicy("127.0.0.1", server.port)
                for i, sender in enumerate(order):
                    expected = client.infer(requests[sender])["actions"]
                    self.assertLess(relative_rms(answers[sender]["actions"], expected), tolerance)
                    response = read(records / f"{i:06}.response.msgpack")
                    self.assertEqual(list(response), ["actions"])
                    np.testing.assert_array_equal(response["actions"], answers[sender]["actions"])
                self.assertEqual(server.stop(), 0)
            for i, request in enumerate(recorded):
                np.testing.assert_array_equal(request["noise"], read(alone_records / f"{i:06}.request.msgpack")["noise"])
            if together:
                self.compare_reports(together, self.report(), requests=6)

    def compare_reports(self, found, expected, requests):
        for key in ("requests", "measured"):
            self.assertEqual(found["meta"][key], requests)
            self.assertEqual(expected["meta"][key], requests)
        for mine, theirs in zip(found["layers"], expected["layers"], strict=True):
            self.assertEqual(mine["nonfinite"], theirs["nonfinite"])
        self.compare_layers(found, expected)  # a batch may sum in another order, as another CPU does
        self.compare_components(found, expected)

    def test_skipped_inputs_and_refusals(self):
        requests = different_requests()
        del requests[2]["prompt"]
        requests[3] = requests[0]  # its equal may share a call with it, the others may not
        requests[4]["noise"] = np.zeros((3, 32), np.float32)
        arguments = ["--skip-masked", "--max-batch", 6, "--stats-output", self.stats, *E4M3]
        with serve(*ARGUMENTS, *arguments) as server:
            outcomes = ask_together(server, requests)
            self.assertIn("Prompt is required", str(outcomes[2]))
            self.assertIn("noise", str(outcomes[4]))
            for number in (0, 1, 3, 5):
                self.assertEqual(outcomes[number]["actions"].shape, (15, 8))
            self.assertEqual(server.stop(), 0)
        self.assertEqual(self.report()["meta"]["requests"], 4)

    def test_every_second_request_is_measured(self):
        arguments = ["--max-batch", 6, "--stats-output", self.stats, *E4M3, "--stats-every", 2]
        with serve(*SHORT, *arguments) as server:
            answers = ask_together(server, [golden_request(FOLDER)] * 6)
            self.assertLessEqual(max(batch_sizes(answers)), 3)
            self.assertEqual(server.stop(), 0)
        report = self.report()
        self.assertEqual((report["meta"]["requests"], report["meta"]["measured"]), (6, 3))
        self.assertEqual({row["n_calls"] for row in report["layers"] if row["component"] == "action_head"}, {3 * 2})

    def test_bad_size(self):
        for option in ("--max-batch", "--max-observations"):
            for size in (0, -1, "many"):
                self.assertEqual(run("pi0-server", *ARGUMENTS, "--dry-run", option, size).returncode, 2)

    def test_one_request_with_several_observations(self):
        observations = [{**request, "noise": np.roll(golden_request(FOLDER)["noise"], number)} for number, request in enumerate(different_requests()[:4])]
        for number, arguments in enumerate(([], ["--skip-masked", *E4M3, "--stats-output", self.stats])):
            records = self.folder / f"records{number}"
            with serve(*SHORT, *arguments, "--record", records) as server:
                client = WebsocketClientPolicy("127.0.0.1", server.port)
                answer = infer_batch(client, observations)
                self.assertEqual(list(answer), ["actions", "policy_timing", "server_timing"])
                self.assertEqual((answer["actions"].dtype, answer["actions"].shape), (np.float64, (4, 15, 8)))
                self.assertEqual(list(answer["policy_timing"]), ["infer_ms", "batch_size"])
                self.assertEqual(answer["policy_timing"]["batch_size"], 4)
                self.assertNotIn("prev_total_ms", answer["server_timing"])
                self.assertIn("prev_total_ms", infer_batch(client, observations[:1])["server_timing"])
                self.assertEqual(server.stop(), 0)
            together = self.report() if self.stats.exists() else None
            with serve(*SHORT, *arguments) as server:
                client = WebsocketClientPolicy("127.0.0.1", server.port)
                alone = [client.infer(observation)["actions"] for observation in [*observations, observations[0]]]
                self.assertEqual(server.stop(), 0)
            for i, actions in enumerate(answer["actions"]):
                self.assertLess(relative_rms(actions, alone[i]), 0.1 if arguments else 2e-2)
                request, response = (read(records / f"{i:06}.{kind}.msgpack") for kind in ("request", "response"))
                self.assertEqual(request["prompt"], observations[i]["prompt"])
                np.testing.assert_array_equal(response["actions"], actions)
            if together:
                self.compare_reports(together, self.report(), requests=5)
                self.assertEqual(together["meta"]["answered"], 5)

    def test_an_observation_that_is_refused_refuses_the_batch(self):
        good = golden_request(FOLDER)
        bad = {**good, "observation/joint_position": np.zeros(6)}
        records = self.folder / "records"
        arguments = ["--max-observations", 3, "--record", records, "--stats-output", self.stats, *E4M3]
        with serve(*SHORT, *arguments) as server:
            for batch, expected in (
                ([good, good, bad], r"^batch\[2\]: observation/joint_position: found float64 array \[6\]"),
                ([good] * 4, "^batch: found 4 observations, expected at most 3 .*--max-observations"),
                ([], "^batch: found an empty list"),
                (good, "^batch: found map, expected a list"),
                ([good, 7], r"^batch\[1\]: found int, expected a map"),
                ([{"batch": [good]}], r"^batch\[0\]: found another batch"),
            ):
                with self.assertRaisesRegex(RuntimeError, expected):
                    infer_batch(WebsocketClientPolicy("127.0.0.1", server.port), batch)
            with self.assertRaisesRegex(RuntimeError, "batch: found beside 'prompt', expected alone"):
                WebsocketClientPolicy("127.0.0.1", server.port).infer({"batch": [good], "prompt": "wave"})
            client = WebsocketClientPolicy("127.0.0.1", server.port)
            self.assertEqual(infer_batch(client, [good] * 3)["actions"].shape, (3, 15, 8))
            self.assertEqual(server.stop(), 0)
        self.assertEqual(self.report()["meta"]["requests"], 3)
        self.assertEqual(len(list(records.iterdir())), 6)

    def test_limits_hold_for_the_whole_batch(self):
        good = golden_request(FOLDER)
        for option, value, expected in (
            ("--max-array-bytes", 1000, r"'batch\[0\]/observation/\w+/data': 172800 bytes of data, at most 1000 are allowed"),
            ("--max-nesting", 3, "nested deeper than 3"),
        ):
            with serve(*SHORT, option, value) as server, self.assertRaisesRegex(RuntimeError, expected):
                infer_batch(WebsocketClientPolicy("127.0.0.1", server.port), [good])


if __name__ == "__main__":
    unittest.main()
