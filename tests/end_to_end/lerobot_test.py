"""LeRobot's policies through the programs: LeRobot's own answers, every layout of names, what is refused."""

import json
import pathlib
import shutil
import unittest

import numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy

from support import GOLDENS, TemporaryFolderTest, one_instruction_set, read, read_tensor, relative_rms, run, serve

LEROBOT = GOLDENS / "lerobot"
SIZES = ("224x224", "256x256", "480x640")
# LeRobot adds up the flow's time in float64 and openpi in float32, which is 4e-6 and 7e-6 of these actions.
TOLERANCE = 1e-5


def tensors_of(file):
    """Names to (dtype, shape, bytes)."""
    data = pathlib.Path(file).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    entries = {name: entry for name, entry in json.loads(data[8:start]).items() if name != "__metadata__"}
    return {
        name: (entry["dtype"], entry["shape"], data[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]])
        for name, entry in entries.items()
    }


def write_tensors(file, tensors):
    header, end = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(data)]}
        end += len(data)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(data for _, _, data in tensors.values()))


def floats(*values):
    return "F32", [len(values)], np.array(values, np.float32).tobytes()


PALIGEMMA = "model.paligemma_with_expert.paligemma."
EMBEDDING = PALIGEMMA + "model.language_model.embed_tokens.weight"
HEAD = PALIGEMMA + "lm_head.weight"


def with_one_embedding(tensors):
    """The embedding under the head's name only, as LeRobot before 0.6 has it."""
    tensors = dict(tensors)
    tensors[HEAD] = tensors.pop(EMBEDDING)
    return tensors


def as_0_3(tensors):
    """Names of LeRobot up to 0.3 and of transformers before 4.52, and statistics among the weights."""
    renamed = {}
    for name, tensor in with_one_embedding(tensors).items():
        name = name.replace(HEAD, PALIGEMMA + "language_model.lm_head.weight")
        name = name.replace(PALIGEMMA + "model.language_model.", PALIGEMMA + "language_model.model.")
        renamed[name.replace(PALIGEMMA + "model.", PALIGEMMA)] = tensor
    return renamed | statistics_0_3()


def statistics_0_3():
    ones, eight = floats(*[1.0] * 7), floats(*[1.0] * 8)
    found = {f"normalize_inputs.buffer_observation_state.{key}": eight for key in ("mean", "std")}
    for layer in ("normalize_targets", "unnormalize_outputs"):
        found |= {f"{layer}.buffer_action.{key}": ones for key in ("mean", "std")}
    return found


def as_0_3_3(tensors):
    return with_one_embedding(tensors) | statistics_0_3()


LAYOUTS = {
    "0.3": as_0_3,
    "0.3.3": as_0_3_3,
    "0.4": with_one_embedding,
    "without model.": lambda tensors: {name.removeprefix("model."): tensor for name, tensor in tensors.items()},
    "compiled": lambda tensors: {"_orig_mod." + name: tensor for name, tensor in tensors.items()},
}


