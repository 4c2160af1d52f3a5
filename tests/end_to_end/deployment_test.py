"""The examples for systemd and Kubernetes: valid, with options that the server has, and with time for its drain."""

import importlib.util
import pathlib
import re
import shlex
import subprocess
import unittest

from support import PATIENCE_S, POLICIES, PROGRAMS, TemporaryFolderTest, installed, run

TOOLS = pathlib.Path(__file__).resolve().parent.parent.parent / "tools"
UNIT = (TOOLS / "systemd/pi0-server.service").read_text()
MANIFEST = TOOLS / "kubernetes/pi0-server.yaml"
NAME = "pi05_droid"
END_TIMEOUT_S = 5  # --end-timeout


def number(pattern, text):
    return float(re.search(pattern, text, re.MULTILINE).group(1))


class DeploymentTest(TemporaryFolderTest):
    def check_options(self, options):
        done = run("pi0-server", "--dry-run", *options)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_the_unit_is_valid(self):
        unit = self.folder / "pi0-server.service"
        programs = self.folder / "bin"  # systemd has rules of its own for spaces
        programs.symlink_to(PROGRAMS)
        unit.write_text(UNIT.replace("/usr/local/bin", str(programs)))
        command = [installed("systemd-analyze", "systemd"), "verify", unit]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_the_unit_fits_the_server(self):
        command = re.search(r"^ExecStart=\S+ (.*)$", UNIT, re.MULTILINE).group(1)
        example = re.search(r"echo 'PI0_OPTIONS=(.*)' >", UNIT).group(1)
        example = example.replace("/srv/pi05_droid", shlex.quote(str(POLICIES / NAME)))
        self.check_options(shlex.split(command.replace("$PI0_OPTIONS", example)))
        drain = number(r"--drain-seconds (\d+)", command)
        self.assertGreater(number(r"^TimeoutStopSec=(\d+)", UNIT), drain + END_TIMEOUT_S)

    def test_the_manifest_is_valid(self):
        if importlib.util.find_spec("kubernetes_validate") is None:
            raise unittest.SkipTest("kubernetes-validate is not installed; pip install kubernetes-validate")
        import kubernetes_validate
        import yaml

        kinds = []
        for document in yaml.safe_load_all(MANIFEST.read_text()):
            kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
            kinds.append(document["kind"])
        self.assertEqual(kinds, ["Deployment", "Service"])

    def test_the_manifest_fits_the_server(self):
        text = MANIFEST.read_text()
        options = re.findall(r"^ +- (--\S+)$", text, re.MULTILINE)
        self.check_options(option.replace("/checkpoint", str(POLICIES / NAME)) for option in options)
        drain = number(r"--drain-seconds=(\d+)", text)
        wait = number(r'sleep, "(\d+)"', text)
        self.assertGreater(number(r"terminationGracePeriodSeconds: (\d+)", text), wait + drain + END_TIMEOUT_S)


if __name__ == "__main__":
    unittest.main()
