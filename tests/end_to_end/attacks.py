"""What one client, or one machine, can do to the others: each attack with eight good clients beside it. Prints a table.

    python attacks.py BUILD_FOLDER [--seconds 15] [ATTACK...]

A good client connects anew for every few requests, as one that comes while the attack lasts. The defaults of the server
apply; two of the attacks hold gigabytes on the attacker's side as well.
"""

import argparse
import contextlib
import pathlib
import re
import socket
import threading
import time
import urllib.request

import numpy as np
from openpi_client import msgpack_numpy
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from websockets.sync.client import connect

from support import POLICIES, golden_request, serve

NAME = "pi05_droid_jointpos_polaris"
MODEL = ["--config", NAME, "--checkpoint-dir", POLICIES / NAME, "--num-steps", 1]
REQUEST = golden_request(POLICIES / NAME)
MIB = 1 << 20


class Attack:
    """A context: `start` is called once, `stopped` ends what it started."""

    options = ()

    def __init__(self, port):
        self.port, self.stopped, self.threads = port, threading.Event(), []
        self.begun = threading.Semaphore(0)  # released by what must have happened before others are measured

    def each(self, count, work):
        """Runs `work` again and again in so many threads, whatever becomes of it."""

        def run():
            while not self.stopped.is_set():
                with contextlib.suppress(Exception):
                    work()
                self.stopped.wait(0.05)

        self.threads = [threading.Thread(target=run, daemon=True) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def wait_until_begun(self):
        time.sleep(3)

    def websocket(self):
        stream = connect(f"ws://127.0.0.1:{self.port}", compression=None, max_size=None, close_timeout=1)
        stream.recv()
        return stream

    def ask(self, message):
        with self.websocket() as stream:
            stream.send(message)
            stream.recv(timeout=60)


class Nothing(Attack):
    def start(self):
        pass


class Unfinished(Attack):
    """20 connections send 256 MiB each, more than all may together, do not end their messages, and answer pings."""

    def start(self):
        self.each(20, self.hold)

    def hold(self):
        with self.websocket() as stream:

            def fragments():
                for _ in range(255):
                    yield bytes(MIB)
                yield bytes(MIB - 256)
                yield b""  # each is sent when the next is there
                self.begun.release()
                self.stopped.wait()

            stream.send(fragments())

    def wait_until_begun(self):
        for _ in range(16):  # as many as there is room for
            self.begun.acquire(timeout=10)


class Nils(Attack):
    """40 clients whose valid request has a field of a million nils: 1.35 MB."""

    def start(self):
        message = msgpack_numpy.packb({**REQUEST, "ignored": [None] * 1_000_000})
        self.each(40, lambda: self.ask(message))


class Maps(Attack):
    """Six clients whose request has a field of 1,000 maps of 1,024 keys: 17.7 MB."""

    field = "ignored"

    def start(self):
        small = msgpack_numpy.packb({f"{i:014d}": None for i in range(1024)})
        key = msgpack_numpy.packb(self.field)
        good = msgpack_numpy.packb({name: value for name, value in REQUEST.items() if name != self.field})
        message = bytes([good[0] + 1]) + good[1:] + key + b"\xdc\x03\xe8" + small * 1000
        self.each(6, lambda: self.ask(message))


class MapsInAField(Maps):
    """The same where the policy reads: it is refused."""

    field = "observation/joint_position"


class Prompts(Attack):
    """Two clients with prompts of 40 MB, as bytes."""

    def start(self):
        message = msgpack_numpy.packb({**REQUEST, "prompt": b"pick " * 8_000_000})
        self.each(2, lambda: self.ask(message))


class Silent(Attack):
    """800 sockets that send nothing, opened again when they are closed."""

    def start(self):
        self.each(800, self.wait)

    def wait(self):
        with socket.create_connection(("127.0.0.1", self.port)) as stream:
            stream.settimeout(1)
            while not self.stopped.is_set():
                with contextlib.suppress(TimeoutError):
                    if not stream.recv(1):
                        return


class Measurement:
    def __init__(self, server, seconds):
        self.server, self.end = server, time.monotonic() + seconds
        self.lock, self.seconds, self.refused, self.health = threading.Lock(), [], 0, []
        self.expected = None

    def good_client(self):
        while time.monotonic() < self.end:
            try:
                client = WebsocketClientPolicy("127.0.0.1", self.server.port)
                for _ in range(5):
                    start = time.monotonic()
                    answer = client.infer(REQUEST)["actions"]
                    with self.lock:
                        self.seconds.append(time.monotonic() - start)
                        self.expected = answer if self.expected is None else self.expected
                    np.testing.assert_array_equal(answer, self.expected)
                client._ws.close()
            except AssertionError:
                raise
            except Exception:
                with self.lock:
                    self.refused += 1
                time.sleep(0.1)

    def ask_health(self):
        while time.monotonic() < self.end:
            start = time.monotonic()
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.server.port}/healthz", timeout=60).read()
            self.health.append(time.monotonic() - start)
            time.sleep(0.02)

    def run(self):
        threads = [threading.Thread(target=self.good_client, daemon=True) for _ in range(8)]
        threads.append(threading.Thread(target=self.ask_health, daemon=True))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(self.end - time.monotonic() + 90)

    def p99(self):
        return sorted(self.seconds)[int(len(self.seconds) * 0.99)] if self.seconds else float("nan")


def resident(server, key):
    status = pathlib.Path(f"/proc/{server.process.pid}/status")
    return int(re.search(rf"{key}:\s+(\d+)", status.read_text()).group(1)) / 1024 if server.process.poll() is None else float("nan")


def measure(attack_class, seconds):
    with serve(*MODEL, *attack_class.options) as server:
        attack = attack_class(server.port)
        attack.start()
        attack.wait_until_begun()
        measurement = Measurement(server, seconds)
        measurement.run()
        peak = resident(server, "VmHWM")
        attack.stopped.set()
        time.sleep(3)
        line = (len(measurement.seconds), measurement.refused, 1000 * measurement.p99(), 1000 * max(measurement.health or [float("nan")]))
        print(f"{attack_class.__name__:14}{line[0]:10}{line[1]:9}{line[2]:11.0f}{line[3]:14.0f}{peak:10.0f}{resident(server, 'VmRSS'):10.0f}",
              "" if server.process.poll() is None else "  the server is gone", flush=True)  # fmt: skip


def main():
    attacks = {each.__name__: each for each in (Nothing, Unfinished, Nils, Maps, MapsInAField, Prompts, Silent)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("attacks", nargs="*", choices=[[], *attacks])
    arguments = parser.parse_args()
    print(f"{'attack':14}{'answered':>10}{'refused':>9}{'p99 ms':>11}{'healthz ms':>14}{'peak MiB':>10}{'then MiB':>10}")
    for name in arguments.attacks or attacks:
        measure(attacks[name], arguments.seconds)


if __name__ == "__main__":
    main()
