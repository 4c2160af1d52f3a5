"""What happens to pi0-server from outside: signals, disks, memory, ports. It says what, keeps going where it can, and loses nothing."""

import contextlib
import json
import os
import pathlib
import random
import re
import resource
import shlex
import signal
import socket
import subprocess
import time
import unittest
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from openpi_client import msgpack_numpy
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from websockets.exceptions import ConnectionClosed

from support import PATIENCE_S, POLICIES, PROGRAMS, TemporaryFolderTest, free_port, golden_request, run, serve, small_disk, start, wait_until

NAME = "pi05_droid_jointpos_polaris"
MODEL = ["--config", NAME, "--checkpoint-dir", POLICIES / NAME]
E4M3 = ["--input-fmt", "float8_e4m3", "--output-fmt", "float16"]
REQUEST = golden_request(POLICIES / NAME)


class FaultsTest(TemporaryFolderTest):
    def setUp(self):
        super().setUp()
        self.disk = self.folder / "disk"
        self.disk.mkdir()
        self.stats = self.disk / "stats.json"

    def client(self, server):
        return WebsocketClientPolicy("127.0.0.1", server.port)

    def test_a_disk_full_of_statistics_stops_no_request_and_keeps_the_earlier_file(self):
        with small_disk(self.disk, 100_000) as change:
            with serve(*MODEL, *E4M3, "--num-steps", 1, "--stats-output", self.stats) as server:
                client = self.client(server)
                client.infer(REQUEST)
                server.process.send_signal(signal.SIGUSR1)
                wait_until(self.stats.exists, "statistics")
                earlier = json.loads(self.stats.read_text())
                (self.disk / "other").write_bytes(bytes(60_000))
                server.process.send_signal(signal.SIGUSR1)
                wait_until(lambda: "No space left on device" in server.log_text(), "an error in the log")
                client.infer(REQUEST)
                self.assertEqual(json.loads(self.stats.read_text()), earlier)
                change("size=1m")
                self.assertEqual(server.stop(), 0)
            self.assertEqual(json.loads(self.stats.read_text())["meta"]["requests"], 2)

    def test_a_gone_reader_of_the_log_or_of_everything_ends_nothing(self):
        for number, around in enumerate(("{} 2>&1 | head -n 1", "{} >&- 2>&-")):
            self.stats.unlink(missing_ok=True)
            log = self.folder / f"log{number}"
            arguments = [PROGRAMS / "pi0-server", *MODEL, *E4M3, "--num-steps", 1, "--port", 0, "--host", "127.0.0.1",
                         "--stats-output", self.stats, "--log-file", log]  # fmt: skip
            pid = self.folder / "pid"
            command = f"(echo $BASHPID > {pid}; exec {shlex.join(map(str, arguments))})"
            with subprocess.Popen(["bash", "-c", around.format(command)], stdout=subprocess.DEVNULL) as shell:
                wait_until(lambda: log.exists() and "serving on 127.0.0.1:" in log.read_text(), "the server")
                port = int(log.read_text().split("serving on 127.0.0.1:")[1].split()[0])
                WebsocketClientPolicy("127.0.0.1", port).infer(REQUEST)
                os.kill(int(pid.read_text()), signal.SIGHUP)
                shell.wait(timeout=PATIENCE_S)
            self.assertIn("SIGHUP: no new requests", log.read_text())
            self.assertEqual(json.loads(self.stats.read_text())["meta"]["requests"], 1)

    def test_ctrl_c_ends_the_log_reader_and_loses_nothing(self):
        """As a shell does it: the signal goes to `pi0-server | tee` as a whole."""
        log, code = self.folder / "log", self.folder / "code"
        command = [PROGRAMS / "pi0-server", *MODEL, *E4M3, "--num-steps", 1, "--port", 0, "--host", "127.0.0.1",
                   "--stats-output", self.stats]  # fmt: skip
        for attempt in range(5):
            pipe = f"({shlex.join(map(str, command))}; echo $? >{code}) 2>&1 | tee {log}"
            with subprocess.Popen(["bash", "-c", f"trap : INT; {pipe}"], stdout=subprocess.DEVNULL, start_new_session=True) as shell:
                wait_until(lambda: log.exists() and "serving on 127.0.0.1:" in log.read_text(), "the server")
                port = int(log.read_text().split("serving on 127.0.0.1:")[1].split()[0])
                WebsocketClientPolicy("127.0.0.1", port).infer(REQUEST)
                os.killpg(shell.pid, signal.SIGINT)
                shell.wait(timeout=60)
            wait_until(code.exists, "the server's end")
            self.assertEqual(code.read_text(), "0\n", attempt)
            self.assertEqual(json.loads(self.stats.read_text())["meta"]["requests"], 1)
            for file in (log, code, self.stats):
                file.unlink()

    def test_a_client_that_leaves_as_the_end_comes_does_not_delay_it(self):
        with serve(*MODEL, *E4M3, "--num-steps", 1, "--handshake-timeout", 3600, "--stats-output", self.stats) as server:
            client = self.client(server)
            client.infer(REQUEST)
            server.process.send_signal(signal.SIGSTOP)
            client._ws.socket.close()
            server.process.send_signal(signal.SIGTERM)
            server.process.send_signal(signal.SIGCONT)
            self.assertEqual(server.process.wait(timeout=60), 0)
            self.assertIn(f"statistics of 1 request in {self.stats}", server.log_text())

    def test_without_formats_the_routes_of_statistics_say_so(self):
        with serve(*MODEL, "--num-steps", 1) as server:
            for method, path in (("GET", "/stats"), ("POST", "/stats/reset")):
                request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", method=method)
                with self.assertRaises(urllib.error.HTTPError) as refused:
                    urllib.request.urlopen(request)
                self.assertEqual(refused.exception.code, 404)
                self.assertIn("--stats-output", refused.exception.read().decode())

    def test_signals_in_any_order_and_at_any_moment_end_it_in_order(self):
        choice = random.Random(7)
        names = (signal.SIGUSR1, signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
        for attempt in range(60):
            log = self.folder / "log"
            arguments = [*MODEL, "--num-steps", 1, "--port", 0, "--host", "127.0.0.1", "--log-file", log]
            if with_statistics := attempt % 2 == 0:
                arguments += [*E4M3, "--stats-output", self.stats]
            process = start([PROGRAMS / "pi0-server", *map(str, arguments)])
            if serving := attempt % 3 > 0:
                wait_until(lambda log=log: log.exists() and "serving on" in log.read_text(), "the server")
            else:
                wait_until(lambda log=log: log.exists() and "pi0 " in log.read_text(), "its start")
                time.sleep(choice.uniform(0, 0.15))
            sent = [choice.choice(names) for _ in range(choice.randint(1, 3))] + [signal.SIGTERM]
            ends = [number for number in sent if number != signal.SIGUSR1]
            for number in sent:
                process.send_signal(number)
                time.sleep(choice.choice((0, 0, 0.001, 0.02)))
            code = process.wait(timeout=60)
            self.assertIn(code, (0, 1) if len(ends) > 1 else (0,), (sent, log.read_text()))
            if with_statistics and serving:
                json.loads(self.stats.read_text())
            for file in (log, self.stats):
                file.unlink(missing_ok=True)
            self.assertEqual(list(self.disk.iterdir()), [])

    def test_answers_that_nobody_took_are_not_counted_as_answered(self):
        with serve(*MODEL, *E4M3, "--num-steps", 100, "--stats-output", self.stats) as server:
            good, gone = self.client(server), self.client(server)
            good.infer(REQUEST)
            gone._ws.send(gone._packer.pack(REQUEST))
            wait_until(lambda: "pi0_model_busy 1\n" in server.metrics(), "the request in hand")
            gone._ws.socket.close()
            good.infer(REQUEST)
            self.assertIn('pi0_requests_total{result="answered"} 2\n', server.metrics())
            self.assertEqual(server.stop(), 0)
        meta = json.loads(self.stats.read_text())["meta"]
        self.assertEqual(meta["answered"], 2)
        self.assertEqual(meta["requests"], meta["measured"])
        self.assertLessEqual(meta["answered"], meta["requests"])

    def test_long_prompts_are_refused_before_they_are_tokenized(self):
        with serve(*MODEL, "--num-steps", 1) as server:
            for prompt in ("x" * 40_000_000, b"x" * 40_000_000, np.array("x" * 10_000_000), "x" * 20_000):
                with self.assertRaisesRegex(RuntimeError, "prompt: found text of .* at most 16384"):
                    self.client(server).infer({**REQUEST, "prompt": prompt})
            self.client(server).infer({**REQUEST, "prompt": "x" * 16_000})
            peak = int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{server.process.pid}/status").read_text()).group(1))
            self.assertLess(peak, 1_000_000)  # kB

    def test_fields_that_nobody_reads_cost_their_bytes(self):
        with serve(*MODEL, "--num-steps", 1) as server:
            expected = self.client(server).infer(REQUEST)["actions"]
            clients = [self.client(server) for _ in range(20)]
            request = {**REQUEST, "ignored": [None] * 1_000_000}
            packed = clients[0]._packer.pack(request)
            for client in clients:
                client._ws.send(packed)
            for client in clients:
                np.testing.assert_array_equal(msgpack_numpy.unpackb(client._ws.recv())["actions"], expected)
            peak = int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{server.process.pid}/status").read_text()).group(1))
            self.assertLess(peak, 1_000_000)  # kB; decoded they were 1.6 GB

    def test_under_nohup_the_terminals_end_is_ignored(self):
        with serve(*MODEL, "--num-steps", 1, ignore=signal.SIGHUP) as server:
            server.process.send_signal(signal.SIGHUP)
            self.client(server).infer(REQUEST)
            self.assertEqual(server.stop(), 0)

    def test_statistics_whose_folder_is_gone_at_the_end_are_still_printed(self):
        process = subprocess.Popen(
            [*map(str, [PROGRAMS / "pi0-server", *MODEL, *E4M3, "--num-steps", 1, "--port", 0, "--host", "127.0.0.1",
                        "--stats-output", self.stats, "--log-file", self.folder / "log"])],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        log = self.folder / "log"
        port = wait_until(lambda: log.exists() and "serving on 127.0.0.1:" in log.read_text(), "the server") and int(
            log.read_text().split("serving on 127.0.0.1:")[1].split()[0]
        )
        WebsocketClientPolicy("127.0.0.1", port).infer(REQUEST)
        self.disk.rmdir()
        process.terminate()
        table, errors = process.communicate(timeout=PATIENCE_S)
        self.assertEqual(process.returncode, 1)
        self.assertIn(str(self.stats), errors)
        self.assertIn("action_expert", table)

    def test_a_second_signal_ends_at_once_with_the_statistics_so_far(self):
        with serve(*MODEL, *E4M3, "--num-steps", 1000, "--kernels", "reference", "--stats-output", self.stats) as server:
            clients = [self.client(server) for _ in range(2)]
            for client in clients:
                client._ws.send(client._packer.pack(REQUEST))
            server.wait_for_request_in_hand()
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "a second signal ends at once" in server.log_text(), "the first signal")
            self.assertIsNone(server.process.poll())
            self.assertEqual(server.stop(signal.SIGTERM), 1)
            self.assertIn("the running request gets no answer", server.log_text())
        self.assertEqual(json.loads(self.stats.read_text())["meta"]["requests"], 0)

    def test_sigterm_with_fifty_connections_closes_them_all(self):
        with serve(*MODEL, *E4M3, "--num-steps", 1, "--stats-output", self.stats) as server:
            clients = [self.client(server) for _ in range(50)]
            clients[7].infer(REQUEST)
            server.process.send_signal(signal.SIGTERM)
            for client in clients:
                with self.assertRaises(ConnectionClosed) as closed:
                    client._ws.recv()
                self.assertEqual(closed.exception.rcvd.code, 1001)
            self.assertEqual(server.process.wait(timeout=PATIENCE_S), 0)
        self.assertEqual(json.loads(self.stats.read_text())["meta"]["requests"], 1)

    def test_a_taken_port_is_named(self):
        port = free_port()
        with socket.socket() as other:
            other.bind(("127.0.0.1", port))
            other.listen()
            done = run("pi0-server", *MODEL, "--host", "127.0.0.1", "--port", port)
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"port {port} on 127.0.0.1 is taken", done.stderr)

    def test_no_memory_for_a_request_costs_that_request(self):
        with serve(*MODEL, "--num-steps", 1) as server:
            client = self.client(server)
            expected = client.infer(REQUEST)["actions"]
            with self.little_memory(server, 50_000_000), self.assertRaises(ConnectionClosed) as closed:
                self.client(server).infer({**REQUEST, "ignored": np.zeros(120_000_000, np.uint8)})
            self.assertEqual((closed.exception.rcvd.code, closed.exception.rcvd.reason), (1011, "no memory for the message"))
            np.testing.assert_array_equal(client.infer(REQUEST)["actions"], expected)
            self.assertEqual(server.stop(), 0)

    def test_no_memory_for_a_batch_costs_its_requests(self):
        arguments = [*MODEL, "--num-steps", 20, "--max-batch", 8, "--input-fmt", "float16", "--stats-output", self.stats]
        with serve(*arguments) as server:
            clients = [self.client(server) for _ in range(9)]
            expected = clients[0].infer(REQUEST)["actions"]

            def ask(client):
                try:
                    return client.infer(REQUEST)["actions"]
                except (RuntimeError, ConnectionClosed) as error:
                    return str(error)

            with self.little_memory(server, 2_000_000), ThreadPoolExecutor(len(clients)) as pool:
                outcomes = list(pool.map(ask, clients))
            refused = [outcome for outcome in outcomes if isinstance(outcome, str)]
            self.assertTrue(refused)
            for reason in refused:
                self.assertRegex(reason, "the policy failed: |no memory|bad_alloc")
                self.assertNotIn("frame #", reason)
            np.testing.assert_array_equal(self.client(server).infer(REQUEST)["actions"], expected)
            self.assertEqual(server.stop(), 0)
        counted = json.loads(self.stats.read_text())["meta"]["requests"]
        # An answer that finds no memory on its way out counts as well.
        self.assertGreaterEqual(counted, 2 + len(outcomes) - len(refused))

    @contextlib.contextmanager
    def little_memory(self, server, more):
        """The server may have `more` bytes than it has now."""
        pages = int(pathlib.Path(f"/proc/{server.process.pid}/statm").read_text().split()[0])
        if pages * resource.getpagesize() > 2**42:
            self.skipTest("the address sanitizer, which reserves terabytes, ends a program that is out of memory")
        limit = pages * resource.getpagesize() + more, resource.RLIM_INFINITY
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, limit)
        yield
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


if __name__ == "__main__":
    unittest.main()
