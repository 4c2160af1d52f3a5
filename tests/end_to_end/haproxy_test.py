"""tools/haproxy/haproxy.cfg as it is, before two servers: openpi's clients see one."""

import contextlib
import os
import pathlib
import signal
import subprocess
import threading
import time
import unittest
import urllib.error
import urllib.request

import numpy as np
from openpi_client import msgpack_numpy
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from websockets.exceptions import ConnectionClosed, InvalidStatus

from support import PATIENCE_S, POLICIES, TemporaryFolderTest, free_port, golden_request, installed, one_instruction_set, serve, wait_until

CONFIGURATION = pathlib.Path(__file__).resolve().parent.parent.parent / "tools/haproxy/haproxy.cfg"
NAME = "pi05_droid_jointpos_polaris"
REQUEST = golden_request(POLICIES / NAME)


def connect(port):
    return WebsocketClientPolicy("127.0.0.1", port)


class Robot(threading.Thread):
    """Asks again and again with openpi's client; connects and asks again when the connection is closed."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.client = port, connect(port)
        self.answers, self.lost, self.moves, self.is_done = 0, 0, 0, False
        self.start()

    def run(self):
        message = self.client._packer.pack(REQUEST)
        while not self.is_done:
            was_sent = False
            try:
                self.client._ws.send(message)
                was_sent = True
                assert msgpack_numpy.unpackb(self.client._ws.recv())["actions"].shape == (15, 8)
                self.answers += 1
                time.sleep(0.05)  # it moves
            except ConnectionClosed:
                self.lost += was_sent
                self.moves += 1
                self.client = connect(self.port)

    def wait_for_answers(self, count):
        wanted = self.answers + count
        wait_until(lambda: self.answers >= wanted or not self.is_alive(), "the robot's answers")
        assert self.is_alive()

    def end(self):
        self.is_done = True
        self.join()


def opened(server):
    """Clients that it has had."""
    return server.log_text().count(" opened")


class HaproxyTest(TemporaryFolderTest):
    def setUp(self):
        super().setUp()
        self.haproxy = installed("haproxy", "haproxy")
        self.log = self.folder / "haproxy.log"
        self.cleanup = contextlib.ExitStack()
        self.addCleanup(self.cleanup.close)

    def start(self, *options):
        """Two servers and the port that HAProxy has for both."""
        arguments = ["--config", NAME, "--checkpoint-dir", POLICIES / NAME, *one_instruction_set(), "--threads", 1]
        servers = [self.cleanup.enter_context(serve(*arguments, *options)) for _ in range(2)]
        port = free_port()
        environment = {**os.environ, "PI0_ADDRESS": f"127.0.0.1:{port}"}
        for number, server in enumerate(servers, 1):
            environment[f"PI0_SERVER_{number}"] = f"127.0.0.1:{server.port}"
        command = [self.haproxy, "-f", CONFIGURATION]
        check = subprocess.run([*command, "-c"], env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
        self.assertEqual(check.returncode, 0, check.stderr)
        self.assertNotIn("WARNING", check.stderr)
        with self.log.open("w") as log:
            process = subprocess.Popen([*command, "-db"], env=environment, stdout=log, stderr=log)
        self.cleanup.callback(process.wait)
        self.cleanup.callback(process.kill)
        wait_until(lambda: self.health(port) == 200, "HAProxy answers")
        return servers, port

    def health(self, port):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=PATIENCE_S) as reply:
                return reply.status
        except urllib.error.HTTPError as error:
            return error.code
        except urllib.error.URLError:
            return None

    def test_clients_are_spread_and_get_the_servers_answers(self):
        servers, port = self.start()
        expected = [connect(server.port).infer(REQUEST)["actions"] for server in servers]
        clients = [connect(port) for _ in range(6)]
        self.assertEqual([opened(server) for server in servers], [1 + 3, 1 + 3])
        for client in clients:
            actions = client.infer(REQUEST)["actions"]
            np.testing.assert_array_equal(actions, expected[0])
            np.testing.assert_array_equal(actions, expected[1])

    def test_another_server_takes_over_and_without_any_clients_are_told(self):
        (first, second), port = self.start("--num-steps", 1)
        clients = [connect(port) for _ in range(2)]
        first.stop(signal.SIGKILL)
        lost = 0
        for client in clients:
            try:
                client.infer(REQUEST)
            except ConnectionClosed:
                lost += 1
        self.assertEqual(lost, 1)
        before = opened(second)
        for _ in range(4):
            self.assertEqual(connect(port).infer(REQUEST)["actions"].shape, (15, 8))
        self.assertEqual(opened(second), before + 4)
        wait_until(lambda: "pi0_1 is DOWN" in self.log.read_text(), "the checks notice")
        second.stop(signal.SIGKILL)
        with self.assertRaisesRegex(InvalidStatus, "503"):
            connect(port)
        self.assertEqual(self.health(port), 503)

    def robots(self, port, servers):
        """Four robots, two at each server."""
        robots = [Robot(port) for _ in range(4)]
        for robot in robots:
            self.cleanup.callback(robot.end)
        self.assertEqual([opened(server) for server in servers], [2, 2])
        for robot in robots:
            robot.wait_for_answers(2)
        return robots

    def test_a_server_that_drains_hands_its_robots_over_and_loses_no_request(self):
        (first, second), port = self.start("--num-steps", 1, "--drain-seconds", 4)
        robots = self.robots(port, (first, second))
        first.process.terminate()
        for _ in range(4):  # before the checks notice, too
            self.assertEqual(connect(port).infer(REQUEST)["actions"].shape, (15, 8))
        self.assertEqual(first.process.wait(timeout=PATIENCE_S), 0)
        for robot in robots:
            robot.wait_for_answers(2)
        self.assertEqual([robot.lost for robot in robots], [0, 0, 0, 0])
        self.assertEqual(sorted(robot.moves for robot in robots), [0, 0, 1, 1])
        self.assertEqual(opened(second), 2 + 4 + 2)

    def test_a_server_that_dies_costs_what_it_had_in_hand(self):
        (first, second), port = self.start("--num-steps", 1)
        robots = self.robots(port, (first, second))
        first.stop(signal.SIGKILL)
        for robot in robots:
            robot.wait_for_answers(2)
        self.assertEqual(sorted(robot.moves for robot in robots), [0, 0, 1, 1])
        for robot in robots:
            self.assertLessEqual(robot.lost, robot.moves)

    def test_a_server_that_is_stopped_answers_the_request_in_hand(self):
        servers, port = self.start("--num-steps", 1000)
        client = connect(port)
        (busy,) = [server for server in servers if opened(server)]
        busy.put_in_hand(client, REQUEST)
        busy.process.terminate()
        wait_until(lambda: " is DOWN" in self.log.read_text(), "the checks notice")
        self.assertEqual(msgpack_numpy.unpackb(client._ws.recv())["actions"].shape, (15, 8))
        self.assertEqual(busy.process.wait(timeout=PATIENCE_S), 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
