"""Trains a small Pi0 or Pi0.5 from scratch on what make_data.py made, with openpi's model and its flow-matching loss.

    OPENPI_DIR=... python tools/examples/reacher/train.py pi05 data/1 data/2

Needs an environment that openpi's models_pytorch runs in, as tools/exactness.py does. Writes the checkpoint that
<name>_reacher.json is a policy for, its weights in bfloat16; --output keeps it apart. One core is enough.
"""

import argparse
import json
import math
import pathlib
import shutil
import time

import numpy as np
import safetensors.torch
import torch
from openpi_model import FOLDER, peers, read_policy, small_model, tokenizer_at
from torch.nn import functional
from transformers.cache_utils import DynamicCache

TOKENIZER = FOLDER.parents[1] / "data/tiny_tokenizer.model"
STEPS = 10  # of the flow, when the policy is asked
BATCH, DRAWS = 32, 4  # pictures, and draws of noise and time for each
WARM_UP = 200  # steps
HELD_OUT = 400


def architecture_for(policy):
    return {
        "pi05": policy["pi05"],
        "paligemma": {"width": 128, "depth": 3, "mlp_dim": 256, "num_heads": 8, "num_kv_heads": 1, "head_dim": 16},
        "action_expert": {"width": 96, "depth": 3, "mlp_dim": 192, "num_heads": 8, "num_kv_heads": 1, "head_dim": 16},
        "vision": {"width": 128, "depth": 2, "mlp_dim": 256, "num_heads": 4, "patch_size": 56, "image_size": 224},
        "vocab_size": 512,
        **{name: policy[name] for name in ("action_dim", "action_horizon", "max_token_len")},
        "num_steps": STEPS,
    }


def draw_weights(model):
    """Where training begins: every norm is a plain one, and every gate of a Pi0.5 is open."""
    for name, parameter in model.named_parameters():
        layer_norm = "vision_tower" in name and "norm" in name
        if ".dense." in name:  # of adaRMS: scale, shift and gate, one after the other
            torch.nn.init.zeros_(parameter)
            if name.endswith("bias"):
                parameter.data[parameter.numel() * 2 // 3 :] = 1
        elif parameter.dim() == 1:
            torch.nn.init.constant_(parameter, 1.0 if layer_norm and name.endswith("weight") else 0.0)
        elif "position_embedding" in name:
            torch.nn.init.normal_(parameter, std=0.1)
        elif "embed_tokens" in name or "lm_head" in name:
            torch.nn.init.normal_(parameter, std=0.02)
        else:
            torch.nn.init.normal_(parameter, std=1 / math.sqrt(parameter[0].numel()))


def as_patches(images, size):
    """uint8 [n, H, W, 3] to [n, patches, 3 * size * size], in the order of the patch embedding's weights."""
    n, height, width, _ = images.shape
    patches = images.reshape(n, height // size, size, width // size, size, 3)
    return patches.transpose(0, 1, 3, 5, 2, 4).reshape(n, -1, 3 * size * size)


def embed_patches(model, mean):
    """Lets the model take patches of 0..255 and embed their differences from `mean`, [patches, 3 * size * size].

    What does not change from picture to picture is far larger than what does, and would keep the embedding from
    learning. One product, as the convolution is slow on a CPU.
    """
    embeddings = model.paligemma_with_expert.paligemma.model.vision_tower.vision_model.embeddings

    def forward(patches, **_):
        weight, bias = embeddings.patch_embedding.weight.flatten(1), embeddings.patch_embedding.bias
        return functional.linear((patches - mean) / 127.5, weight, bias) + embeddings.position_embedding.weight

    embeddings.forward = forward


@torch.no_grad()
def add_mean(model, mean, sign):
    """Adds to the position embedding what the mean adds when whole pictures are embedded, or takes it off."""
    embeddings = model.paligemma_with_expert.paligemma.model.vision_tower.vision_model.embeddings
    mean_tokens = (mean / 127.5 - 1) @ embeddings.patch_embedding.weight.flatten(1).T
    embeddings.position_embedding.weight += sign * mean_tokens


def statistics_of(values):
    """What openpi's compute_norm_stats.py says of them, with exact percentiles."""
    from openpi.shared.normalize import NormStats

    values = values.reshape(-1, values.shape[-1]).astype(np.float64)
    low, high = np.quantile(values, [0.01, 0.99], axis=0)
    return NormStats(mean=values.mean(0), std=values.std(0), q01=low, q99=high)


class Demonstrations:
    """What make_data.py made, as the model sees it."""

    def __init__(self, folders, policy, patch_size):
        from openpi import transforms

        def load(name):
            return np.concatenate([np.load(folder / f"{name}.npy") for folder in folders])

        states, actions = load("states"), load("actions")
        if "delta_action_mask" in policy:
            actions = actions - states[:, None]
        self.statistics = {"state": statistics_of(states), "actions": statistics_of(actions)}
        quantiles = policy["normalization"] == "quantile"
        normalized = transforms.Normalize(self.statistics, quantiles)({"state": states, "actions": actions})
        unnormalize = transforms.Unnormalize({"actions": self.statistics["actions"]}, quantiles)
        self.in_metres = lambda chunks: unnormalize({"actions": chunks[..., :2].numpy()})["actions"]

        tokenizer, in_prompt = tokenizer_at(TOKENIZER, policy), policy["discrete_state_input"]
        prompts = [
            tokenizer.tokenize(policy["default_prompt"], state if in_prompt else None) for state in normalized["state"]
        ]
        self.tokens, self.token_mask = (torch.from_numpy(np.stack(part)) for part in zip(*prompts, strict=True))
        padded = transforms.PadStatesAndActions(policy["action_dim"])(normalized)
        self.states, self.actions = (torch.from_numpy(padded[name]).float() for name in ("state", "actions"))
        self.patches = torch.from_numpy(as_patches(load("images"), patch_size))
        self.mean_patches = self.patches[::10].float().mean(0)

    def __len__(self):
        return len(self.states)


def read_prefix(model, data, rows):
    """Keys, values and mask of the prefix. The two cameras that the robot lacks are left out, being masked."""
    from openpi.models_pytorch.pi0_pytorch import make_att_2d_masks

    there = torch.ones(len(rows), dtype=torch.bool)
    embedded, mask, attended = model.embed_prefix(
        [data.patches[rows]], [there], data.tokens[rows], data.token_mask[rows]
    )
    model.paligemma_with_expert.paligemma.language_model.config._attn_implementation = "eager"
    _, cache = model.paligemma_with_expert.forward(
        attention_mask=model._prepare_attention_masks_4d(make_att_2d_masks(mask, attended)),
        position_ids=torch.cumsum(mask, 1) - 1, inputs_embeds=[embedded, None], use_cache=True,
    )  # fmt: skip
    return cache, mask


def flow_loss(model, data, rows):
    """openpi's loss, forward() of PI0Pytorch, with one prefix for several draws of noise and time."""

    def repeat(tensor):
        return tensor.repeat_interleave(DRAWS, 0)

    cache, mask = read_prefix(model, data, rows)
    cache = DynamicCache.from_legacy_cache(
        tuple((repeat(key), repeat(value)) for key, value in cache.to_legacy_cache())
    )
    actions = repeat(data.actions[rows])
    noise, times = torch.randn(actions.shape), model.sample_time(len(actions), "cpu")
    share = times[:, None, None]
    noisy = share * noise + (1 - share) * actions
    velocity = model.denoise_step(repeat(data.states[rows]), repeat(mask), cache, noisy, times)
    return functional.mse_loss(velocity, noise - actions)


@torch.no_grad()
def held_out_error(model, data):
    """Mean distance in metres of the last position of sampled chunks from the demonstration's."""
    rows = torch.arange(len(data) - HELD_OUT, len(data))
    cache, mask = read_prefix(model, data, rows)
    actions = torch.randn(data.actions[rows].shape)
    for step in range(STEPS):
        times = torch.full((HELD_OUT,), 1 - step / STEPS)
        actions = actions - model.denoise_step(data.states[rows], mask, cache, actions, times) / STEPS
    error = data.in_metres(actions) - data.in_metres(data.actions[rows])
    return float(np.linalg.norm(error[:, -1], axis=-1).mean())


def train(model, data, minutes, learning_rate):
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=1e-4, betas=(0.9, 0.95))
    start, step, losses = time.monotonic(), 0, []
    while (done := (time.monotonic() - start) / 60 / minutes) < 1:
        decay = 0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1, (step + 1) / WARM_UP) * decay
        loss = flow_loss(model, data, torch.randint(len(data) - HELD_OUT, (BATCH,)))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        step += 1
        if step % 250 == 0:
            error = 1000 * held_out_error(model, data)
            peers.log(f"{step} steps, {100 * done:.0f} %: loss {np.mean(losses[-250:]):.4f}, error {error:.1f} mm")


