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

import torch
from torch.nn import functional
from whole_file import write_whole

CAMERAS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
HORIZON, ACTION_DIM, PLACES, VOCABULARY = 15, 32, 200, 257152


def log(line):
    print(f"peers: {line}", file=sys.stderr, flush=True)


def folder(variable):
    path = os.environ.get(variable, "")
    if not pathlib.Path(path).is_dir() or not path:
        sys.exit(f"peers: {variable} names no folder; it is a checkout of the program to be timed")
    return pathlib.Path(path)


def build_model(device):
    """openpi's model with random weights; nothing is ever held in float32 that the model holds in bfloat16."""
    from openpi.models_pytorch.pi0_pytorch import PI0Pytorch

    config = types.SimpleNamespace(
        pi05=True, paligemma_variant="gemma_2b", action_expert_variant="gemma_300m", dtype="bfloat16",
        action_dim=ACTION_DIM, action_horizon=HORIZON, max_token_len=PLACES, pytorch_compile_mode=None,
    )  # fmt: skip
    with torch.device("meta"):
        model = PI0Pytorch(config)
    model.to_empty(device=device)
    model.paligemma_with_expert.paligemma.tie_weights()
    for parameter in model.parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 100
        parameter.normal_(0, 1 / math.sqrt(fan_in))
    # Buffers are no parameters: what their modules made of them was lost with the meta device.
    for module in model.modules():
        if hasattr(module, "rope_init_fn"):
            module.inv_freq, module.attention_scaling = module.rope_init_fn(module.config, device)
        if isinstance(getattr(module, "position_ids", None), torch.Tensor):
            module.position_ids = torch.arange(module.position_ids.shape[-1], device=device).unsqueeze(0)
    return model.eval()


def build_observation(prompt_tokens, device):
    tokens = torch.zeros(1, PLACES, dtype=torch.int32)
    tokens[:, :prompt_tokens] = torch.randint(VOCABULARY, (1, prompt_tokens), dtype=torch.int32)
    return types.SimpleNamespace(
        images={name: (torch.rand(1, 3, 224, 224) * 2 - 1).to(device) for name in CAMERAS},
        image_masks={name: torch.tensor([name != CAMERAS[2]], device=device) for name in CAMERAS},
        state=(torch.rand(1, ACTION_DIM) * 2 - 1).to(device), tokenized_prompt=tokens.to(device),
        tokenized_prompt_mask=(torch.arange(PLACES).unsqueeze(0) < prompt_tokens).to(device),
        token_ar_mask=None, token_loss_mask=None,
    )  # fmt: skip


@contextlib.contextmanager
def quantized(model, tracked):
    from pi0_inout.model_patcher import patch_model, unpatch_model
    from pi0_inout.quant_types import QuantFormat
    from pi0_inout.stats_tracker import StatsTracker

    tracker = StatsTracker() if tracked else None
    with contextlib.redirect_stdout(sys.stderr):
        patch_model(model, QuantFormat("float8_e4m3"), QuantFormat("float16"), tracker=tracker)
        try:
            yield
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
    sizes = "the model's sizes are those of pi0-quant's stand-ins for openpi's modules that import JAX"
    parser.add_argument("--without-jax", action="store_true", help=sizes)
    arguments = parser.parse_args()
    openpi = folder("OPENPI_DIR")
    sys.path[:0] = [str(openpi / "src"), str(openpi / "packages/openpi-client/src")]
    if arguments.without_jax or any(name.startswith("original") for name in arguments.what):
        sys.path.insert(0, str(folder("PI0_QUANT_DIR")))
    if arguments.without_jax:
        os.environ["USE_FLAX"] = "0"  # nor may transformers look for JAX
        from pi0_inout import _jax_stubs

        _jax_stubs.inject()

    device = arguments.device
    torch.set_grad_enabled(False)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    log("making random weights")
    model, observation = build_model(device), build_observation(arguments.prompt_tokens, device)
    noise = torch.randn(1, HORIZON, ACTION_DIM).to(device)
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
