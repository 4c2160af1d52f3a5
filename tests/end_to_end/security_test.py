"""pi0-server with an API key and TLS, as openpi's own client uses them."""

import json
import os
import ssl
import subprocess
import sys
import unittest
import urllib.error
import urllib.request

from openpi_client import msgpack_numpy
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from websockets.exceptions import InvalidStatus

from support import PATIENCE_S, POLICIES, TemporaryFolderTest, certificate, golden_request, one_instruction_set, run, serve

NAME = "pi05_droid_jointpos_polaris"
MODEL = ["--config", NAME, "--checkpoint-dir", POLICIES / NAME, "--num-steps", 1, *one_instruction_set()]
REQUEST = golden_request(POLICIES / NAME)


class SecurityTest(TemporaryFolderTest):
    def setUp(self):
        super().setUp()
        self.key = self.folder / "key"
        self.key.write_text("s3cret-key\n")

    def test_only_clients_with_the_key_are_served(self):
        with serve(*MODEL, "--api-key-file", self.key) as server:
            client = WebsocketClientPolicy("127.0.0.1", server.port, api_key="s3cret-key")
            self.assertEqual(client.infer(REQUEST)["actions"].shape[1], 8)
            for wrong in (None, "s3cret-kez"):
                with self.assertRaises(InvalidStatus) as refused:
                    WebsocketClientPolicy("127.0.0.1", server.port, api_key=wrong)
                self.assertEqual(refused.exception.response.status_code, 401)
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/healthz") as answer:
                self.assertEqual(answer.status, 200)
            with self.assertRaises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics")
            self.assertEqual(refused.exception.code, 401)
            refused.exception.close()
            client.infer(REQUEST)
            self.assertNotIn("s3cret", server.log_text())

    def test_over_tls_answers_are_the_same(self):
        chain, key = certificate(self.folder)
        with serve(*MODEL) as server:
            self.assertIn("not encrypted", server.log_text())
            plain = WebsocketClientPolicy("127.0.0.1", server.port).infer(REQUEST)["actions"]
        with serve(*MODEL, "--tls-cert", chain, "--tls-key", key, "--api-key-file", self.key) as server:
            self.assertIn("with TLS", server.log_text())
            trusting = ssl.create_default_context(cafile=chain)
            with urllib.request.urlopen(f"https://127.0.0.1:{server.port}/healthz", context=trusting) as answer:
                self.assertEqual(answer.read(), b"OK\n")
            script = (
                "import sys; from openpi_client import msgpack_numpy as m; "
                "from openpi_client.websocket_client_policy import WebsocketClientPolicy as W; "
                f"c = W('wss://127.0.0.1', {server.port}, api_key='s3cret-key'); "
                "r = m.unpackb(sys.stdin.buffer.read()); "
                "print([c.infer(r)['actions'].tolist() for _ in range(3)])"
            )
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", script], input=msgpack_numpy.packb(REQUEST),
                capture_output=True, timeout=PATIENCE_S, check=False, env={**os.environ, "SSL_CERT_FILE": str(chain)},
            )  # fmt: skip
            self.assertEqual(done.returncode, 0, done.stderr.decode())
            self.assertEqual(json.loads(done.stdout), [plain.tolist()] * 3)
            with self.assertRaises(Exception):
                WebsocketClientPolicy("127.0.0.1", server.port, api_key="s3cret-key")  # without TLS
            self.assertIn("no TLS", server.log_text())
            self.assertEqual(server.stop(), 0)

    def test_files_that_cannot_be_used_are_named(self):
        chain, key = certificate(self.folder)
        empty = self.folder / "empty"
        empty.write_text("\n")
        for arguments, code, words in (
            (["--api-key-file", empty], 1, ["empty", "API key"]),
            (["--api-key-file", self.folder / "none"], 2, ["none"]),
            (["--tls-cert", chain], 2, ["--tls-key"]),
            (["--tls-cert", empty, "--tls-key", key], 1, ["empty", "PEM"]),
            (["--tls-cert", chain, "--tls-key", empty], 1, ["empty", "private key"]),
        ):
            done = run("pi0-server", *MODEL, "--port", 0, *arguments)
            self.assertEqual(done.returncode, code, (arguments, done.stderr))
            for word in words:
                self.assertIn(word, done.stderr)


if __name__ == "__main__":
    unittest.main()
