"""Times vla.cpp's own benchmark program on the request of `pi0 bench` without what is masked.

    VLA_CPP_DIR=... python tools/vla_cpp.py --json FILE [--pi0 build/release/pi0]

VLA_CPP_DIR is a checkout of vla.cpp with build/vla-bench built for CPUs. Its own converter makes the model,
build/pi05_droid.gguf in that folder (7 GiB), of random weights in bfloat16; once made, it stays. Needs what converter
and peers.py need: torch, safetensors, gguf. Writes a record as peers.py does.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import peers
import torch
from whole_file import write_whole

CONFIG = "pi05_droid"
STEPS, CAMERAS, PROMPT_TOKENS = 10, 2, 23


def make_model(vla_cpp, pi0, path):
    """What vla.cpp's converter makes of a random checkpoint: openpi's names of weights, LeRobot's config.json."""
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        folder = pathlib.Path(name)
        make = [pi0, "make-checkpoint", "--config", CONFIG]
        subprocess.run([*make, "--size", "full", "--output", folder / "openpi"], check=True)
        subprocess.run([*make, "--layout", "lerobot", "--output", folder / "lerobot"], check=True)
        (folder / "lerobot/config.json").rename(folder / "openpi/config.json")
        stats = json.loads((folder / "openpi/assets/droid/norm_stats.json").read_text())["norm_stats"]
        (folder / "stats.json").write_text(
            json.dumps({"observation.state": stats["state"], "action": stats["actions"]})
        )
        convert = [sys.executable, vla_cpp / "scripts/convert_pi05_to_gguf.py", "--ckpt", folder / "openpi"]
        made = folder / path.name
        subprocess.run([*convert, "--dataset-stats", folder / "stats.json", "--out", made], check=True)
        made.rename(path)


def bench(program, model, repeats, threads):
    """Milliseconds of the fastest and of the median run, as the program prints them."""
    request = ["--images", CAMERAS, "--tokens", PROMPT_TOKENS, "--warmup", 1, "--reps", repeats]
    command = [str(part) for part in (program, "--ckpt", model, *request)]
    environment = {**os.environ, "VLA_N_THREADS": str(threads)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    horizon = peers.read_policy(CONFIG)["action_horizon"]
    for expected in (f"chunk={horizon} steps={STEPS} ", "matmul_weights=BF16", f"backend = CPU ({threads} threads)"):
        if expected not in done.stdout:
            peers.stop(f"expected '{expected.strip()}' of {program}, which printed:\n{done.stdout}")
    found = re.search(r"min (\S+) ms +p50 (\S+) ms", done.stdout)
    return float(found[1]), float(found[2])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=pathlib.Path, required=True)
    parser.add_argument("--pi0", default="build/release/pi0")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    vla_cpp = peers.folder("VLA_CPP_DIR")
    program, model = vla_cpp / "build/vla-bench", vla_cpp / f"build/{CONFIG}.gguf"
    if not program.is_file():
        peers.stop(f"{program} is not there; build the target vla-bench of vla.cpp")
    if not model.is_file():
        peers.log(f"making {model}")
        make_model(vla_cpp, arguments.pi0, model)

    cpu = torch.device("cpu")
    before = peers.gemm_rate(cpu)
    least, median = bench(program, model, arguments.repeats, arguments.threads)
    rates = before, peers.gemm_rate(cpu)
    record = {
        "mode": "vla_cpp",
        "seconds": {"median": median / 1000, "min": least / 1000},
        "counted": arguments.repeats if min(rates) >= 0.85 * max(rates) else 0,
        "gemm": {"gflop_per_second": max(rates)},
        "settings": {
            "config": CONFIG, "precision": "bfloat16", "device": "cpu", "threads": arguments.threads, "masked": "skip",
            "num_steps": STEPS, "prompt_tokens": PROMPT_TOKENS, "cameras": CAMERAS, "batch": 1,
            "repeats": arguments.repeats,
        },
    }  # fmt: skip
    peers.log(f"vla_cpp: {median / 1000:.3f} s")
    write_whole(arguments.json, json.dumps({"vla_cpp": record}, indent=1) + "\n")


if __name__ == "__main__":
    main()
