"""pi0 client: requests from pictures, latencies over time, and what it says when there is no connection."""

import http.server
import re
import signal
import socketserver
import subprocess
import threading
import unittest

import numpy as np
from openpi_client import msgpack_numpy
from PIL import Image
from websockets.sync.server import serve as serve_websocket

from support import (
    PATIENCE_S, POLICIES, PROGRAMS, TemporaryFolderTest, certificate, free_port, golden_request, one_instruction_set, read, run,
    serve, wait_until,
)  # fmt: skip

DROID = "pi05_droid_jointpos_polaris"


def model(name):
    return ["--config", name, "--checkpoint-dir", POLICIES / name, "--num-steps", 1, *one_instruction_set()]


class ClientTest(TemporaryFolderTest):
    def setUp(self):
        super().setUp()
        self.request = self.folder / "request.msgpack"
        self.request.write_bytes(msgpack_numpy.packb(golden_request(POLICIES / DROID)))

    def ask(self, *arguments):
        return run("pi0", "client", "--request", self.request, *arguments)

    def refused(self, *arguments):
        done = self.ask(*arguments)
        self.assertEqual(done.returncode, 1, done.stdout)
        return done.stderr

    def in_background(self, server):
        """The port of a server of Python's that serves until the test ends."""
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.shutdown)
        return server.socket.getsockname()[1]


class RequestTest(ClientTest):
    def picture(self, name, image):
        file = self.folder / f"{name}.png"
        Image.fromarray(image).save(file)
        return file

    def sent(self, name, fields):
        """What arrives at a server of this policy."""
        records = self.folder / "records"
        with serve(*model(name), "--record", records) as server:
            done = run("pi0", "client", "--port", server.port, *fields)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(server.stop(), 0)
        found = read(records / "000000.request.msgpack")
        del found["noise"]
        return found

    def test_a_picture_for_each_field(self):
        recorded = read(POLICIES / "pi0_libero/request.msgpack")
        fields = ["--prompt", recorded["prompt"]]
        for key in ("observation/image", "observation/wrist_image"):
            fields += ["--image", f"{key}={self.picture(key.split('/')[1], recorded[key])}"]
        state = "observation/state"
        fields += ["--state", f"{state}={','.join(map(repr, recorded[state].tolist()))}"]
        np.testing.assert_equal(self.sent("pi0_libero", fields), recorded)

    def test_pictures_in_a_map(self):
        recorded = read(POLICIES / "pi05_aloha/request.msgpack")
        fields = ["--prompt", recorded["prompt"], "--state", f"state={','.join(map(repr, recorded['state'].tolist()))}"]
        for name, image in recorded["images"].items():
            fields += ["--image", f"images/{name}={self.picture(name, image.transpose(1, 2, 0))}"]
        np.testing.assert_equal(self.sent("pi05_aloha", fields), recorded)

    def test_fields_replace_those_of_a_recording(self):
        recorded = golden_request(POLICIES / DROID)
        image = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
        key = "observation/wrist_image_left"
        found = self.sent(DROID, ["--request", self.request, "--image", f"{key}={self.picture('wrist', image)}"])
        del recorded["noise"]
        np.testing.assert_equal(found, {**recorded, key: image})

    def test_a_batch_is_printed_sample_by_sample(self):
        one = golden_request(POLICIES / DROID)
        self.request.write_bytes(msgpack_numpy.packb({"batch": [one, one]}))
        with serve(*model(DROID)) as server:
            done = self.ask("--port", server.port)
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = done.stdout.splitlines()
        self.assertEqual(lines[0], "actions: float64 array [2, 15, 8]")
        self.assertEqual([lines[1], lines[17]], ["sample 0", "sample 1"])
        self.assertEqual(lines[2:17], lines[18:33])

    def test_a_slip_in_a_field_is_named(self):
        with serve(*model(DROID)) as server:
            message = self.refused("--port", server.port, "--state", "observation/joint_positions=0,0,0,0,0,0,0")
            self.assertIn("observation/joint_positions: is no field of this server's requests, expected one of", message)
            self.assertIn(" observation/joint_position,", message)

    def test_wrong_command_lines_are_named(self):
        for arguments, words in (
            (["--state", "1,2"], "--state: found '1,2', expected FIELD=NUMBERS"),
            (["--state", "state=1,x"], "found 'x', expected a number"),
            (["--image", "table.png"], "found 'table.png', expected FIELD=FILE"),
            (["--wrist-image", self.request], "expected them beside --image FILE"),
            (["--url", "http://robot:8000"], "'http://robot:8000' is no server's address, expected ws://HOST:PORT"),
            (["--url", "ws://robot:70000"], "is no server's address"),
            (["--url", "ws://robot", "--port", 8000], "--port"),
            (["--watch", "--repeats", 2], "--repeats"),
        ):
            with self.subTest(arguments):
                done = self.ask(*arguments)
                self.assertEqual(done.returncode, 2, done.stderr)
                self.assertIn(words, done.stderr)
        self.assertIn("none.png: does not exist", self.refused("--image", f"field={self.folder / 'none.png'}"))


