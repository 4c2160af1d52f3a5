"""Hashes of everything the programs compute from the goldens, to show that a change alters no bit.

    python tests/bits.py build/release > before     # at the old commit
    python tests/bits.py build/release > after      # at the new one, on the same machine
    diff before after

Each line is a hash and what it is of: the tensors between a model's stages and its actions, a policy's answer, or the
statistics and action errors of every pair of formats; with the reference's operations and with the fast kernels of every
instruction set of this CPU, in both precisions.
"""

import argparse
import concurrent.futures
import hashlib
import itertools
import json
import os
import pathlib
import re
import subprocess
import tempfile

GOLDENS = pathlib.Path(__file__).resolve().parent / "goldens"
MODELS = ("tiny_pi0", "tiny_pi05")
PRECISIONS = ("bfloat16", "float32")
PAIRS = (("float8_e4m3", "float16"), ("float16", "float8_e5m2"))
STEPS = ("--num-steps", 3)


def pi0(build, *arguments):
    command = [str(argument) for argument in (build / "pi0", *arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


def kernel_choices(build):
    sets = re.search(r"--instructions (\S+)", pi0(build, "infer", "--help")).group(1).split("|")
    return [("--kernels", "reference"), *(("--instructions", each) for each in sets)]


def statistics_of(file):
    """What was measured, without when, how fast and by which version."""
    return json.dumps(json.loads(file.read_text())["layers"]).encode()


def trace(build, folder, model, precision, kernels):
    files = [folder / "actions.safetensors", folder / "trace.safetensors"]
    pi0(build, "infer", "--checkpoint-dir", GOLDENS / model, "--inputs", GOLDENS / model / "inputs.safetensors", *STEPS,
        "--precision", precision, *kernels, "--output", files[0], "--trace", files[1])  # fmt: skip
    return [file.read_bytes() for file in files]


def masked(build, folder, model, precision, kernels):
    file = folder / "actions.safetensors"
    pi0(build, "infer", "--checkpoint-dir", GOLDENS / model, "--inputs", GOLDENS / model / "inputs.safetensors", *STEPS,
        "--precision", precision, *kernels, "--skip-masked", "--output", file)  # fmt: skip
    return [file.read_bytes()]


def quantized(build, folder, model, precision, kernels, attention):
    formats = [] if attention == "all" else ["--input-fmts", PAIRS[0][0], "--output-fmts", PAIRS[0][1]]
    pi0(build, "sweep", "--checkpoint-dir", GOLDENS / model, "--inputs", GOLDENS / model / "inputs.safetensors", *STEPS,
        "--precision", precision, *kernels, "--quantize-attention", attention, *formats, "--output", folder / "sweep")  # fmt: skip
    parts = []
    for pair in sorted((folder / "sweep").glob("*/stats.json")):
        errors = json.loads((pair.parent / "result.json").read_text())
        known = {key: value for key, value in errors["entry"].items() if key != "inference_time_s"}
        parts += [pair.parent.name.encode(), statistics_of(pair), json.dumps(known).encode()]
    return parts


def policy(build, folder, name, kernels, pair=None):
    answer, statistics, checkpoint = folder / "answer.msgpack", folder / "stats.json", folder / "checkpoint"
    source = GOLDENS / name
    case = json.loads((source / "case.json").read_text())
    checkpoint.mkdir()
    for part in (*(GOLDENS / case.get("checkpoint", name)).iterdir(), *source.iterdir()):  # its own go before
        (checkpoint / part.name).unlink(missing_ok=True)
        (checkpoint / part.name).symlink_to(part)
    formats = ["--input-fmt", pair[0], "--output-fmt", pair[1], "--stats-output", statistics] if pair else []
    noise = ["--seed", case["seed"]] if "seed" in case else ["--noise", source / "noise.safetensors"]
    prompt = ["--default-prompt", case["default_prompt"]] if case["default_prompt"] is not None else []
    pi0(build, "infer", "--config", case["config"], "--checkpoint-dir", checkpoint, "--request", source / "request.msgpack", *noise,
        *prompt, *STEPS, *kernels, *formats, "--output", answer)  # fmt: skip
    return [answer.read_bytes(), *([statistics_of(statistics)] if pair else [])]


def works(build):
    for kernels in kernel_choices(build):
        for model, precision in itertools.product(MODELS, PRECISIONS):
            yield trace, (model, precision, kernels)
            yield masked, (model, precision, kernels)
            for attention in ("none", "vision", "all"):
                yield quantized, (model, precision, kernels, attention)
        for case in sorted(GOLDENS.glob("policies*/*/case.json")):
            name = str(case.parent.relative_to(GOLDENS))
            yield policy, (name, kernels)
            if case.parent.parent.name == "policies":
                for pair in PAIRS:
                    yield policy, (name, kernels, pair)


def line(build, work, arguments):
    with tempfile.TemporaryDirectory() as folder:
        digest = hashlib.sha256()
        for part in work(build, pathlib.Path(folder), *arguments):
            digest.update(hashlib.sha256(part).digest())
    words = [word for argument in arguments for word in ([argument] if isinstance(argument, str) else argument)]
    return f"{digest.hexdigest()[:32]}  {work.__name__} {' '.join(words)}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--only", choices=("trace", "masked", "quantized", "policy"), help="lines of this kind")
    arguments = parser.parse_args()
    build = arguments.build.resolve()
    os.environ["OMP_NUM_THREADS"] = "1"
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for future in [pool.submit(line, build, *each) for each in works(build) if arguments.only in (None, each[0].__name__)]:
            print(future.result(), flush=True)


if __name__ == "__main__":
    main()
