"""What the tarball holds (`--target package`), in a root that has nothing else but glibc."""

import contextlib
import pathlib
import re
import shutil
import subprocess
import unittest

from support import GOLDENS, PATIENCE_S, PROGRAMS, TemporaryFolderTest, installed, wait_until

GLIBC = ["ld-linux-x86-64.so.2", "libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0", "librt.so.1"]
SYSTEM = pathlib.Path("/lib/x86_64-linux-gnu")
PICTURE = GOLDENS.parent.parent / "tools/data/table.png"


class TarballTest(TemporaryFolderTest):
    def setUp(self):
        super().setUp()
        if not all((SYSTEM / name).exists() for name in GLIBC):
            raise unittest.SkipTest(f"no glibc in {SYSTEM}; made for Debian and Ubuntu on x86-64")
        self.root = self.folder / "root"
        libraries = self.root / SYSTEM.relative_to("/")
        libraries.mkdir(parents=True)
        for name in GLIBC:
            shutil.copy(SYSTEM / name, libraries / name)
        (self.root / "lib64").symlink_to(SYSTEM)
        (self.root / "tmp").mkdir()
        bubblewrap = installed("bwrap", "bubblewrap")
        self.inside = [bubblewrap, "--bind", self.root, "/", "--proc", "/proc", "--dev", "/dev", "--die-with-parent"]
        for component in ("programs", "bundle"):
            command = ["cmake", "--install", PROGRAMS, "--component", component, "--prefix", self.root / "pi0"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
            self.assertEqual(done.returncode, 0, done.stderr)

    def run_inside(self, program, *arguments):
        command = [*self.inside, f"/pi0/bin/{program}", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env={})
        if "setting up uid map" in done.stderr or "Creating new namespace failed" in done.stderr:
            raise unittest.SkipTest(f"bwrap may not make a root here: {done.stderr.strip()}")
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    @contextlib.contextmanager
    def server(self, *arguments):
        """Its port. It ends in good order."""
        log = self.root / "tmp/server.log"
        command = [*self.inside, "/pi0/bin/pi0-server", "--host", "127.0.0.1", "--port", "0", *arguments]
        process = subprocess.Popen([*command, "--log-file", "/tmp/server.log"], stderr=subprocess.DEVNULL, env={})
        try:
            found = wait_until(
                lambda: re.search(r"serving on \S+:(\d+)", log.read_text() if log.exists() else "") or process.poll(),
                "the server",
            )
            yield found.group(1)
        finally:
            process.kill()  # bubblewrap's process, and with it the server
            process.wait()

    def test_everything_runs_from_a_checkpoint_to_an_answer(self):
        self.assertIn("make-checkpoint", self.run_inside("pi0", "--help"))
        self.run_inside("pi0", "make-checkpoint", "--config", "pi05_droid", "--output", "/tmp/checkpoint")
        shutil.copy(PICTURE, self.root / "tmp/table.png")
        with self.server("--config", "pi05_droid", "--checkpoint-dir", "/tmp/checkpoint") as port:
            answer = self.run_inside("pi0", "client", "--port", port, "--image", "/tmp/table.png", "--prompt", "wave")
        self.assertIn("[15, 8]", answer)
        for name in ("LICENSE", "README.md", "licenses/libtorch", "share/pi0/configs/policies/pi05_droid.json",
                     "share/pi0/systemd/pi0-server.service"):  # fmt: skip
            self.assertTrue((self.root / "pi0" / name).exists(), name)
        self.assertFalse((self.root / "pi0/include").exists())


class CompileTest(unittest.TestCase):
    def test_no_file_is_compiled_for_this_machine_only(self):
        self.assertNotRegex((PROGRAMS / "build.ninja").read_text(), "-m(arch|tune|cpu)=native")


if __name__ == "__main__":
    unittest.main()
