"""openpi's PyTorch model and policy at the sizes of a checkpoint's architecture.json, which openpi itself lacks."""

import json
import pathlib
import sys
from unittest import mock

import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
import peers  # noqa: E402

FOLDER = pathlib.Path(__file__).resolve().parent


def read_policy(name):
    return json.loads((FOLDER / f"{name}.json").read_text())


def small_model(architecture):
    """PI0Pytorch in float32, its parameters without values."""
    from openpi.models import gemma
    from openpi.models_pytorch import gemma_pytorch

    variants = {name: gemma.Config(**architecture[name]) for name in ("paligemma", "action_expert")}
    vision = architecture["vision"]
    vision_sizes = {
        "hidden_size": vision["width"], "num_hidden_layers": vision["depth"], "intermediate_size": vision["mlp_dim"],
        "num_attention_heads": vision["num_heads"], "patch_size": vision["patch_size"],
        "image_size": vision["image_size"], "projection_dim": architecture["paligemma"]["width"],
    }  # fmt: skip
    vocabulary = architecture["vocab_size"]
    make_language_model = gemma_pytorch.PaliGemmaForConditionalGeneration
    make_expert = gemma_pytorch.GemmaForCausalLM

    def small_language_model(config):
        config.projection_dim = architecture["paligemma"]["width"]
        config._vocab_size = config.image_token_index = config.text_config.vocab_size = vocabulary
        for name, size in vision_sizes.items():
            setattr(config.vision_config, name, size)
        return make_language_model(config=config)

    def small_expert(config):
        config.vocab_size = vocabulary
        return make_expert(config=config)

    policy = {
        "paligemma_variant": "paligemma", "action_expert_variant": "action_expert",
        **{name: architecture[name] for name in ("pi05", "action_dim", "action_horizon", "max_token_len")},
    }  # fmt: skip
    with (
        mock.patch.object(gemma, "get_config", variants.__getitem__),
        mock.patch.object(gemma_pytorch, "PaliGemmaForConditionalGeneration", small_language_model),
        mock.patch.object(gemma_pytorch, "GemmaForCausalLM", small_expert),
    ):
        return peers.empty_model(policy, "float32", torch.device("cpu"))


def tokenizer_at(path, policy):
    """openpi's tokenizer with another SentencePiece model than PaliGemma's."""
    from openpi.models.tokenizer import PaligemmaTokenizer
    from openpi.shared import download

    with mock.patch.object(download, "maybe_download", lambda *_, **__: path):
        return PaligemmaTokenizer(policy["max_token_len"])


def openpi_policy(name, checkpoint):
    """<name>.json with a checkpoint as openpi's create_trained_policy() makes one of its own configs, in float32."""
    import safetensors.torch
    from openpi import transforms
    from openpi.policies.policy import Policy
    from openpi.shared import normalize

    policy = read_policy(name)
    architecture = json.loads((checkpoint / "architecture.json").read_text())
    model = small_model(architecture)
    safetensors.torch.load_model(model, checkpoint / "model.safetensors")
    statistics = normalize.load(checkpoint / "assets/reacher")
    quantiles, mask = policy["normalization"] == "quantile", policy.get("delta_action_mask")
    tokenizer = tokenizer_at(checkpoint / "paligemma_tokenizer.model", policy)
    return Policy(
        model,
        transforms=[
            reacher_inputs,
            transforms.Normalize(statistics, quantiles),
            transforms.ResizeImages(224, 224),
            transforms.TokenizePrompt(tokenizer, policy["discrete_state_input"]),
            transforms.PadStatesAndActions(policy["action_dim"]),
        ],
        output_transforms=[
            transforms.Unnormalize(statistics, quantiles),
            transforms.AbsoluteActions(mask),
            lambda answer: {"actions": answer["actions"][:, : policy["robot"]["action_size"]]},
        ],
        sample_kwargs={"num_steps": architecture["num_steps"]},
        is_pytorch=True,
    )


def reacher_inputs(request):
    """One camera of three, as openpi's LiberoInputs has two."""
    picture = request["observation/image"]
    first, *others = peers.CAMERAS
    return {
        "image": {first: picture, **{name: np.zeros_like(picture) for name in others}},
        "image_mask": {first: np.True_, **{name: np.False_ for name in others}},
        "state": request["observation/state"],
        "prompt": request["prompt"],
    }
