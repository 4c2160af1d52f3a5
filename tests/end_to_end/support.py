"""Runs the built programs on the golden checkpoints."""

import contextlib
import functools
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

import numpy as np
from openpi_client import msgpack_numpy
from openpi_client.websocket_client_policy import WebsocketClientPolicy

from fork_server import ForkServer

PROGRAMS = pathlib.Path(sys.argv.pop(1))  # the build folder
GOLDENS = pathlib.Path(__file__).resolve().parent.parent / "goldens"
POLICIES = GOLDENS / "policies"
MORE_POLICIES = GOLDENS / "policies_more"
PATIENCE_S = 600  # only what hangs takes so long, on a busy machine too
SIMULATOR = shlex.join([sys.executable, "-W", "ignore", str(GOLDENS.parent / "end_to_end/stand_in_simulator.py")])
FORK_SERVER = PROGRAMS / "tests" / "libfork_server.so"  # absent with sanitizers, which want to be loaded first


def inherited():
    """What a process has from the one that starts it, as far as tests change it."""
    return dict(os.environ), os.getcwd(), os.sched_getaffinity(0), pathlib.Path("/proc/self/cgroup").read_text()


INHERITED = inherited()


@functools.cache
def fork_server(program):
    return ForkServer(program, FORK_SERVER)


def start(command, output=None, errors=None, environment=None):
    """A process that reads nothing and writes to the files; where nothing differs, from a fork server."""
    if FORK_SERVER.exists() and environment is None and inherited() == INHERITED:
        return fork_server(command[0]).start(command, output, errors)
    nothing = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=nothing, stdout=output or nothing, stderr=errors or nothing, env=environment)


def run(program, *arguments, environment=None):
    """The finished process."""
    command = [PROGRAMS / program, *map(str, arguments)]
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = start(command, output, errors, environment)
        try:
            process.wait(PATIENCE_S)
        finally:
            process.kill()
            process.wait()
        for file in (output, errors):
            file.seek(0)
        return subprocess.CompletedProcess(command, process.returncode, output.read(), errors.read())


def installed(program, packages):
    """The path of a program that not every machine has; without it the test skips."""
    path = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin")
    if path is None:
        raise unittest.SkipTest(f"{program} is not installed; apt-get install {packages}")
    return path


def certificate(folder):
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    files = folder / "cert.pem", folder / "key.pem"
    command = [installed("openssl", "openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
               "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
               "-out", files[0], "-keyout", files[1]]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return files


@contextlib.contextmanager
def small_disk(folder, size):
    """A file system of so many bytes; its options, "ro" or another size, change by calling what this gives."""

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    mounted = mount(f"size={size}")
    if mounted.returncode != 0:
        raise unittest.SkipTest(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield lambda options: mount(f"remount,{options}")
    finally:
        subprocess.run(["umount", folder], check=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(done, what, deadline_s=PATIENCE_S):
    """What `done` returns once that is true."""
    begin = time.monotonic()
    while not (found := done()):
        waited = time.monotonic() - begin
        if waited > deadline_s:
            raise TimeoutError(f"not within {deadline_s} s: {what}")
        time.sleep(min(0.01 + waited / 10, 0.1))
    return found


def read(path):
    return msgpack_numpy.unpackb(pathlib.Path(path).read_bytes())


def read_tensor(path, name):
    """One float32 tensor of a safetensors file."""
    data = pathlib.Path(path).read_bytes()
    size = int.from_bytes(data[:8], "little")
    entry = json.loads(data[8 : 8 + size])[name]
    assert entry["dtype"] == "F32"
    begin, end = (8 + size + offset for offset in entry["data_offsets"])
    return np.frombuffer(data[begin:end], np.float32).reshape(entry["shape"])


def golden_request(folder):
    """A policy's recorded request with its noise."""
    return {**read(folder / "request.msgpack"), "noise": read_tensor(folder / "noise.safetensors", "noise")}


def recorded_policies():
    """Every folder with a request and openpi's answer to it."""
    folders = sorted([*POLICIES.iterdir(), *MORE_POLICIES.iterdir()])
    return [folder for folder in folders if (folder / "response.msgpack").exists()]


def policy_case(folder):
    return json.loads((folder / "case.json").read_text())


def make_checkpoint(folder, place):
    """A checkpoint at `place` for a recorded policy, whose weights may lie with another one's."""
    weights = GOLDENS / policy_case(folder).get("checkpoint", folder.relative_to(GOLDENS))
    place.mkdir(parents=True)
    for name in ("architecture.json", "assets"):
        (place / name).symlink_to(folder / name)
    for name in ("model.safetensors", "paligemma_tokenizer.model"):
        (place / name).symlink_to(weights / name)
    return place


def one_instruction_set():
    """Options for runs whose bits are compared: the one measured fastest may be another at every start.

    Only --help lists the sets that this CPU and this build have: option and help are made from one list.
    """
    sets = re.search(r"--instructions (\S+)", run("pi0", "infer", "--help").stdout).group(1)
    return ["--instructions", sets.split("|")[-1]]  # they are named in the order of their widths


def without_times(entries):
    """A sweep's summary as it is on every run."""
    return [{key: value for key, value in entry.items() if key != "inference_time_s"} for entry in entries]


def relative_rms(found, expected):
    return np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2))


class Server:
    def __init__(self, process, port, log):
        self.process, self.port, self.log = process, port, log

    def log_text(self):
        return self.log.read_text()

    def put_in_hand(self, client, request):
        """Sends the client's request and waits until the model has it: then the request of a later client waits."""
        client._ws.send(client._packer.pack(request))
        self.later = WebsocketClientPolicy("127.0.0.1", self.port)
        self.later._ws.send(self.later._packer.pack(request))
        self.wait_for_request_in_hand()

    def wait_for_request_in_hand(self):
        """Until one request is in hand and another waits."""

        def is_so():
            metrics = self.metrics()
            return "pi0_model_busy 1\n" in metrics and "pi0_queue_length 1\n" in metrics

        wait_until(is_so, "one request in hand, one waiting")

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=PATIENCE_S) as answer:
            return answer.read().decode()

    def stop(self, signal_number=15):
        self.process.send_signal(signal_number)
        return self.process.wait(timeout=PATIENCE_S)


