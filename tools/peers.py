"""Times openpi's PyTorch model, and pi0-quant's layers in it, on the request of `pi0 bench`.

    OPENPI_DIR=... PI0_QUANT_DIR=... python tools/peers.py --json FILE eager compiled original original_untracked

A full-size Pi0.5 for DROID with random weights, in bfloat16, float8_e4m3 in and float16 out; `compiled` is openpi's own
use of torch.compile. Needs an environment that openpi's models_pytorch runs in. Writes records as
`pi0 bench --all-modes --json` does, each when it is there; one that fails does not stop the rest.
"""

import argparse
import contextlib
import json
import math
import os
import pathlib
import statistics
import sys
import time
import traceback
import types
from unittest import mock

import torch
from torch import nn
from torch.nn import functional
from whole_file import write_whole

POLICIES = pathlib.Path(__file__).resolve().parent.parent / "configs/policies"
CAMERAS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
VOCABULARY = 257152
INPUT_FORMAT, OUTPUT_FORMAT = "float8_e4m3", "float16"


def log(line):
    print(f"{pathlib.Path(sys.argv[0]).stem}: {line}", file=sys.stderr, flush=True)


def stop(line):
    log(line)
    sys.exit(1)


def folder(variable):
    path = os.environ.get(variable, "")
    if not pathlib.Path(path).is_dir() or not path:
        stop(f"{variable} is '{path}', which is no folder; expected a checkout of that program")
    return pathlib.Path(path)


def find_peers(original, without_jax):
    """Makes openpi importable, and pi0-quant where it is needed."""
    openpi = folder("OPENPI_DIR")
    sys.path[:0] = [str(openpi / "src"), str(openpi / "packages/openpi-client/src")]
    if original or without_jax:
        sys.path.insert(0, str(folder("PI0_QUANT_DIR")))
    if without_jax:
        os.environ["USE_FLAX"] = "0"  # nor may transformers look for JAX
        from pi0_inout import _jax_stubs

        _jax_stubs.inject()


def add_jax_option(parser):
    sizes = "the model's sizes are those of pi0-quant's stand-ins for openpi's modules that import JAX"
    parser.add_argument("--without-jax", action="store_true", help=sizes)


def read_policy(name):
    """The definition of one of openpi's policies, of which its model's sizes are used."""
    path = POLICIES / f"{name}.json"
    if not path.is_file():
        stop(f"no policy '{name}'; known: {', '.join(sorted(known.stem for known in POLICIES.iterdir()))}")
    return json.loads(path.read_text())


def empty_model(policy, precision, device):
    """openpi's model, its parameters without values; nothing is ever held in float32 that it holds in bfloat16."""
    from openpi.models_pytorch.pi0_pytorch import PI0Pytorch

    sizes = ("pi05", "paligemma_variant", "action_expert_variant", "action_dim", "action_horizon", "max_token_len")
    config = types.SimpleNamespace(
        **{name: policy[name] for name in sizes}, dtype=precision, pytorch_compile_mode=None
    )  # fmt: skip
    register = nn.Module.register_parameter

    def register_shape(module, name, parameter):
        if parameter is not None and not parameter.is_meta:
            parameter = nn.Parameter(parameter.to("meta"), parameter.requires_grad)
        register(module, name, parameter)

    with mock.patch.object(nn.Module, "register_parameter", register_shape):
        model = PI0Pytorch(config)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.to_empty(device=device)
    for name, buffer in buffers.items():
        model.get_buffer(name).copy_(buffer)
    model.paligemma_with_expert.paligemma.tie_weights()
    return model.eval()


def draw_weights(model):
    for parameter in model.parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 100
        parameter.normal_(0, 1 / math.sqrt(fan_in))


def draw_inputs(policy, prompt_tokens):
    """One request without its third picture, by the names of `pi0 infer --inputs`."""
    images = torch.randint(256, (len(CAMERAS), 1, 224, 224, 3), dtype=torch.uint8)
    images[2] = 0
    tokens = torch.zeros(1, policy["max_token_len"], dtype=torch.int32)
    tokens[:, :prompt_tokens] = torch.randint(VOCABULARY, (1, prompt_tokens), dtype=torch.int32)
    return {
        "images": images, "image_masks": torch.tensor([[True], [True], [False]]),
        "state": torch.rand(1, policy["action_dim"]) * 2 - 1,
        "tokens": tokens, "token_mask": torch.arange(tokens.shape[1]).unsqueeze(0) < prompt_tokens,
        "noise": torch.randn(1, policy["action_horizon"], policy["action_dim"]),
    }  # fmt: skip


def as_observation(inputs, device):
    """What openpi's Observation.from_dict() makes of such a request."""
    pictures = (inputs["images"].to(device).float().permute(0, 1, 4, 2, 3) / 255 * 2 - 1).unbind()
    return types.SimpleNamespace(
        images=dict(zip(CAMERAS, pictures, strict=True)),
        image_masks=dict(zip(CAMERAS, inputs["image_masks"].to(device), strict=True)),
        state=inputs["state"].to(device), tokenized_prompt=inputs["tokens"].to(device),
        tokenized_prompt_mask=inputs["token_mask"].to(device), token_ar_mask=None, token_loss_mask=None,
    )  # fmt: skip


