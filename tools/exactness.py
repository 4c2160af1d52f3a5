"""Shows that ours computes at full size the same bits as openpi's PyTorch model, and as pi0-quant's layers in it.

    OPENPI_DIR=... PI0_QUANT_DIR=... python tools/exactness.py                                        # random weights
    OPENPI_DIR=... PI0_QUANT_DIR=... python tools/exactness.py --checkpoint-dir DIR --config pi05_droid

OPENPI_DIR, PI0_QUANT_DIR   checkouts of openpi and pi0-quant (at fe1b474)
PI0                         program (build/release/pi0)
TMPDIR                      a disk with room for random weights (7 GiB)

Needs an environment that openpi's models_pytorch runs in, with the torch that the program is linked with, and memory
for one model at a time (13 GiB; float32 about 18). Both sides answer one request on a CPU, on the same number of threads:
as it is, and with every linear and every attention of the vision tower in float8_e4m3 in, float16 out. Compared are all
actions and each layer's n_calls, rmse, mse and mse_std. Exits with 1 if anything differs, and names what differs first.
"""

import argparse
import contextlib
import json
import math
import multiprocessing
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import peers
import safetensors.torch
import torch

STEPS = 10
FIGURES = ("n_calls", "rmse", "mse", "mse_std")


def start_peers(arguments):
    peers.find_peers(original=True, without_jax=arguments.without_jax)
    torch.set_grad_enabled(False)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    return peers.read_policy(arguments.config)


def write_checkpoint(arguments, weights):
    """A checkpoint with random weights, as openpi saves one."""
    model = peers.empty_model(start_peers(arguments), "bfloat16", torch.device("cpu"))
    peers.draw_weights(model)
    safetensors.torch.save_model(model, weights)


def load_model(policy, precision, weights):
    """openpi's model as its load_pytorch() and create_trained_policy() make it."""
    model = peers.empty_model(policy, precision, torch.device("cpu"))
    safetensors.torch.load_model(model, weights)
    model.paligemma_with_expert.to_bfloat16_for_selected_params(precision)
    return model


class NamedAttentions:
    """pi0-quant counts calls of attentions; this counts them for the attention that was called, as for a linear."""

    def __init__(self, tracker, names):
        self.tracker, self.names = tracker, names

    def record(self, name, **call):
        number = int(name.removeprefix("sdpa.")) - 1
        self.tracker.record(name=self.names[number % len(self.names)], **call)


@contextlib.contextmanager
def quantized(model):
    """pi0-quant's linears and attentions; gives what keeps their statistics."""
    from pi0_inout import model_patcher
    from pi0_inout.quant_types import QuantFormat

    attend = torch.nn.functional.scaled_dot_product_attention

    def by_name(query, key, value, mask, dropout, causal, scale):
        """pi0-quant gives `scale` by position, which torch refuses."""
        return attend(query, key, value, mask, dropout, causal, scale=scale)

    model_patcher._orig_sdpa = by_name
    vision = model.paligemma_with_expert.paligemma.model.vision_tower
    modules = {module: name for name, module in model.named_modules()}
    names = [f"{modules[layer.self_attn]}.sdpa" for layer in vision.vision_model.encoder.layers]
    formats = QuantFormat(peers.INPUT_FORMAT), QuantFormat(peers.OUTPUT_FORMAT)
    try:
        with peers.quantized(model, tracked=True) as tracker:
            with model_patcher.QuantAttnContext(*formats, tracker=NamedAttentions(tracker, names)):
                yield tracker
    finally:
        torch.nn.functional.scaled_dot_product_attention = attend


def run_peers(arguments, precision, weights, folder):
    """What openpi's model answers, and under pi0-quant what its layers lose, in the order of its modules."""
    policy = start_peers(arguments)
    model, device = load_model(policy, precision, weights), torch.device("cpu")
    inputs = safetensors.torch.load_file(folder / "inputs.safetensors")

    def sample():
        noise = inputs["noise"].clone()
        return model.sample_actions(device, peers.as_observation(inputs, device), noise=noise, num_steps=STEPS)

    actions = {"plain": sample()}
    order = {name: number for number, (name, _) in enumerate(model.named_modules())}
    with quantized(model) as tracker:
        actions["quantized"] = sample()
    layers = sorted(tracker.layer_rows(), key=lambda row: order[row["layer"].removesuffix(".sdpa")])
    safetensors.torch.save_file(actions, folder / "actions.safetensors")
    (folder / "layers.json").write_text(json.dumps(layers))


def run_alone(what, *given):
    """In a process of its own, whose memory goes with it."""
    process = multiprocessing.get_context("spawn").Process(target=what, args=given)
    process.start()
    process.join()
    if process.exitcode != 0:
        killed = ": it was killed, perhaps for want of memory" if process.exitcode < 0 else ""
        peers.stop(f"{what.__name__}() failed with exit code {process.exitcode}{killed}")


