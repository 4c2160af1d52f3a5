"""A long run of good, bad, aborted and slow clients against one quantizing server. Prints what was done and fails when a
good client's answer is wrong, late or missing, when statistics miscount, or when memory grows.

    python soak.py BUILD_FOLDER [--minutes 20] [--requests 10000]

A third of the minutes runs good clients alone, the rest all kinds. Then one client sends so many requests, for memory.
"""

import argparse
import json
import pathlib
import random
import socket
import struct
import sys
import threading
import time
import urllib.request

import numpy as np
from openpi_client import msgpack_numpy
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from support import POLICIES, golden_request, serve

NAME = "pi05_droid_jointpos_polaris"
GOOD = 5  # clients
LIMITS = ["--max-message-bytes", 4_000_000, "--write-timeout", 5, "--max-requests-ahead", 4]


def requests():
    """Different ones, each with its noise."""
    generator, first = np.random.default_rng(7), golden_request(POLICIES / NAME)
    shape = first["noise"].shape
    return [{**first, "noise": generator.normal(size=shape).astype(np.float32)} for _ in range(16)]


class Soak:
    def __init__(self, server):
        self.server = server
        self.requests = requests()
        self.packed = [msgpack_numpy.packb(request) for request in self.requests]
        client = self.client()
        self.expected = [client.infer(request)["actions"] for request in self.requests]
        self.answered = len(self.requests)
        self.lock = threading.Lock()
        self.counts = {}
        self.wrong = []
        self.stop = threading.Event()

    def client(self):
        return WebsocketClientPolicy("127.0.0.1", self.server.port)

    def raw(self):
        stream = connect(f"ws://127.0.0.1:{self.server.port}", compression=None, max_size=None)
        stream.recv()
        return stream

    def count(self, what, number=1):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + number

    def check(self, index, actions):
        if not np.array_equal(actions, self.expected[index]):
            self.wrong.append(f"request {index}: another answer than a single client's")
        with self.lock:
            self.answered += 1

    # One after the other, each a step of a kind of client.

    def good(self, state):
        index = random.randrange(len(self.requests))
        client = state.setdefault("client", None) or self.client()
        state["client"] = client
        begin = time.monotonic()
        self.check(index, client.infer(self.requests[index])["actions"])
        state.setdefault("seconds", []).append(time.monotonic() - begin)
        self.count("good requests")

    def bad(self, state):
        message = random.choice([b"\xc1", b"", self.packed[0][:1000], msgpack_numpy.packb({"prompt": "no pictures"}),
                                 msgpack_numpy.packb({**self.requests[0], "observation/joint_position": np.full(7, np.nan)}),
                                 msgpack_numpy.packb([1, 2]), bytes(5_000_000), b"\xdf\xff\xff\xff\xff", "text"])  # fmt: skip
        with self.raw() as stream:
            try:
                stream.send(message)
                answer = stream.recv(timeout=60)
                if not isinstance(answer, str):
                    self.wrong.append("a bad request was answered")
            except ConnectionClosed as closed:  # too large
                if closed.rcvd is None or closed.rcvd.code != 1009:
                    self.wrong.append(f"a bad request was answered with {closed!r}")
        self.count("bad requests refused")

    def aborted(self, state):
        """Half a message, then a reset."""
        stream = self.raw()
        frame = b"\x82\xff" + struct.pack(">Q", len(self.packed[0])) + bytes(4) + self.packed[0][: random.randrange(100_000)]
        stream.socket.sendall(frame)
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.close_socket()
        self.count("requests aborted")

    def slow(self, state):
        """Four requests at once, a byte at a time now and then; answers are read a second later."""
        with self.raw() as stream:
            indices = [random.randrange(len(self.requests)) for _ in range(4)]
            for index in indices:
                stream.send(self.packed[index])
            time.sleep(1)
            for index in indices:
                self.check(index, msgpack_numpy.unpackb(stream.recv(timeout=120))["actions"])
        self.count("slow requests", len(indices))

    def run(self, kinds, seconds):
        states = [{} for _ in kinds]

        def work(kind, state):
            while not self.stop.is_set():
                try:
                    kind(state)
                except Exception as error:
                    self.wrong.append(f"{kind.__name__}: {error!r}")
                    state.pop("client", None)

        self.stop.clear()
        threads = [threading.Thread(target=work, args=pair) for pair in zip(kinds, states, strict=True)]
        for thread in threads:
            thread.start()
        self.stop.wait(seconds)
        self.stop.set()
        for thread in threads:
            thread.join()
        return np.concatenate([state["seconds"] for state in states if "seconds" in state])

    def statistics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.server.port}/stats") as answer:
            return json.load(answer)["meta"]["requests"]

    def resident(self):
        pages = pathlib.Path(f"/proc/{self.server.process.pid}/statm").read_text().split()[1]
        return int(pages) * 4096 / 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--requests", type=int, default=10_000)
    options = parser.parse_args()
    arguments = ["--config", NAME, "--checkpoint-dir", POLICIES / NAME, "--num-steps", 1, "--input-fmt", "float8_e4m3",
                 "--output-fmt", "float16", *LIMITS]  # fmt: skip
    failures = []
    with serve(*arguments) as server:
        soak = Soak(server)
        alone = soak.run([soak.good] * GOOD, options.minutes * 20)
        mixed = soak.run([soak.good] * GOOD + [soak.bad, soak.aborted, soak.slow], options.minutes * 40)
        for what, number in soak.counts.items():
            print(f"{what:24}{number:8}")
        p99 = np.percentile(alone, 99), np.percentile(mixed, 99)
        print(f"p99 of good clients {p99[0]:.3f} s alone, {p99[1]:.3f} s among the others: {p99[1] / p99[0]:.2f} times")
        counted = soak.statistics()
        print(f"statistics count {counted} requests, {soak.answered} were answered")
        failures += soak.wrong
        if counted != soak.answered:
            failures.append("the statistics miscount")
        if options.minutes >= 5 and p99[1] > 3 * p99[0]:
            failures.append("good clients wait more than three times as long among the others")

        first = min(1000, options.requests // 10)
        client = soak.client()
        for number in range(1, options.requests + 1):
            index = number % len(soak.requests)
            soak.check(index, client.infer(soak.requests[index])["actions"])
            if number == first:
                before = soak.resident()
        print(f"resident {before:.1f} MiB after {first} requests, {soak.resident():.1f} after {options.requests}")
        if soak.resident() > 1.02 * before:
            failures.append("memory grows")
        if server.stop() != 0:
            failures.append("the server did not end in order")
    for failure in failures[:20]:
        print("FAILED:", failure)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