@contextlib.contextmanager
def serve(*arguments, ignore=None):
    """A server; it starts with the signal `ignore` ignored."""
    with tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder) / "server.log"
        command = [PROGRAMS / "pi0-server", "--host", "127.0.0.1", "--port", "0", "--log-file", log, *map(str, arguments)]
        if ignore is None:
            process = start(command)
        else:
            ignoring = functools.partial(signal.signal, ignore, signal.SIG_IGN)
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL, preexec_fn=ignoring)
        try:

            def serving():
                text = log.read_text() if log.exists() else ""
                if process.poll() is not None:
                    raise RuntimeError("the server does not serve: " + text)
                return re.search(r"serving on \S+:(\d+)", text)

            found = wait_until(serving, "the server")
            yield Server(process, int(found.group(1)), log)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def resolution(row):
    """Errors of a layer closer together than this are single values that underflowed; they come and go with the CPU."""
    return 2**-24 * row["rmse"] / row["rel_rmse"] if row["rel_rmse"] else 0


def apart(found, expected, least):
    """Relative difference; up to `least` it counts as none."""
    if found == expected or abs(found - expected) <= least:
        return 0
    return abs(found - expected) / expected if expected else np.inf


class StatisticsTest:
    """What two runs of one quantized request may differ by on two CPUs; tests/quant/quant_hook_test.cpp says why."""

    def compare_layers(self, found, expected):
        self.assertEqual([row["layer"] for row in found["layers"]], [row["layer"] for row in expected["layers"]])
        far = {}
        for mine, theirs in zip(found["layers"], expected["layers"], strict=True):
            for key in ("component", "in_features", "out_features", "n_calls"):
                self.assertEqual(mine[key], theirs[key])
            if theirs["rmse"] is None:
                self.assertIsNone(mine["rmse"], mine["layer"])
                continue
            difference = apart(mine["rmse"], theirs["rmse"], resolution(mine))
            self.assertLessEqual(difference, 0.25, mine["layer"])
            if difference > 0.04:
                far[mine["layer"]] = difference
        self.assertLessEqual(len(far), len(found["layers"]) * 0.1, far)

    def compare_components(self, found, expected):
        self.assertEqual(len(found["components"]), len(expected["components"]))
        for mine, theirs in zip(found["components"], expected["components"], strict=True):
            self.assertEqual(mine["component"], theirs["component"])
            rows = [row for row in found["layers"] if row["component"] == mine["component"] and row["rmse"] is not None]
            least = np.mean([resolution(row) for row in rows])
            self.assertLessEqual(apart(mine["mean_rmse"], theirs["mean_rmse"], least), 0.02, mine["component"])

    def compare_statistics(self, found, expected):
        self.assertEqual(found["meta"]["requests"], 1)
        self.compare_layers(found, expected)
        self.compare_components(found, expected)


class TemporaryFolderTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
