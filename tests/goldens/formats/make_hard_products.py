"""Products that are hard for accumulators, by pi0-quant's functional models of hardware.

    PI0_QUANT_HEAD=<checkout at 6b3e846> python make_hard_products.py OUT.safetensors [--seed N]

needs torch, numpy, numba, safetensors and gcc. Names are those of matmul_goldens.safetensors: `x.<case>` [rows, K],
`w.<case>` [Out, K], `b.<case>` [Out] and the results `tree.<case>` (ipt) and `systolic.<case>`, all float32.
"""

import argparse
import os
import sys

import numpy as np
import torch
from safetensors.torch import save_file

sys.path.insert(0, os.environ["PI0_QUANT_HEAD"])
from func_models_sa.systolic_c.systolic_array_rtl_linear import SARTLLinearFunction  # noqa: E402
from funct_models_ipt.ipt_c.ipt_rtl_linear_c import float_to_e4m3_bytes_c  # noqa: E402
from funct_models_ipt.python_ipt_base.ipt_rtl_linear import IPTLinearRTLFunction  # noqa: E402

ROWS, OUT = 5, 7


def neighbours(value):
    value = np.float32(value)
    return [np.nextafter(value, np.float32(-np.inf)), value, np.nextafter(value, np.float32(np.inf))]


def cases(rng):
    def signs(*shape):
        return rng.choice(np.float32([-1, 1]), shape)

    def powers(low, high, *shape):
        return np.exp2(rng.integers(low, high, shape)).astype(np.float32)

    def binades(*shape):  # every code, the one of 480 and zeros of both signs among them
        return (1 + rng.integers(0, 8, shape) / 8) * powers(-7, 9, *shape) * signs(*shape)

    def operands(make, k, bias=True):
        return make(ROWS, k), make(OUT, k), make(OUT) if bias else None

    def small(*shape):
        return (1 + rng.integers(0, 8, shape) / 8) * powers(-6, -1, *shape) * signs(*shape)

    def large(*shape):
        return (1 + rng.integers(0, 8, shape) / 8) * powers(1, 6, *shape) * signs(*shape)

    for k in (1, 2, 31, 33, 63, 100, 257):
        yield f"binades_{k}", operands(binades, k, bias=k != 63)

    # Where encoding changes its rule, and ties of three bits.
    edges = sum((neighbours(v) for v in (2**-6, 2**-7, 448, 464, 480, 496, 512, 1.0625, 1.1875, 1.9375)), [])
    edges = np.float32(edges + [0.0, -0.0, np.inf, 3e38, 1e-40])
    yield "edges_70", operands(lambda *shape: rng.choice(edges, shape) * signs(*shape), 70)

    # Sums half way between two bfloat16 values: powers of two and small odd multiples of them.
    yield "ties_90", operands(lambda *shape: rng.choice([1, 3, 5], shape) * powers(-3, 5, *shape) * signs(*shape), 90)

    # Small products between large ones that cancel: of the small ones, and of the sum before them, what lies below the
    # anchor's 29 bits is cut off, of either sign, and is seen.
    x, w, b = operands(small, 100)
    for first, second in ((3, 30), (40, 33), (70, 95)):
        x[:, first] = x[:, second] = large(ROWS)
        w[:, first] = large(OUT)
        w[:, second] = -w[:, first]
    yield "cut_100", (x, w, b)

    # The bias is the largest term, and two products cancel it.
    x, w, _ = operands(small, 30)
    b = (1 + rng.integers(0, 8, OUT) / 8) * 256 * signs(OUT)
    x[:, 5] = x[:, 20] = 1
    w[:, 5] = w[:, 20] = -b / 2
    yield "bias_30", (x, w, b)

    # Everything cancels, in another order than it came, so that only rounding is left.
    x, w, b = operands(binades, 64)
    order = rng.permutation(64)
    yield "cancel_128", (np.concatenate([x, x[:, order]], 1), np.concatenate([w, -w[:, order]], 1), b)

    # Sums that are zero of either sign, and biases of -0.
    x, w, b = operands(lambda *shape: rng.choice(np.float32([0.0, -0.0, 1, -1]), shape), 35)
    yield "zeros_35", (x, w, b * 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    tensors, tree, systolic = {}, IPTLinearRTLFunction(), SARTLLinearFunction()
    for name, operands in cases(np.random.default_rng(arguments.seed)):
        x, w, b = (None if values is None else np.ascontiguousarray(values, np.float32) for values in operands)
        codes = [None if values is None else float_to_e4m3_bytes_c(values) for values in (x, w, b)]
        bits = systolic._call_c(*codes, len(x), x.shape[1], len(w), 0).numpy().astype(np.uint32) << 16
        tensors[f"systolic.{name}"] = torch.from_numpy(bits.view(np.float32))
        x, w, b = (None if values is None else torch.from_numpy(values) for values in (x, w, b))
        tensors[f"tree.{name}"] = tree(x, w, b).float().contiguous()
        tensors[f"x.{name}"], tensors[f"w.{name}"] = x, w
        if b is not None:
            tensors[f"b.{name}"] = b
    save_file(tensors, arguments.out)
