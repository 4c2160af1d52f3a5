"""pi0 matmul against pi0-quant's models of hardware, and against NumPy."""

import unittest

import numpy as np

from support import GOLDENS, TemporaryFolderTest, run
from tensor_files import read_tensors, same, write_tensors

RESULTS = {"ipt": "tree", "systolic": "systolic"}  # accumulator, name in the goldens


def to_bfloat16(values):
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def to_float16(values):
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float32)


ROUNDINGS = {"bfloat16": to_bfloat16, "float16": to_float16}


def fused(x, w, total):
    """float32(x * w + total), rounded once: the float64 sum is rounded to odd before it is rounded to float32."""
    product, total = x.astype(np.float64) * w, total.astype(np.float64)  # the product is exact
    with np.errstate(invalid="ignore"):  # of sums that are infinite
        result = product + total
        part = result - product
        error = (product - (result - part)) + (total - part)
    is_even = result.view(np.int64) % 2 == 0
    towards = np.where(error > 0, np.inf, -np.inf)
    goes_to_odd = np.isfinite(result) & (error != 0) & is_even
    return np.where(goes_to_odd, np.nextafter(result, towards), result).astype(np.float32)


def product(x, w, rounding, every):
    total = np.zeros((len(x), len(w)), np.float32)
    for k in range(x.shape[1]):
        total = fused(x[:, k, None], w[None, :, k], total)
        if (k + 1) % every == 0 or k + 1 == x.shape[1]:
            total = rounding(total)
    return total


class MatmulTest(TemporaryFolderTest):
    def setUp(self):
        super().setUp()
        self.input, self.output = self.folder / "in.safetensors", self.folder / "out.safetensors"

    def matmul(self, accumulators, *options, expected=0):
        done = run("pi0", "matmul", "--accumulator", ",".join(accumulators), *options, self.input, self.output)
        self.assertEqual(done.returncode, expected, done.stderr)
        return done if expected else read_tensors(self.output)

    def test_every_golden_is_met_in_all_bits(self):
        goldens = {}
        for name in ("matmul_goldens", "matmul_goldens_11", "hard_products"):
            for tensor, values in read_tensors(GOLDENS / f"formats/{name}.safetensors").items():
                goldens[f"{tensor}_of_{name}"] = values
        write_tensors(self.input, goldens)
        checked = 0
        for kernels in ("fast", "reference"):
            found = self.matmul(RESULTS, "--kernels", kernels)
            for case in (tensor[2:] for tensor in goldens if tensor.startswith("x.")):
                for accumulator, golden in RESULTS.items():
                    expected = goldens[f"{golden}.{case}"]
                    self.assertTrue(same(found[f"y.{case}.{accumulator}"], expected), (kernels, case, accumulator))
                    checked += expected.size
        self.assertEqual(checked, 2 * 1690)

    def test_sums_are_those_of_numpy(self):
        rng = np.random.default_rng(1)

        def values(*shape):
            return (rng.standard_normal(shape) * np.exp2(rng.integers(-8, 8, shape))).astype(np.float32)

        operands = {"short": (values(3, 97), values(5, 97)), "long": (values(2, 4200), values(3, 4200))}
        operands["bfloat16"] = [to_bfloat16(of_short) for of_short in operands["short"]]
        tensors = {"b.short": values(5)}
        for case, (x, w) in operands.items():
            tensors |= {f"x.{case}": x, f"w.{case}": w}
        write_tensors(self.input, tensors)
        names = [f"{name}:{every}" for name in ROUNDINGS for every in (1, 3, 32, 4096)]
        for kernels in ("fast", "reference"):
            found = self.matmul(names, "--kernels", kernels)
            self.assertEqual(len(found), len(operands) * len(names))
            for case, (x, w) in operands.items():
                for name in names:
                    rounding, every = name.split(":")
                    expected = product(x, w, ROUNDINGS[rounding], int(every))
                    if f"b.{case}" in tensors:
                        expected = expected + tensors[f"b.{case}"]
                    self.assertTrue(same(found[f"y.{case}.{name}"], expected), (kernels, case, name))

    def test_float32_is_the_exact_product_but_for_the_order_of_sums(self):
        x = np.linspace(-1, 1, 60, dtype=np.float32).reshape(3, 20)
        write_tensors(self.input, {"x.a": x, "w.a": x})
        for kernels in ("fast", "reference"):
            np.testing.assert_allclose(self.matmul(["float32"], "--kernels", kernels)["y.a.float32"], x @ x.T, rtol=1e-5)

    def test_empty_matrices_have_products_without_terms(self):
        bias = np.arange(3, dtype=np.float32) + 1
        shapes = {"no_rows": (0, 4, 3), "no_inputs": (2, 0, 3), "no_outputs": (2, 4, 0)}
        tensors = {"b.no_inputs": bias}
        for case, (rows, k, out) in shapes.items():
            tensors |= {f"x.{case}": np.zeros((rows, k), np.float32), f"w.{case}": np.zeros((out, k), np.float32)}
        write_tensors(self.input, tensors)
        for kernels in ("fast", "reference"):
            found = self.matmul(["float32", "bfloat16:1", "ipt", "systolic"], "--kernels", kernels)
            for name, y in found.items():
                self.assertEqual(y.shape, shapes[name.split(".")[1]][::2], name)
                if "no_inputs" in name:
                    self.assertTrue(same(y, np.tile(bias, (2, 1))), name)

    def test_refusals_say_what_is_expected(self):
        x, vector = np.zeros((2, 3), np.float32), np.zeros(4, np.float32)

        def message(tensors, accumulators=("ipt",), expected=1):
            write_tensors(self.input, tensors)
            return self.matmul(accumulators, expected=expected).stderr

        self.assertIn("found no matrix 'x.CASE'", message({"y.a": x}))
        self.assertIn("found 'x.a' without 'w.a'", message({"x.a": x}))
        self.assertIn("found 'b.a' without 'x.a'", message({"b.a": vector}))
        self.assertIn("'w.a' is Float [2, 4], expected [Out, 3]", message({"x.a": x, "w.a": np.zeros((2, 4), np.float32)}))
        self.assertIn("'x.a' is Float [4], expected a floating matrix", message({"x.a": vector, "w.a": x}))
        self.assertIn("'w.a' is Int [2, 3], expected a floating", message({"x.a": x, "w.a": x.astype(np.int32)}))
        self.assertIn("'b.a' is Float [4], expected [2]", message({"x.a": x, "w.a": x, "b.a": vector}))
        self.assertIn("'bfloat16': needs the number", message({"x.a": x, "w.a": x}, ["bfloat16"], 2))
        self.assertIn("a name stands there twice", message({"x.a": x, "w.a": x}, ["ipt", "ipt"], 2))
        self.assertFalse(self.output.exists())
        self.output = self.input
        self.assertIn("is the input", message({"x.a": x, "w.a": x}))


if __name__ == "__main__":
    unittest.main()
