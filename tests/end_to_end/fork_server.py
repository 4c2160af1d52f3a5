"""Starts copies of a program that has come to its main(); fork_server.cpp says why."""

import atexit
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading


def preloadable(library):
    """A path of the library for LD_PRELOAD, which takes spaces and colons for ends of paths."""
    if not re.search("[ :]", str(library)):
        return library
    folder = pathlib.Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    link = folder / library.name
    link.symlink_to(library)
    return link


class Started:
    """A process, as subprocess.Popen is."""

    def __init__(self, command, pid):
        self.args, self.pid, self.returncode = command, pid, None
        self._end, self._lock = os.pidfd_open(pid), threading.Lock()

    def wait(self, timeout=None):
        if self.returncode is None:
            poll = select.poll()
            poll.register(self._end, select.POLLIN)
            if not poll.poll(None if timeout is None else 1000 * timeout):
                raise subprocess.TimeoutExpired(self.args, timeout)
        with self._lock:
            if self.returncode is None:
                self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
                os.close(self._end)
        return self.returncode

    def poll(self):
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


class ForkServer:
    def __init__(self, program, library):
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [program], stdin=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                env={**os.environ, "LD_PRELOAD": str(preloadable(library))},
            )  # fmt: skip
        atexit.register(self._end)

    def _end(self):
        self._socket.close()
        self._process.wait()

    def start(self, command, output, errors):
        """`command` begins with the program. What it reads is empty; without files, what it writes is lost."""
        words = b"".join(os.fsencode(word) + b"\0" for word in command)
        with self._lock, open(os.devnull, "r+") as nothing:
            streams = [stream.fileno() for stream in (nothing, output or nothing, errors or nothing)]
            socket.send_fds(self._socket, [words], streams)
            answer = self._socket.recv(4)
        if not answer:
            raise RuntimeError(f"{command[0]} does not start: {self._process.wait()}")
        return Started(command, int.from_bytes(answer, sys.byteorder, signed=True))
