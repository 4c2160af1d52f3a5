"""GET /metrics of a quantizing server, read by Prometheus' own checker."""

import re
import subprocess
import unittest
import urllib.request

from openpi_client.websocket_client_policy import WebsocketClientPolicy

from support import POLICIES, golden_request, installed, serve

NAME = "pi05_droid_jointpos_polaris"
MODEL = ["--config", NAME, "--checkpoint-dir", POLICIES / NAME]


class MetricsTest(unittest.TestCase):
    def test_promtool_accepts_them_and_components_have_their_rmse(self):
        with serve(*MODEL, "--input-fmt", "float8_e4m3", "--output-fmt", "float16") as server:
            address = f"http://127.0.0.1:{server.port}/metrics"
            with urllib.request.urlopen(address) as answer:
                self.assertEqual(answer.headers["Content-Type"], "text/plain; version=0.0.4; charset=utf-8")
                self.assertNotIn("pi0_component_rmse{", answer.read().decode())
            client = WebsocketClientPolicy(host="127.0.0.1", port=server.port)
            client.infer(golden_request(POLICIES / NAME))
            with urllib.request.urlopen(address) as answer:
                text = answer.read().decode()
        found = {
            (component, kind): float(value)
            for component, kind, value in re.findall(
                r'pi0_component_rmse\{component="(\w+)",kind="(\w+)"\} (\S+)', text
            )
        }
        self.assertEqual(
            set(found),
            {(name, "linear") for name in ("vision", "language", "action_expert", "action_head")}
            | {(name, "attention") for name in ("vision", "language", "action_expert")},
        )
        self.assertTrue(all(value > 0 for value in found.values()))
        self.assertIn("pi0_measured_requests 1", text)
        command = [installed("promtool", "prometheus"), "check", "metrics"]
        checked = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        self.assertEqual((checked.returncode, checked.stdout, checked.stderr), (0, "", ""))


if __name__ == "__main__":
    unittest.main()
