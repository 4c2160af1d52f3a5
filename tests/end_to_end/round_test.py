"""pi0 round against what the formats' reference implementations make of the same values."""

import unittest

import numpy as np

from support import GOLDENS, TemporaryFolderTest, run
from tensor_files import read_tensors, same, write_tensors

FILE = GOLDENS / "formats/format_goldens.safetensors"


class RoundTest(TemporaryFolderTest):
    def setUp(self):
        super().setUp()
        self.input, self.output = self.folder / "in.safetensors", self.folder / "out.safetensors"

    def round(self, formats, expected=0):
        done = run("pi0", "round", "--format", formats, self.input, self.output)
        self.assertEqual(done.returncode, expected, done.stderr)
        return done

    def test_every_golden_is_met_in_all_bits(self):
        goldens = read_tensors(FILE)
        write_tensors(self.input, {name: x for name, x in goldens.items() if name.startswith("x.")})
        expected = {name: y for name, y in goldens.items() if name.startswith("y.")}
        self.round(",".join(sorted({name.split(".", 2)[2] for name in expected})))
        found = read_tensors(self.output)
        wrong = [name for name, y in expected.items() if not same(found["x" + name[1:]], y)]
        self.assertEqual(wrong, [])
        self.assertEqual(len(expected), 405)

    def test_only_matrices_of_floats_are_rounded(self):
        matrix = np.linspace(-1, 1, 300 * 200, dtype=np.float32).reshape(300, 200)
        write_tensors(self.input, {"a": matrix, "b": matrix[0], "c": matrix.astype(np.int32)})
        done = self.round("float8_e4m3:tile128,float32")
        self.assertIn("left out 2 tensors that are not of two dimensions and floating", done.stderr)
        self.assertIn("1 tensor of", done.stdout)
        found = read_tensors(self.output)
        self.assertEqual(set(found), {"a.float8_e4m3:tile128", "a.float32"})
        self.assertTrue(same(found["a.float32"], matrix))
        tile = found["a.float8_e4m3:tile128"][128:256, 128:]
        self.assertEqual(tile[-1, -1], matrix[255, 199])  # the tile's largest magnitude is exact, up to rounding

    def test_refusals_say_what_is_expected(self):
        write_tensors(self.input, {"b": np.zeros(4, np.float32)})
        self.assertIn("int4 needs values that share a scale", self.round("mxfp4,int4", expected=2).stderr)
        self.assertIn("a name stands there twice", self.round("mxfp4,mxfp4", expected=2).stderr)
        self.assertIn("found no matrix", self.round("mxfp4", expected=1).stderr)
        self.assertFalse(self.output.exists())


if __name__ == "__main__":
    unittest.main()