class RefusalTest(ClientTest):
    def test_keys(self):
        right, wrong = self.folder / "right", self.folder / "wrong"
        right.write_text("s3cret\n")
        wrong.write_text("s3cres\n")
        with serve(*model(DROID), "--api-key-file", right) as server:
            url = ["--url", f"ws://127.0.0.1:{server.port}"]
            self.assertRegex(self.refused(*url), r"HTTP 401 .*it wants an API key: --api-key-file")
            stderr = self.refused(*url, "--api-key-file", wrong)
            self.assertRegex(stderr, "HTTP 401 .*does not accept the key of --api-key-file")
            self.assertNotIn("s3cres", stderr)
            self.assertEqual(self.ask(*url, "--api-key-file", right).returncode, 0)

    def test_tls(self):
        chain, key = certificate(self.folder)
        with serve(*model(DROID), "--tls-cert", chain, "--tls-key", key) as server:
            url = ["--url", f"wss://127.0.0.1:{server.port}"]
            self.assertIn("[15, 8]", self.ask(*url, "--tls-ca", chain).stdout)
            self.assertRegex(self.refused(*url), r"certificate is not trusted \(.*\): --tls-ca")
            other = ["--url", f"wss://localhost:{server.port}", "--tls-ca", chain]
            self.assertIn("certificate is not for localhost", self.refused(*other))
            self.assertIn("needs wss://", self.refused("--port", server.port))
            self.assertIn("key.pem: cannot be used", self.refused(*url, "--tls-ca", key))
        with serve(*model(DROID)) as server:
            self.assertIn("does not speak TLS", self.refused("--url", f"wss://127.0.0.1:{server.port}"))

    def test_what_a_status_means(self):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_error(int(self.path[1:]), explain="says the server")

            def log_message(self, *_):
                pass

        port = self.in_background(http.server.HTTPServer(("127.0.0.1", 0), Handler))
        for status, words in (
            (403, "does not serve clients like this one"),
            (404, "nothing is at /404"),
            (426, "a proxy in between does not pass it on"),
            (500, "a policy server answers with 101"),
            (503, "takes no more clients"),
        ):
            stderr = self.refused("--url", f"ws://127.0.0.1:{port}/{status}")
            self.assertRegex(stderr, rf"cannot connect to ws://127.0.0.1:{port}/{status}: HTTP {status} .*{words}")
            self.assertIn("says the server", stderr)

    def test_another_protocol_or_nobody(self):
        class Greeting(socketserver.BaseRequestHandler):
            def handle(self):
                self.request.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                self.request.recv(4096)

        port = self.in_background(socketserver.TCPServer(("127.0.0.1", 0), Greeting))
        self.assertIn("is no WebSocket server", self.refused("--port", port))
        self.assertIn("does not speak TLS", self.refused("--url", f"wss://127.0.0.1:{port}"))
        nobody = free_port()
        self.assertIn(f"cannot connect to ws://127.0.0.1:{nobody}: Connection refused", self.refused("--port", nobody))


class WatchTest(ClientTest):
    def watch(self, port, **streams):
        command = [PROGRAMS / "pi0", "client", "--port", str(port), "--request", self.request, "--watch"]
        process = subprocess.Popen(command, text=True, **streams)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def test_a_line_a_second_and_one_for_all_in_the_end(self):
        with serve(*model(DROID)) as server:
            output = self.folder / "output"
            with output.open("w") as file:
                process = self.watch(server.port, stdout=file, stderr=subprocess.PIPE)
                wait_until(lambda: len(output.read_text().splitlines()) >= 4, "two lines")
                process.send_signal(signal.SIGINT)
                self.assertEqual(process.wait(timeout=PATIENCE_S), 0, process.stderr.read())
                process.stderr.close()
            head, names, *lines, total = (line.split() for line in output.read_text().splitlines())
            self.assertEqual(head, ["infer_ms", "server", "ms", "round", "trip", "ms"])
            self.assertEqual(names, "second requests per s median worst median worst median worst".split())
            for line in [*lines, total]:
                self.assertEqual(len(line), 9)
                for median, worst in (line[3:5], line[5:7], line[7:9]):
                    self.assertLessEqual(float(median), float(worst))
            self.assertEqual(total[0], "all")
            self.assertEqual(int(total[1]), sum(int(line[1]) for line in lines))
            answered = re.search(r'pi0_requests_total{result="answered"} (\d+)', server.metrics())
            self.assertEqual(int(total[1]), int(answered.group(1)))

    def test_a_reader_that_has_enough_ends_it(self):
        with serve(*model(DROID)) as server:
            process = self.watch(server.port, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            process.stdout.readline()
            process.stdout.close()
            self.assertEqual(process.wait(timeout=PATIENCE_S), 0)

    def test_a_server_that_shuts_down_is_asked_over_a_new_connection(self):
        connections = []

        def serve_one(connection):
            """Without timings, as a server may be; closes between two requests."""
            connections.append(connection)
            connection.send(msgpack_numpy.packb({}))
            for _ in connection:
                connection.send(msgpack_numpy.packb({"actions": np.zeros((2, 3))}))
                connection.close(1001, "the server is shutting down")

        port = self.in_background(serve_websocket(serve_one, "127.0.0.1", 0))
        output = self.folder / "output"
        with output.open("w") as file:
            process = self.watch(port, stdout=file, stderr=subprocess.PIPE)
            wait_until(lambda: len(connections) >= 3, "connections")
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(timeout=PATIENCE_S), 0)
        self.assertIn("closed the connection: 1001 the server is shutting down; connecting again", process.stderr.read())
        process.stderr.close()
        self.assertEqual(output.read_text().split()[-6:-2], ["-", "-", "-", "-"])


if __name__ == "__main__":
    unittest.main()
