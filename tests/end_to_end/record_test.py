"""pi0-server --record: what was answered is on disk, and pi0 infer gives the same answer to it, byte for byte."""

import os
import re
import shutil
import threading
import time
import unittest
import unittest.mock

import numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy

from fork_server import preloadable
from support import POLICIES, PROGRAMS, TemporaryFolderTest, golden_request, one_instruction_set, read, run, serve, wait_until

NAME = "pi05_droid_jointpos_polaris"
FOLDER = POLICIES / NAME
MODEL = ["--config", NAME, "--checkpoint-dir", FOLDER, *one_instruction_set(), "--num-steps", 1]
E4M3 = ["--input-fmt", "float8_e4m3", "--output-fmt", "float16"]
PAIR_BYTES = 346012 + 15 * 32 * 4 + 1014  # about: the golden request, its noise, the answer


def client_of(server):
    return WebsocketClientPolicy("127.0.0.1", server.port)


def request_without_noise():
    return read(FOLDER / "request.msgpack")


class RecordTest(TemporaryFolderTest):
    def setUp(self):
        super().setUp()
        self.records = self.folder / "records"

    def file(self, number, kind):
        return self.records / f"{number:06}.{kind}.msgpack"

    def check_files(self, count):
        """Exactly the pairs 0 to count - 1."""
        expected = {self.file(number, kind).name for number in range(count) for kind in ("request", "response")}
        self.assertEqual({path.name for path in self.records.iterdir()}, expected)

    def replay(self, number, *arguments):
        output = self.folder / "replayed.msgpack"
        done = run("pi0", "infer", *MODEL, *arguments, "--request", self.file(number, "request"), "--output", output)
        self.assertEqual(done.returncode, 0, done.stderr)
        return output.read_bytes()

    def test_replayed_answers_are_the_recorded_bytes(self):
        for formats in ([], E4M3):
            self.records = self.folder / f"records{len(formats)}"
            sent = [request_without_noise(), golden_request(FOLDER), request_without_noise()]
            with serve(*MODEL, *formats, "--record", self.records) as server:
                self.assertIn(str(self.file(0, "request")), server.log_text())
                client = client_of(server)
                answers = [client.infer(request) for request in sent[:2]]
                for refused in ({"prompt": "nothing else"}, {**sent[0], "noise": np.zeros((3, 32), np.float32)}):
                    with self.assertRaises(RuntimeError):
                        client_of(server).infer(refused)
                answers.append(client.infer(sent[2]))
                self.assertEqual(server.stop(), 0)
            self.check_files(3)
            for number, answer in enumerate(answers):
                request, response = read(self.file(number, "request")), read(self.file(number, "response"))
                self.assertEqual(list(request), [*request_without_noise(), "noise"])
                for key, value in sent[number].items():
                    np.testing.assert_array_equal(request[key], value)
                self.assertEqual((request["noise"].dtype, request["noise"].shape), (np.float32, (15, 32)))
                self.assertEqual(list(response), ["actions"])
                np.testing.assert_array_equal(response["actions"], answer["actions"])
                self.assertEqual(self.replay(number, *formats), self.file(number, "response").read_bytes())
            first, third = (self.file(number, "response").read_bytes() for number in (0, 2))
            self.assertNotEqual(first, third)  # another draw

    def test_recording_changes_no_answer(self):
        def answers(*arguments):
            with serve(*MODEL, "--seed", 5, *arguments) as server:
                client = client_of(server)
                return [client.infer(request_without_noise())["actions"] for _ in range(2)]

        np.testing.assert_array_equal(answers(), answers("--record", self.records))

    def test_a_second_run_continues(self):
        for run_number in range(2):
            with serve(*MODEL, "--record", self.records) as server:
                client_of(server).infer(request_without_noise())
                self.assertEqual(server.stop(), 0)
            self.check_files(run_number + 1)
            if run_number == 0:
                first = self.file(0, "request").read_bytes()
        self.assertEqual(self.file(0, "request").read_bytes(), first)
        self.assertNotEqual(self.file(1, "request").read_bytes(), first)

    def test_limit(self):
        limit = ["--record", self.records, "--record-limit-gib", 2.5 * PAIR_BYTES / 2**30]
        for _ in range(2):  # the second run finds the folder full
            with serve(*MODEL, *limit) as server:
                client = client_of(server)
                for _ in range(4):
                    self.assertEqual(client.infer(request_without_noise())["actions"].shape, (15, 8))
                self.assertEqual(server.stop(), 0)
                self.assertEqual(len(re.findall(r"\[warning\].*record", server.log_text())), 1, server.log_text())
                self.assertIn("recording is over", server.log_text())
            self.check_files(2)

    def test_unusable_folders(self):
        file = self.folder / "file"
        file.write_text("")
        for folder in (file, file / "below", "/proc", "/proc/records"):
            for dry in ([], ["--dry-run"]):
                done = run("pi0-server", *MODEL, "--port", 0, "--record", folder, *dry)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn("pi0-server: /", done.stderr)
                self.assertNotIn("loading", done.stderr)
        for arguments in (["--record", ""], ["--record-limit-gib", 1], ["--record", "--record-limit-gib", 0]):
            self.assertEqual(run("pi0-server", *MODEL, "--dry-run", *arguments).returncode, 2)
        self.assertEqual(run("pi0-server", *MODEL, "--dry-run", "--record", self.records).returncode, 0)
        self.assertFalse(self.records.exists())
        with serve(*MODEL, "--record", self.records):
            second = run("pi0-server", *MODEL, "--port", 0, "--record", self.records)
            self.assertEqual(second.returncode, 1)
            self.assertIn("another server", second.stderr)

    def test_default_folder_and_openpis_command_line(self):
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder)
        self.records = self.folder / "policy_records"
        theirs = ["policy:checkpoint", "--policy.config", NAME, "--policy.dir", FOLDER]
        for count, arguments in enumerate((["--record", *theirs], [*MODEL, "--record"]), 1):
            with serve(*arguments) as server:
                client_of(server).infer(request_without_noise())
                self.assertEqual(server.stop(), 0)
            self.check_files(count)

    def test_removed_folder(self):
        with serve(*MODEL, "--record", self.records) as server:
            client = client_of(server)
            client.infer(request_without_noise())
            wait_until(self.file(0, "response").exists, "a recording")
            shutil.rmtree(self.records)
            for _ in range(3):
                self.assertEqual(client.infer(request_without_noise())["actions"].shape, (15, 8))
            wait_until(lambda: "was not recorded" in server.log_text(), "a warning")
            self.assertEqual(len(re.findall(r"\[warning\].*record", server.log_text())), 1, server.log_text())
            self.assertFalse(self.records.exists())

            self.records.mkdir()
            client.infer(request_without_noise())
            self.assertEqual(server.stop(), 0)
            self.assertIn("recorded again", server.log_text())
        self.assertEqual(self.replay(0), self.file(0, "response").read_bytes())

    def test_a_disk_that_hangs_delays_the_end_only(self):
        pipe = self.folder / "disk"
        preloaded = {"LD_PRELOAD": str(preloadable(PROGRAMS / "tests" / "libhanging_disk.so")), "HANGING_DISK": str(pipe),
                     "ASAN_OPTIONS": "verify_asan_link_order=0"}  # fmt: skip
        with unittest.mock.patch.dict(os.environ, preloaded), serve(*MODEL, "--record", self.records) as server:
            os.mkfifo(pipe)
            client = client_of(server)
            for _ in range(4):
                self.assertEqual(client.infer(request_without_noise())["actions"].shape, (15, 8))
            wait_until(lambda: len(list(self.records.iterdir())) == 1, "a file on its way")
            (part,) = self.records.iterdir()
            self.assertRegex(part.name, r"^000000\.request\.msgpack\.[0-9a-f]{16}\.part$")

            codes = []
            end = threading.Thread(target=lambda: codes.append(server.stop()))
            end.start()
            wait_until(lambda: "all connections are closed" in server.log_text(), "the end of all connections")
            time.sleep(0.2)
            self.assertIsNone(server.process.poll())
            with pipe.open():
                pipe.unlink()
            end.join()
            self.assertEqual(codes, [0])
        self.check_files(4)
        for number in range(4):
            self.assertEqual(self.replay(number), self.file(number, "response").read_bytes())


if __name__ == "__main__":
    unittest.main()
