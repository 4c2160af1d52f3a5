"""Chunks that LeRobot's RTCProcessor guides, around openpi's tiny models.

    OPENPI_DIR=... python make_continuation.py

Needs an environment that openpi's models_pytorch runs in, as tools/exactness.py does, and lerobot 0.4.4 (--no-deps is
enough). Writes tiny_pi05.safetensors and tiny_pi0.safetensors beside itself: `previous` [n, N], and `actions.<case>`
[1, A, N] for the inputs of ../<model>. A case is <schedule>_<delay>_<horizon>_<denoise steps>, with LeRobot's default
limit of guidance, and the number of steps as that limit where they are fewer. In weights.safetensors,
`<schedule>_<start>_<end>_<total>` are LeRobot's weights.
"""

import importlib.util
import json
import pathlib
import sys
import types

import safetensors.torch
import torch

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "tools/examples/reacher"))
from openpi_model import peers, small_model  # noqa: E402

# lerobot.policies imports every policy and what each needs.
package = types.ModuleType("lerobot.policies")
package.__path__ = [f"{importlib.util.find_spec('lerobot').submodule_search_locations[0]}/policies"]
sys.modules["lerobot.policies"] = package
from lerobot.configs.types import RTCAttentionSchedule  # noqa: E402
from lerobot.policies.rtc.configuration_rtc import RTCConfig  # noqa: E402
from lerobot.policies.rtc.modeling_rtc import RTCProcessor  # noqa: E402

COUNT = 12  # actions of the previous chunk
CASES = {
    "tiny_pi05": (
        ("LINEAR", 3, 10, 10), ("EXP", 0, 10, 16), ("ONES", 4, 8, 10), ("LINEAR", 2, 14, 10), ("LINEAR", 3, 10, 4),
    ),
    "tiny_pi0": (("EXP", 3, 10, 10),),
}  # fmt: skip
WEIGHTS = ((0, 10, 50), (3, 10, 15), (7, 8, 8), (8, 8, 8), (0, 0, 8), (0, 8, 8), (5, 5, 8))


def name_of(*case):
    return "_".join(map(str, case))


def processor(schedule, steps):
    limits = {"max_guidance_weight": float(steps)} if steps < 10 else {}
    return RTCProcessor(RTCConfig(prefix_attention_schedule=RTCAttentionSchedule[schedule], **limits))


def guided(model, inputs, previous, schedule, delay, horizon, steps):
    """openpi's sampling; LeRobot's processor gives its velocities."""
    rtc, denoise_step = processor(schedule, steps), model.denoise_step

    def step(state, masks, cache, x_t, timestep):
        return rtc.denoise_step(
            x_t, previous, delay, timestep[0], lambda x: denoise_step(state, masks, cache, x, timestep), horizon
        )

    model.denoise_step = step
    try:
        observation = peers.as_observation(inputs, torch.device("cpu"))
        return model.sample_actions("cpu", observation, noise=inputs["noise"].clone(), num_steps=steps)
    finally:
        model.denoise_step = denoise_step


def main():
    peers.find_peers(original=False, without_jax=False)
    for name, cases in CASES.items():
        folder = HERE.parent / name
        model = small_model(json.loads((folder / "architecture.json").read_text()))
        safetensors.torch.load_model(model, folder / "model.safetensors")
        model.requires_grad_(False)
        inputs = safetensors.torch.load_file(folder / "inputs.safetensors")
        torch.manual_seed(20261127)
        previous = torch.randn(COUNT, inputs["noise"].shape[2])
        chunks = {f"actions.{name_of(*case)}": guided(model, inputs, previous, *case) for case in cases}
        safetensors.torch.save_file({"previous": previous, **chunks}, HERE / f"{name}.safetensors")
    weights = {
        name_of(schedule.name, *places): processor(schedule.name, 10).get_prefix_weights(*places)
        for schedule in RTCAttentionSchedule
        for places in WEIGHTS
    }
    safetensors.torch.save_file(weights, HERE / "weights.safetensors")


if __name__ == "__main__":
    main()
