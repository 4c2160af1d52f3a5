"""pi0-server and pi0 infer with formats: statistics as pi0-quant's, on every end, whole or not at all."""

import http.client
import json
import signal
import threading
import unittest

import numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy

from support import (
    GOLDENS, PATIENCE_S, POLICIES, StatisticsTest, TemporaryFolderTest, golden_request, one_instruction_set, read, read_tensor, relative_rms,
    run, serve, wait_until,
)  # fmt: skip

NAME = "pi05_droid_jointpos_polaris"
FOLDER = POLICIES / NAME
ARGUMENTS = ["--config", NAME, "--checkpoint-dir", FOLDER, "--kernels", "reference"]
SMALL = [*ARGUMENTS, "--skip-masked"]  # a request takes half the time
E4M3 = ["--input-fmt", "float8_e4m3", "--output-fmt", "float16"]


def fetch(port, method, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    connection.request(method, path)
    reply = connection.getresponse()
    return reply.status, reply.read()


class QuantizeTest(StatisticsTest, TemporaryFolderTest):
    def setUp(self):
        super().setUp()
        self.stats = self.folder / "stats.json"

    def report(self):
        return json.loads(self.stats.read_text())

    def test_served_policy_equals_the_original(self):
        for pair in ("float8_e4m3__float16", "float8_e5m2__bfloat16"):
            input_fmt, output_fmt = pair.split("__")
            arguments = ["--input-fmt", input_fmt, "--output-fmt", output_fmt, "--quantize-attention", "none"]
            with serve(*ARGUMENTS, *arguments, "--stats-output", self.stats) as server:
                client = WebsocketClientPolicy("127.0.0.1", server.port)
                actions = client.infer(golden_request(FOLDER))["actions"]
                self.assertEqual(server.stop(), 0)
            self.assertLess(relative_rms(actions, read(FOLDER / f"response_{pair}.msgpack")["actions"]), 0.1)
            self.compare_statistics(self.report(), json.loads((FOLDER / f"stats_{pair}.json").read_text()))

    def test_statistics_count_finished_requests(self):
        with serve(*SMALL, *E4M3, "--stats-output", self.stats, "--num-steps", 1) as server:
            client = WebsocketClientPolicy("127.0.0.1", server.port)
            for _ in range(2):
                client.infer(golden_request(FOLDER))
            with self.assertRaises(RuntimeError):
                WebsocketClientPolicy("127.0.0.1", server.port).infer({"prompt": "nothing else"})

            status, body = fetch(server.port, "GET", "/stats")
            self.assertEqual((status, json.loads(body)["meta"]["requests"]), (200, 2))
            self.assertFalse(self.stats.exists())
            server.process.send_signal(signal.SIGUSR1)
            wait_until(self.stats.exists, "statistics")
            self.assertEqual(self.report()["meta"]["requests"], 2)

            self.assertEqual(fetch(server.port, "POST", "/stats/reset")[0], 200)
            self.assertEqual(json.loads(fetch(server.port, "GET", "/stats")[1])["meta"]["requests"], 0)
            client.infer(golden_request(FOLDER))
            self.assertEqual(server.stop(signal.SIGINT), 0)
        report = self.report()
        self.assertEqual(report["meta"]["requests"], 1)
        self.assertEqual(report["meta"]["measured"], 1)
        for row in report["components"]:
            self.assertGreater(row["mean_rmse"], 0)
        kinds = {row["kind"] for row in report["layers"]}
        self.assertEqual(kinds, {"linear", "attention"})
        self.assertTrue(report["components_attention"])

    def test_every_nth_request_is_measured_and_the_interval_survives_a_kill(self):
        arguments = ["--stats-output", self.stats, "--num-steps", 1, "--stats-every", 3, "--stats-interval", 0.1]
        with serve(*SMALL, *E4M3, *arguments) as server:
            client = WebsocketClientPolicy("127.0.0.1", server.port)
            answers = [client.infer(golden_request(FOLDER))["actions"] for _ in range(4)]
            for answer in answers:
                np.testing.assert_array_equal(answer, answers[0])
            wait_until(lambda: self.stats.exists() and self.report()["meta"]["requests"] == 4, "statistics")
            server.stop(signal.SIGKILL)
        self.assertEqual(self.report()["meta"]["measured"], 2)
        self.assertIn("layers", self.report())

    def test_end_during_a_request(self):
        with serve(*SMALL, *E4M3, "--stats-output", self.stats, "--num-steps", 80) as server:
            client = WebsocketClientPolicy("127.0.0.1", server.port)
            client.infer(golden_request(FOLDER))
            waiting = [WebsocketClientPolicy("127.0.0.1", server.port) for _ in range(2)]
            outcomes = []

            def ask(one):
                try:
                    outcomes.append(one.infer(golden_request(FOLDER)))
                except Exception as error:  # noqa: BLE001: the one that waited is closed
                    outcomes.append(error)

            threads = [threading.Thread(target=ask, args=(one,)) for one in waiting]
            for thread in threads:
                thread.start()
            server.wait_for_request_in_hand()
            self.assertEqual(server.stop(), 0)
            for thread in threads:
                thread.join(timeout=PATIENCE_S)
        answered = sum(isinstance(outcome, dict) for outcome in outcomes)
        self.assertEqual(answered, 1)
        report = self.report()
        self.assertEqual(report["meta"]["requests"], 1 + answered)
        calls = {row["n_calls"] for row in report["layers"] if row["component"] == "action_head"}
        self.assertEqual(calls, {(1 + answered) * 80})

    def test_roles_methods_and_scaled_formats(self):
        fast = [*ARGUMENTS[:-2], "--skip-masked"]
        arguments = [*fast, "--num-steps", 1, "--seed", 0, "--input-fmt", "int8:row", "--weight-fmt", "int4:group128",
                     "--output-fmt", "bfloat16", "--kv-cache-fmt", "mxfp8_e4m3", "--rotate"]  # fmt: skip
        answers = {}
        for extra in (["--stats-output", self.stats], ["--no-statistics"]):
            with serve(*arguments, *extra) as server:
                client = WebsocketClientPolicy("127.0.0.1", server.port)
                answers[extra[0]] = client.infer(golden_request(FOLDER))["actions"]
                status, _ = fetch(server.port, "GET", "/stats")
                self.assertEqual(status, 200 if extra[0] == "--stats-output" else 404)
                self.assertEqual(server.stop(), 0)
        np.testing.assert_array_equal(*answers.values())
        report = self.report()
        kinds = {row["kind"] for row in report["layers"]}
        self.assertEqual(kinds, {"linear", "attention", "kv_cache"})
        meta = report["meta"]
        wanted = {"input_fmt": "int8:row", "weight_fmt": "int4:group128", "output_fmt": "bfloat16", "kv_cache_fmt": "mxfp8_e4m3", "rotate": True}
        self.assertEqual({key: meta[key] for key in wanted}, wanted)
        self.assertTrue(4 < meta["weight_bits"] < 4.5, meta["weight_bits"])
        for words, wrong in (
            (["granularity 'rows'", "group128"], ["--input-fmt", "int8:rows"]),
            (["did you mean 'mxfp4'"], ["--weight-fmt", "mxpf4"]),
            (["float8_e4m3:tensor", "po2"], ["--output-fmt", "int8:row:po2"]),
            (["--calibration"], ["--input-fmt", "int4:row", "--smooth", 0.5]),
            (["a static scale", "--calibration"], ["--input-fmt", "int8:tensor:static"]),
            (["inputs alone", "outputs"], ["--output-fmt", "int8:tensor:static"]),
            (["nothing to measure"], ["--no-statistics"]),
        ):
            done = run("pi0-server", *ARGUMENTS, *wrong)
            self.assertNotEqual(done.returncode, 0)
            for word in words:
                self.assertIn(word, done.stderr)

    def test_a_format_that_makes_nan_of_zeros_is_served(self):
        with serve(*SMALL, "--input-fmt", "nvfp4", "--num-steps", 1) as server:
            actions = WebsocketClientPolicy("127.0.0.1", server.port).infer(golden_request(FOLDER))["actions"]
        self.assertTrue(np.isfinite(actions).all())

    def test_accumulators_errors_by_cause_and_noise(self):
        def layers(*arguments):
            with serve("--config", NAME, "--checkpoint-dir", FOLDER, "--skip-masked", *arguments, "--stats-output", self.stats,
                       "--num-steps", 1) as server:  # fmt: skip
                WebsocketClientPolicy("127.0.0.1", server.port).infer(golden_request(FOLDER))
                self.assertEqual(server.stop(), 0)
            return {row["layer"]: row for row in self.report()["layers"]}

        def find(rows, cause):
            return {name: row[f"{cause}_rmse"] for name, row in rows.items() if row["n_calls"]}

        e4m3 = [*E4M3, "--split-errors"]
        plain, systolic = layers(*e4m3), layers(*e4m3, "--functional-model", "systolic")
        self.assertEqual(self.report()["meta"]["accumulator"], "systolic")
        self.assertEqual(set(find(plain, "accumulation").values()), {0})
        for name, error in find(systolic, "accumulation").items():
            (self.assertGreater, self.assertEqual)[systolic[name]["kind"] == "attention"](error, 0, name)
        for row in systolic.values():
            if row["n_calls"] and row["kind"] == "linear":  # the causes are nearly independent
                sum_of_squares = sum(row[f"{cause}_rmse"] ** 2 for cause in ("operands", "accumulation", "output"))
                self.assertLess(abs(row["rmse"] ** 2 / sum_of_squares - 1), 0.6, row)
        rules = self.folder / "rules.json"
        rules.write_text(json.dumps({"rules": [
            {"match": "*.q_proj", "input_fmt": "bfloat16", "output_fmt": "bfloat16", "accumulator": "bfloat16:1"},
            {"match": "*.sdpa", "input_fmt": "bfloat16", "output_fmt": "bfloat16", "accumulator": "float16:16"},
            {"match": "*.k_proj", "input_fmt": "bfloat16", "output_fmt": "bfloat16", "noise": "ulp:1,bfloat16"}]}))  # fmt: skip
        by_rules = layers("--rules", rules, "--split-errors")
        for name, row in by_rules.items():
            cause = "output" if name.endswith("k_proj") else "accumulation"
            self.assertGreater(row[f"{cause}_rmse"], 0, name)
        for words, wrong in (
            (["accumulator 'bfloat16'", "1 to 4096"], ["--accumulator", "bfloat16"]),
            (["0", "4096"], ["--accumulator", "float16:0"]),
            (["--functional-model", "systolic"], ["--functional-model", "gpu"]),
            (["relative:R"], ["--noise", "gauss"]),
            (["split-errors"], [*E4M3, "--no-statistics", "--split-errors"]),
        ):
            done = run("pi0-server", *ARGUMENTS, *wrong)
            self.assertNotEqual(done.returncode, 0)
            for word in words:
                self.assertIn(word, done.stderr)

    def test_operations_between_products(self):
        rules = self.folder / "rules.json"
        rules.write_text('{"rules": [{"match": "*.softmax", "off": true}, {"match": "*", "vector_fmt": "float8_e4m3"}]}')
        answers, errors = {}, {}
        for name, arguments in (
            ("plain", []),
            ("bfloat16", ["--vector-fmt", "bfloat16"]),
            ("float8_e4m3", ["--vector-fmt", "float8_e4m3"]),
            ("rules", ["--rules", rules]),
        ):
            self.stats.unlink(missing_ok=True)
            fast = [*ARGUMENTS[:-2], "--skip-masked", "--num-steps", 1, "--seed", 0, *arguments]
            with serve(*fast, *(["--stats-output", self.stats] if arguments else [])) as server:
                client = WebsocketClientPolicy("127.0.0.1", server.port)
                answers[name] = client.infer(golden_request(FOLDER))["actions"]
                self.assertEqual(server.stop(), 0)
            if not arguments:
                continue
            errors[name] = relative_rms(answers[name], answers["plain"])
            report = self.report()
            layers = [row for row in report["layers"] if row["kind"] == "vector"]
            everywhere = {"vision", "language", "action_expert", "action_head"}
            self.assertEqual({row["component"] for row in layers}, everywhere)
            self.assertEqual({row["component"] for row in report["components_vector"]}, everywhere)
            self.assertTrue(all(row["n_calls"] > 0 and row["rel_rmse"] is not None for row in layers))
            softmaxes = [row for row in layers if row["matrix"] == "softmax"]
            self.assertEqual(bool(softmaxes), name != "rules")
            places = [(row["component"], row["block"], row["matrix"]) for row in report["layers"]]
            self.assertEqual(len(set(places)), len(places))
            self.assertEqual(report["meta"].get("vector_fmt"), None if name == "rules" else name)
        self.assertLess(errors["bfloat16"], errors["float8_e4m3"])
        for words, wrong in (
            (["did you mean 'bfloat16'"], ["--vector-fmt", "bflaot16"]),
            (["inputs alone", "vector operations"], ["--vector-fmt", "int8:tensor:static"]),
            (["--rules"], ["--vector-fmt", "bfloat16", "--rules", rules]),
        ):
            done = run("pi0-server", *ARGUMENTS, *wrong)
            self.assertNotEqual(done.returncode, 0)
            for word in words:
                self.assertIn(word, done.stderr)

    def test_bad_places_and_settings(self):
        def refuse(code, expected, *arguments):
            done = run("pi0-server", *ARGUMENTS, "--dry-run", *arguments)
            self.assertEqual(done.returncode, code, done.stderr)
            self.assertIn(expected, done.stderr)

        refuse(1, "absent/stats.json", "--stats-output", self.folder / "absent/stats.json")
        refuse(1, "is a folder", "--stats-output", self.folder)
        refuse(2, "float8", "--input-fmt", "float8")
        refuse(2, "wheels", "--skip-components", "wheels")
        refuse(2, "some", "--quantize-attention", "some")
        rules = self.folder / "rules.json"
        refuse(1, "rules.json", "--rules", rules)
        rules.write_text('{"rules": [{"match": "nothing.*", "off": true}]}')
        refuse(1, "nothing.*", "--rules", rules)
        rules.write_text('{"rules": [{"match": "*", "input_fmt": "float16", "output_fmt": "float16"}]}')
        refuse(2, "--rules", "--rules", rules, "--input-fmt", "float16")
        self.assertEqual(run("pi0-server", *ARGUMENTS, "--dry-run", "--rules", rules).returncode, 0)

    def test_offline_full_precision(self):
        folder = GOLDENS / "tiny_pi05"

        def actions(*arguments):
            output = self.folder / "actions.safetensors"
            done = run(
                "pi0", "infer", "--checkpoint-dir", folder, "--inputs", folder / "inputs.safetensors",
                "--output", output, "--precision", "float32", *one_instruction_set(), *arguments,
            )  # fmt: skip
            self.assertEqual(done.returncode, 0, done.stderr)
            return read_tensor(output, "actions")

        np.testing.assert_array_equal(actions("--stats-output", self.stats), actions())
        for row in self.report()["layers"]:
            self.assertEqual(row["rmse"], None if row["n_calls"] == 0 else 0.0)


if __name__ == "__main__":
    unittest.main()