@contextlib.contextmanager
def quantized(model, tracked):
    """pi0-quant's layers in the place of the model's; gives what keeps their statistics."""
    from pi0_inout.model_patcher import patch_model, unpatch_model
    from pi0_inout.quant_types import QuantFormat
    from pi0_inout.stats_tracker import StatsTracker

    tracker = StatsTracker() if tracked else None
    with contextlib.redirect_stdout(sys.stderr):
        patch_model(model, QuantFormat(INPUT_FORMAT), QuantFormat(OUTPUT_FORMAT), tracker=tracker)
        try:
            yield tracker
        finally:
            with torch.device("meta"):  # it makes every layer anew, only to give it the weights that are there
                unpatch_model(model)


def wait_for(device):
    """A GPU works on after its functions have returned."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def gemm_rate(device):
    """GFLOP/s of the best libtorch product of [968, 2048] and [2048, 16384] right now."""
    least = math.inf
    for dtype in (torch.float32, torch.bfloat16):
        x, weight = (torch.rand(rows, 2048, device=device).to(dtype) for rows in (968, 16384))
        for _ in range(3):
            wait_for(device)
            start = time.perf_counter()
            functional.linear(x, weight)
            wait_for(device)
            least = min(least, time.perf_counter() - start)
    return 2 * 968 * 2048 * 16384 / least / 1e9


def measure(name, sample, repeats, settings, device):
    """Runs count where the machine is within 15 % of its best speed before and after, as in `pi0 bench`."""
    for _ in range(3 if device.type == "cuda" else 1):  # the first ones are slower
        sample()
    runs, best, before = [], 0.0, gemm_rate(device)
    while len(runs) < 3 * repeats and sum(run["counts"] for run in runs) < repeats:
        start = time.perf_counter()
        if not sample().isfinite().all():
            raise ValueError("the actions are not finite")
        seconds, after = time.perf_counter() - start, gemm_rate(device)
        runs.append({"seconds": seconds, "gemm_before": before, "gemm_after": after})
        best, before = max(best, before, after), after
        for run in runs:
            run["counts"] = min(run["gemm_before"], run["gemm_after"]) >= 0.85 * best
        log(f"{name}: {seconds:.3f} s, {sum(run['counts'] for run in runs)} of {repeats} runs count")
    counting = sorted(run["seconds"] for run in runs if run["counts"]) or sorted(run["seconds"] for run in runs)
    return {
        "mode": name,
        "seconds": {"median": statistics.median(counting), "min": counting[0], "max": counting[-1]},
        "counted": sum(run["counts"] for run in runs),
        "gemm": {"gflop_per_second": best},
        "runs": runs,
        "settings": settings,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=["eager", "compiled", "original", "original_untracked"])
    parser.add_argument("--json", type=pathlib.Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--num-steps", type=int, default=10)
    parser.add_argument("--prompt-tokens", type=int, default=23)
    parser.add_argument("--compile-mode", default="max-autotune", help="of torch.compile; default: openpi's")
    add_jax_option(parser)
    arguments = parser.parse_args()
    find_peers(any(name.startswith("original") for name in arguments.what), arguments.without_jax)

    device = arguments.device
    torch.set_grad_enabled(False)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    log("making random weights")
    policy = read_policy("pi05_droid")
    model = empty_model(policy, "bfloat16", device)
    draw_weights(model)
    inputs = draw_inputs(policy, arguments.prompt_tokens)
    observation, noise = as_observation(inputs, device), inputs["noise"].to(device)
    settings = {
        "version": f"torch {torch.__version__}", "config": "pi05_droid", "precision": "bfloat16", "device": str(device),
        "threads": arguments.threads, "masked": "keep", "num_steps": arguments.num_steps,
        "prompt_tokens": arguments.prompt_tokens, "cameras": 2, "batch": 1, "repeats": arguments.repeats,
        "compile_mode": None,
    }  # fmt: skip

    def sample():
        return model.sample_actions(device, observation, noise=noise.clone(), num_steps=arguments.num_steps)

    records = {}
    for name in arguments.what:
        hooked, compiled = name.startswith("original"), name == "compiled"
        layers = quantized(model, tracked=name == "original") if hooked else contextlib.nullcontext()
        run = torch.compile(sample, mode=arguments.compile_mode) if compiled else sample
        used = {**settings, "compile_mode": arguments.compile_mode} if compiled else settings
        try:
            with layers:
                records[name] = measure(name, run, arguments.repeats, used, device)
        except Exception:
            log(f"{name} failed\n{traceback.format_exc()}")
            continue
        write_whole(arguments.json, json.dumps(records, indent=1) + "\n")
    return 0 if len(records) == len(set(arguments.what)) else 1


if __name__ == "__main__":
    sys.exit(main())
