"""Multiply-accumulates a second of every accumulator, ours and pi0-quant's models of hardware in C, in one run.

    PI0_QUANT_HEAD=<checkout at 6b3e846> python tools/compare_accumulators.py [build/release/pi0]

A product of 968 x 2048 x 2048, as the prefix of a full-size model has; pi0-quant's, which are slow, of fewer rows. Needs
torch, numpy, numba, safetensors and gcc. Without PI0_QUANT_HEAD only ours are timed.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

ROWS, IN, OUT = 968, 2048, 2048
ACCUMULATORS = "float32", "bfloat16:32", "bfloat16:1", "float16:32", "float16:1", "ipt", "systolic"
REPEATS = 3


def ours(program, x, w):
    with tempfile.TemporaryDirectory() as folder:
        operands, products = Path(folder) / "operands.safetensors", Path(folder) / "products.safetensors"
        save_file({"x.full": x, "w.full": w}, operands)
        command = [program, "matmul", "--accumulator", ",".join(ACCUMULATORS), operands, products]
        best = dict.fromkeys(ACCUMULATORS, 0.0)
        for _ in range(REPEATS):
            text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            for name, rate in re.findall(r"^(\S+): .* s, (\S+) a second$", text, re.MULTILINE):
                best[name] = max(best[name], float(rate))
        return best


def pi0_quants(x, w):
    sys.path.insert(0, os.environ["PI0_QUANT_HEAD"])
    from func_models_sa.systolic_c.systolic_array_rtl_linear import SARTLLinearFunction
    from funct_models_ipt.ipt_c.ipt_rtl_linear_c import CIPTLinearRTLFunction, float_to_e4m3_bytes_c

    best, codes = {}, float_to_e4m3_bytes_c(w)
    for name, model, rows in (("ipt", CIPTLinearRTLFunction(), 32), ("systolic", SARTLLinearFunction(), 32)):
        some = float_to_e4m3_bytes_c(x[:rows].copy())
        seconds = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            model._call_c(some, codes, None, rows, IN, OUT, 0)
            seconds.append(time.perf_counter() - start)
        best[name] = rows * IN * OUT / min(seconds)
    return best


def main():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((ROWS, IN), np.float32), rng.standard_normal((OUT, IN), np.float32) / np.float32(45)
    found = ours(sys.argv[1] if len(sys.argv) > 1 else "build/release/pi0", x, w)
    theirs = pi0_quants(x, w) if "PI0_QUANT_HEAD" in os.environ else {}
    print(f"{'accumulator':12} {'ours':>9} {'pi0-quant':>10} {'ratio':>7}   10^9 multiply-accumulates a second, best of {REPEATS}")
    for name, rate in found.items():
        other = theirs.get(name)
        print(f"{name:12} {rate / 1e9:9.3g}" + (f" {other / 1e9:10.3g} {rate / other:7.0f}" if other else ""))


if __name__ == "__main__":
    main()