class LeRobotTest(TemporaryFolderTest):
    def infer(self, checkpoint, size, *extra):
        output = self.folder / "answer.msgpack"
        done = run(
            "pi0", "infer", "--checkpoint-dir", checkpoint, "--precision", "float32", *one_instruction_set(),
            "--request", LEROBOT / f"request_{size}.msgpack", "--output", output, *extra,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        self.log = done.stderr
        return read(output)["actions"]

    def copy_of(self, policy):
        place = self.folder / "copy"
        shutil.rmtree(place, ignore_errors=True)
        return shutil.copytree(LEROBOT / policy / "checkpoint", place)

    def refusal(self, *arguments):
        done = run("pi0-server", "--dry-run", "--random-weights", *arguments)
        self.assertEqual(done.returncode, 1, done.stderr)
        return done.stderr

    def test_the_whole_pipeline_is_that_of_lerobot(self):
        for policy in ("pi0", "pi05"):
            for size in SIZES:
                with self.subTest(policy, size=size):
                    expected = read_tensor(LEROBOT / policy / f"expected_{size}.safetensors", "actions")
                    actions = self.infer(LEROBOT / policy / "checkpoint", size)
                    self.assertEqual(actions.shape, expected.shape)
                    self.assertLess(relative_rms(actions, expected), TOLERANCE)

    def test_every_layout_gives_the_same_bits(self):
        for policy in ("pi0", "pi05"):
            expected = self.infer(LEROBOT / policy / "checkpoint", "480x640")
            tensors = tensors_of(LEROBOT / policy / "checkpoint" / "model.safetensors")
            # Before 0.6, one name stood for both.
            tied = tensors | {HEAD: tensors[EMBEDDING]}
            for name, layout in LAYOUTS.items():
                with self.subTest(policy, layout=name):
                    place = self.copy_of(policy)
                    write_tensors(place / "model.safetensors", layout(tied))
                    np.testing.assert_array_equal(self.infer(place, "480x640"), expected)

    def test_a_folder_of_0_3(self):
        place = self.copy_of("pi0")
        tensors = tensors_of(place / "model.safetensors")
        pairs = {}
        for layer, key, file in (
            ("normalize_inputs.buffer_observation_state", "observation.state", "policy_preprocessor_step_6_normalizer"),
            ("unnormalize_outputs.buffer_action", "action", "policy_postprocessor_step_0_unnormalizer"),
        ):
            statistics = tensors_of(place / f"{file}_processor.safetensors")
            pairs |= {f"{layer}.{name}": statistics[f"{key}.{name}"] for name in ("mean", "std")}
        write_tensors(place / "model.safetensors", as_0_3(tensors | {HEAD: tensors[EMBEDDING]}) | pairs)
        for file in place.glob("policy_*"):
            file.unlink()
        config = json.loads((place / "config.json").read_text())
        for key in ("image_resolution", "paligemma_variant", "action_expert_variant", "min_period", "max_period"):
            del config[key]
        config |= {"resize_imgs_with_padding": [224, 224], "num_steps": config.pop("num_inference_steps")}
        (place / "config.json").write_text(json.dumps(config))
        # Square pictures are not padded; others have the padding at the left and at the top.
        for size, same in (("224x224", True), ("256x256", True), ("480x640", False)):
            expected = self.infer(LEROBOT / "pi0" / "checkpoint", size)
            self.assertEqual(np.array_equal(self.infer(place, size), expected), same)

    def test_versions_differ_where_lerobot_does(self):
        for policy, differing in (("pi0", ["480x640"]), ("pi05", SIZES)):
            for size in SIZES:
                later = self.infer(LEROBOT / policy / "checkpoint", size)
                earlier = self.infer(LEROBOT / policy / "checkpoint", size, "--lerobot-version", "0.4")
                self.assertEqual(np.array_equal(earlier, later), size not in differing)

    def test_served_with_lerobots_fields(self):
        request = dict(read(LEROBOT / "request_256x256.msgpack"))
        expected = read_tensor(LEROBOT / "pi05" / "expected_256x256.safetensors", "actions")
        with serve("--checkpoint-dir", LEROBOT / "pi05" / "checkpoint", "--precision", "float32") as server:
            client = WebsocketClientPolicy("127.0.0.1", server.port)
            self.assertLess(relative_rms(client.infer(request)["actions"], expected), TOLERANCE)
            request["task"] = request.pop("prompt")
            self.assertLess(relative_rms(client.infer(request)["actions"], expected), TOLERANCE)
            camera = "observation.images.left_wrist_0_rgb"
            levels = np.moveaxis(request[camera], -1, 0).astype(np.float32) / np.float32(255)
            self.assertLess(relative_rms(client.infer({**request, camera: levels})["actions"], expected), TOLERANCE)
            with self.assertRaisesRegex(RuntimeError, f"{camera}: found the level"):
                client.infer({**request, camera: levels * 255})
            del request[camera]
            with self.assertRaisesRegex(RuntimeError, f"{camera}: missing"):
                WebsocketClientPolicy("127.0.0.1", server.port).infer(request)

    def test_a_policy_file_of_ones_own(self):
        keys = {"resize": "lerobot", "padding_value": -3, "normalization": "lerobot_z_score", "clean_prompt": False}
        cameras = ["base_0_rgb", "left_wrist_0_rgb"]
        policy = keys | {
            "pi05": False, "paligemma_variant": "gemma_2b", "action_expert_variant": "gemma_300m", "action_dim": 32,
            "action_horizon": 15, "max_token_len": 48, "discrete_state_input": False, "asset_id": "mine",
            "robot": {
                "cameras": [{"input": name, "field": f"observation.images.{name}"} for name in cameras]
                + [{"input": "right_wrist_0_rgb"}],
                "image_layout": "any", "action_size": 7, "state": [{"field": "observation.state", "size": 8}],
            },
        }  # fmt: skip
        place = self.copy_of("pi0")
        shutil.copy(place / "tokenizer" / "tokenizer.model", place / "paligemma_tokenizer.model")
        stats = tensors_of(place / "policy_postprocessor_step_0_unnormalizer_processor.safetensors")

        def pick(key):
            return {name: np.frombuffer(stats[f"{key}.{name}"][2], "<f4").tolist() for name in ("mean", "std")}

        (place / "assets" / "mine").mkdir(parents=True)
        norm_stats = {"state": pick("observation.state"), "actions": pick("action")}
        (place / "assets" / "mine" / "norm_stats.json").write_text(json.dumps({"norm_stats": norm_stats}))
        file = self.folder / "mine.json"
        file.write_text(json.dumps(policy))
        expected = self.infer(place, "480x640", "--lerobot-version", "0.4")
        np.testing.assert_array_equal(self.infer(place, "480x640", "--config-file", file), expected)
        file.write_text(json.dumps(policy | {"action_horizon": 10}))
        found = self.refusal("--config-file", file, "--checkpoint-dir", place)
        self.assertIn("'chunk_size' is 15, config mine says 10", found)
        found = self.refusal("--config", "pi05_droid", "--checkpoint-dir", place)
        self.assertIn("'type' is \"pi0\", config pi05_droid says pi05", found)

    def test_the_tokenizer(self):
        expected = self.infer(LEROBOT / "pi0" / "checkpoint", "224x224")
        place = self.copy_of("pi0")
        shutil.move(place / "tokenizer" / "tokenizer.model", place / "paligemma_tokenizer.model")
        np.testing.assert_array_equal(self.infer(place, "224x224"), expected)
        self.assertIn("has no tokenizer.model; its tokenizer 'tokenizer' is taken to be", self.log)
        steps = json.loads((place / "policy_preprocessor.json").read_text())
        tokenizer = next(step for step in steps["steps"] if step["registry_name"] == "tokenizer_processor")
        del tokenizer["artifacts"]
        tokenizer["config"]["tokenizer_name"] = "bert-base"
        (place / "policy_preprocessor.json").write_text(json.dumps(steps))
        self.assertIn("tokenizer 'bert-base'", self.refusal("--checkpoint-dir", place))
        given = ["--tokenizer", place / "paligemma_tokenizer.model"]
        np.testing.assert_array_equal(self.infer(place, "224x224", *given), expected)

    def test_refusals(self):
        place = self.copy_of("pi05")
        self.assertIn("needs a LeRobot checkpoint", self.refusal("--lerobot-version", "0.4", "--checkpoint-dir", GOLDENS / "tiny_pi0"))
        config = json.loads((place / "config.json").read_text())
        (place / "config.json").write_text(json.dumps(config | {"use_visual_memory": True}))
        found = self.refusal("--checkpoint-dir", place)
        self.assertIn("config.json: 'use_visual_memory' is true, expected false: visual memory is not supported", found)
        (place / "config.json").write_text("{")
        self.assertIn("config.json: is not valid JSON", self.refusal("--checkpoint-dir", place))


if __name__ == "__main__":
    unittest.main()