def save(model, architecture, statistics, folder):
    from openpi.shared import normalize

    normalize.save(folder / "assets/reacher", statistics)
    safetensors.torch.save_model(model.to(torch.bfloat16), folder / "model.safetensors")
    (folder / "model.safetensors").chmod(0o644)
    (folder / "architecture.json").write_text(json.dumps(architecture, indent=1) + "\n")
    shutil.copy(TOKENIZER, folder / "paligemma_tokenizer.model")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", choices=["pi0", "pi05"])
    parser.add_argument("data", nargs="+", type=pathlib.Path, help="folders that make_data.py wrote")
    parser.add_argument("--minutes", type=float, default=22)
    parser.add_argument("--output", type=pathlib.Path, help="default: this script's folder and the policy's name")
    parser.add_argument("--start", type=pathlib.Path, help="a checkpoint to train further; default: random weights")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="the largest; default: 0.001")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    peers.find_peers(original=False, without_jax=False)

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    policy = read_policy(f"{arguments.policy}_reacher")
    architecture = architecture_for(policy)
    data = Demonstrations(arguments.data, policy, architecture["vision"]["patch_size"])
    model = small_model(architecture)
    if arguments.start:
        safetensors.torch.load_model(model, arguments.start / "model.safetensors")
        add_mean(model, data.mean_patches, 1)
    else:
        draw_weights(model)
    embed_patches(model, data.mean_patches)
    count = sum(parameter.numel() for parameter in model.parameters())
    peers.log(f"{arguments.policy}: {count / 1e6:.2f} million parameters, {len(data)} states")
    train(model, data, arguments.minutes, arguments.learning_rate)
    add_mean(model, data.mean_patches, -1)
    save(model, architecture, data.statistics, arguments.output or FOLDER / arguments.policy)


if __name__ == "__main__":
    main()
