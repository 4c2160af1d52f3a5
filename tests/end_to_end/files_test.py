"""Files that programs write: links, devices, pipes and others' files stay what they are."""

import os
import threading
import unittest

from support import POLICIES, TemporaryFolderTest, run

NAME = "pi05_droid_jointpos_polaris"
MODEL = ["--config", NAME, "--checkpoint-dir", POLICIES / NAME, "--num-steps", 1]
REQUEST = ["--request", POLICIES / NAME / "request.msgpack"]
FORMATS = ["--input-fmt", "float8_e4m3", "--output-fmt", "float16"]


class FilesTest(TemporaryFolderTest):
    def infer(self, *arguments):
        return run("pi0", "infer", *MODEL, *REQUEST, *arguments)

    def names(self):
        return sorted(path.name for path in self.folder.iterdir())

    def test_answers_and_statistics_go_where_links_lead(self):
        for name in ("answer", "stats"):
            (self.folder / name).write_text("old")
            (self.folder / f"{name}_link").symlink_to(name)
        done = self.infer(*FORMATS, "--output", self.folder / "answer_link", "--stats-output", self.folder / "stats_link")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.names(), ["answer", "answer_link", "stats", "stats_link"])
        for name in ("answer", "stats"):
            self.assertEqual(os.readlink(self.folder / f"{name}_link"), name)
            self.assertNotEqual((self.folder / name).read_bytes(), b"old")

    def test_devices_and_pipes_stay(self):
        null, pipe = self.folder / "null", self.folder / "pipe"
        try:
            os.mknod(null, 0o020666, os.makedev(1, 3))
        except PermissionError:
            null.symlink_to("/dev/null")
        os.mkfifo(pipe)
        plain = self.folder / "answer"
        self.assertEqual(self.infer("--output", plain).returncode, 0)
        read = []
        reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
        reader.start()
        done = self.infer(*FORMATS, "--quantize-attention", "none", "--output", pipe, "--stats-output", null)
        self.assertEqual(done.returncode, 0, done.stderr)
        reader.join()
        self.assertEqual(len(read[0]), plain.stat().st_size)
        self.assertTrue(null.is_char_device())
        self.assertTrue(pipe.is_fifo())
        self.assertEqual(self.names(), ["answer", "null", "pipe"])

    def test_tensors_go_to_links_and_folders_are_refused_before_the_loading(self):
        goldens = POLICIES.parent / "tiny_pi05"
        link = self.folder / "link"
        link.symlink_to("actions")
        inputs = ["--checkpoint-dir", goldens, "--inputs", goldens / "inputs.safetensors"]
        done = run("pi0", "infer", *inputs, "--output", link)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(link.is_symlink())
        self.assertEqual(self.names(), ["actions", "link"])
        done = run("pi0", "infer", *inputs, "--output", self.folder)
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"{self.folder}: is a folder", done.stderr)

    def test_a_dry_run_touches_no_file_of_others(self):
        precious, part = self.folder / "precious", self.folder / "stats.json.part"
        precious.write_text("kept")
        part.symlink_to("precious")
        done = run("pi0-server", *MODEL, *FORMATS, "--stats-output", self.folder / "stats.json", "--dry-run")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(precious.read_text(), "kept")
        self.assertTrue(part.is_symlink())
        self.assertEqual(self.names(), ["precious", "stats.json.part"])


if __name__ == "__main__":
    unittest.main()