def run_ours(arguments, precision, checkpoint, folder, *formats):
    """What ours answers to the same."""
    output = folder / "ours.safetensors"
    subprocess.run(
        [
            arguments.pi0, "infer", "--config", arguments.config, "--checkpoint-dir", checkpoint,
            "--inputs", folder / "inputs.safetensors", "--output", output, "--precision", precision,
            "--kernels", "reference", "--keep-masked", "--device", "cpu", "--threads", str(arguments.threads),
            "--num-steps", str(STEPS), *formats,
        ],
        stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    return safetensors.torch.load_file(output)["actions"]


def compare_actions(name, found, expected):
    """Prints how many are equal in all bits; whether all are."""
    if not expected.isfinite().all():
        peers.stop(f"{name}: the peer's actions are not finite; they show nothing")
    equal = int((found.view(torch.int32) == expected.view(torch.int32)).sum())
    worst = f"; they differ by up to {(found - expected).abs().max():.3g}" if equal < expected.numel() else ""
    print(f"{name}: actions equal {equal} of {expected.numel()}, {expected.min():.3f} to {expected.max():.3f}{worst}")
    return equal == expected.numel()


def compare_layers(name, found, expected):
    """Prints how many layers of each kind have the same figures, and the first that do not; whether all have."""
    ours = {row["layer"]: [row[figure] for figure in FIGURES] for row in found}
    differing = []
    for kind, is_kind in (("linears", False), ("attentions", True)):
        rows = [row for row in expected if row["layer"].endswith(".sdpa") == is_kind]
        equal = 0
        for row in rows:
            # Ours has null for what is not finite.
            theirs = [row[figure] if math.isfinite(row[figure]) else None for figure in FIGURES]
            if ours.get(row["layer"]) == theirs:
                equal += 1
            else:
                differing.append((row["layer"], theirs))
        called = sum(row["n_calls"] > 0 for row in rows)
        print(f"{name}: {kind} equal {equal} of {len(rows)}, {called} of them called")
    for layer, theirs in differing[:3]:
        print(f"  {layer}: {', '.join(FIGURES)} are {ours.get(layer)}, expected {theirs}")
    extra = ours.keys() - {row["layer"] for row in expected}
    if extra:
        print(f"  {len(extra)} layers are only ours, as {min(extra)}")
    return not differing and not extra


def compare(arguments, precision, checkpoint, folder):
    peers.log(f"{precision}: the peers run")
    run_alone(run_peers, arguments, precision, checkpoint / "model.safetensors", folder)
    expected = safetensors.torch.load_file(folder / "actions.safetensors")
    peers.log(f"{precision}: ours runs")
    plain = run_ours(arguments, precision, checkpoint, folder)
    formats = f"{peers.INPUT_FORMAT}/{peers.OUTPUT_FORMAT}"
    rounded = run_ours(
        arguments, precision, checkpoint, folder, "--input-fmt", peers.INPUT_FORMAT,
        "--output-fmt", peers.OUTPUT_FORMAT, "--quantize-attention", "vision", "--stats-output", folder / "stats.json",
    )  # fmt: skip
    layers = json.loads((folder / "stats.json").read_text())["layers"]
    return all(
        [
            compare_actions(precision, plain, expected["plain"]),
            compare_actions(f"{precision}, {formats}", rounded, expected["quantized"]),
            compare_layers(f"{precision}, {formats}", layers, json.loads((folder / "layers.json").read_text())),
        ]
    )


def check_program(pi0):
    """Another LibTorch sums in another order."""
    try:
        told = subprocess.run([pi0, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        peers.stop(f"{pi0} does not run ({error}); run tools/setup.sh, or set PI0")
    version = told.partition("\n")[0]
    linked = re.search(r"libtorch ([\d.]+)", version)
    ours = torch.__version__.split("+")[0]
    if not linked or linked.group(1) != ours:
        peers.stop(f"{pi0} is '{version}', but this Python has torch {ours}; they must have the same one")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint-dir", type=pathlib.Path, help="in openpi's PyTorch layout; default: random weights"
    )
    parser.add_argument("--config", default="pi05_droid", help="policy by openpi's name; default: pi05_droid")
    parser.add_argument("--precision", nargs="+", choices=["bfloat16", "float32"], default=["bfloat16"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0, help="of weights, request and noise; default: 0")
    peers.add_jax_option(parser)
    arguments = parser.parse_args()
    arguments.pi0 = pathlib.Path(os.environ.get("PI0", "build/release/pi0")).resolve()
    check_program(arguments.pi0)
    for variable in ("OPENPI_DIR", "PI0_QUANT_DIR"):
        peers.folder(variable)
    policy = peers.read_policy(arguments.config)
    checkpoint = arguments.checkpoint_dir
    if checkpoint and not (checkpoint / "model.safetensors").is_file():
        peers.stop(f"{checkpoint} has no model.safetensors; expected a checkpoint in openpi's PyTorch layout")

    sys.stdout.reconfigure(line_buffering=True)  # in order with what is written to stderr
    weights = f"weights of {checkpoint}" if checkpoint else "random weights"
    print(
        f"{arguments.config}, {weights}, seed {arguments.seed}, {arguments.threads} threads, torch {torch.__version__}"
    )
    with tempfile.TemporaryDirectory(prefix="exactness_") as name:
        folder = pathlib.Path(name)
        torch.manual_seed(arguments.seed)
        safetensors.torch.save_file(peers.draw_inputs(policy, prompt_tokens=23), folder / "inputs.safetensors")
        if not checkpoint:
            peers.log("making random weights")
            checkpoint = folder
            run_alone(write_checkpoint, arguments, checkpoint / "model.safetensors")
        try:
            equal = [compare(arguments, precision, checkpoint, folder) for precision in arguments.precision]
        except subprocess.CalledProcessError as error:
            peers.stop(f"pi0 infer failed with exit code {error.returncode}")
    return 0 if all(equal) else 1


if __name__ == "__main__":
    sys.exit(main())
