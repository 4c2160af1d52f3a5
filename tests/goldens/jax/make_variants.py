"""Arrays saved in every way that the reader of orbax checkpoints knows, with what orbax and TensorStore read back.
python make_variants.py: writes the folders beside it. Made with jax 0.10.2, orbax-checkpoint 0.12.8, tensorstore 0.1.86."""
import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
import json
import pathlib
import shutil
import struct

import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from jax.sharding import Mesh, NamedSharding, PartitionSpec

here = pathlib.Path(__file__).parent
mesh = Mesh(np.array(jax.devices()), ("x",))


def random(*shape, dtype=np.float32):
    return np.random.default_rng(len(shape) + sum(shape)).standard_normal(shape).astype(dtype)


def split(array, *axes):
    return jax.device_put(array, NamedSharding(mesh, PartitionSpec(*axes)))


def write_safetensors(path, arrays):
    names = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
    header, data = {}, b""
    for name, array in sorted(arrays.items()):
        bytes_ = np.ascontiguousarray(array).tobytes()
        header[name] = {"dtype": names[str(array.dtype)], "shape": list(array.shape),
                        "data_offsets": [len(data), len(data) + len(bytes_)]}
        data += bytes_
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def with_orbax(name, save_args=None, **options):
    """A tree of a few arrays as openpi saves its own: under `params`, each in a `value`."""
    tree = {"stack": random(6, 4, 8), "matrix": random(12, 5), "vector": random(7), "zeros": np.zeros((3, 5), np.float32),
            "bfloat16": random(4, 6, 3, dtype=ml_dtypes.bfloat16), "float16": random(4, 6, 3, dtype=np.float16),
            "scalar": np.float32(3.5)}
    expected = {key: np.asarray(array) for key, array in tree.items()}
    tree = {key: jax.numpy.asarray(array) for key, array in tree.items()}
    # On four devices: a chunk for each.
    tree["stack_by_columns"] = split(expected["stack"], None, None, "x")
    tree["matrix_by_rows"] = split(expected["matrix"], "x")
    for key in ("stack", "matrix"):
        expected[key + ("_by_columns" if key == "stack" else "_by_rows")] = expected[key]
    tree = {"params": {"Group": {key: {"value": array} for key, array in tree.items()}}}
    folder = here / "variants" / name
    shutil.rmtree(folder, ignore_errors=True)
    args = jax.tree.map(lambda array: ocp.SaveArgs(**(save_args or {})), tree)
    ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**options)).save(folder, args=ocp.args.PyTreeSave(tree, save_args=args))
    read = ocp.Checkpointer(ocp.PyTreeCheckpointHandler()).restore(folder)["params"]["Group"]
    for key, array in expected.items():
        assert np.asarray(read[key]["value"]).tobytes() == array.tobytes(), (name, key)
    for file in ("_sharding", "_CHECKPOINT_METADATA", "commit_success.txt", "array_metadatas/process_0"):
        (folder / file).unlink()  # nothing that a reader needs
    write_safetensors(here / "variants" / "orbax.safetensors", {f"Group/{key}": array for key, array in expected.items()})


def with_tensorstore():
    """What zarr allows and orbax does not write today."""
    folder = here / "variants" / "tensorstore"
    shutil.rmtree(folder, ignore_errors=True)
    expected = {}

    def save(key, array, spec, written=None):
        store = ts.open({**spec, "kvstore": f"file://{folder}/{key}/"}, create=True).result()
        store[written or ...].write(array[written or ...]).result()
        expected[key] = store.read().result()

    def zarr2(**metadata):
        return {"driver": "zarr", "metadata": {"dtype": "<f4", **metadata}}

    def zarr3(shape, codecs, chunk, **metadata):
        return {"driver": "zarr3", "metadata": {"data_type": "float32", "shape": shape, "codecs": codecs,
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}}, **metadata}}

    def sharding(chunk, codecs, **more):
        return [{"name": "sharding_indexed", "configuration": {"chunk_shape": chunk, "codecs": codecs, **more}}]

    bytes_, zstd, crc32c = ({"name": "bytes", "configuration": {"endian": "little"}},
                            {"name": "zstd", "configuration": {"level": 3}}, {"name": "crc32c"})
    a = random(7, 5, 9)
    save("slashes", a, zarr2(shape=[7, 5, 9], chunks=[4, 3, 5], dimension_separator="/",
                             compressor={"id": "zstd", "level": 5}))
    save("raw", a, zarr2(shape=[7, 5, 9], chunks=[3, 5, 9], compressor=None))
    save("absent", a, zarr2(shape=[7, 5, 9], chunks=[4, 3, 5], compressor=None, fill_value=0), np.s_[:4, :3, :5])
    save("checksum", a, zarr3([7, 5, 9], [bytes_, zstd, crc32c], [4, 5, 4]))
    save("raw_checksum", a, zarr3([7, 5, 9], [bytes_, crc32c], [3, 2, 9],
                                  chunk_key_encoding={"name": "v2", "configuration": {"separator": "."}}))
    save("index_at_start", a, zarr3([7, 5, 9], sharding([2, 1, 3], [bytes_, zstd], index_location="start"), [4, 5, 9]))
    save("index_unchecked", a, zarr3([7, 5, 9], sharding([1, 5, 3], [bytes_, crc32c], index_codecs=[bytes_]), [4, 5, 9]))
    save("absent_in_shard", a, zarr3([7, 5, 9], sharding([1, 1, 3], [bytes_]), [4, 5, 9]), np.s_[1:4, 2:, :3])
    write_safetensors(here / "variants" / "tensorstore.safetensors", expected)


def with_a_tall_tree():
    """OCDBT with small nodes, so that it has inner ones, and several versions."""
    folder = here / "variants" / "tall"
    shutil.rmtree(folder, ignore_errors=True)
    expected = {}
    for i in range(12):
        key = f"params.Group.array_{i * 7 % 12:02}"
        expected[key.removeprefix("params.").replace(".", "/")] = array = random(2, 3 + i)
        # Without a base of its own each array is a version of the store.
        spec = {"driver": "zarr", "metadata": {"dtype": "<f4", "shape": array.shape, "compressor": None},
                "kvstore": {"driver": "ocdbt", "base": f"file://{folder}/", "path": key + "/",
                            "config": {"max_decoded_node_bytes": 700, "max_inline_value_bytes": 80}}}
        ts.open(spec, create=True).result().write(array).result()
    write_safetensors(here / "variants" / "tall.safetensors", expected)


def with_hashes(name):
    """The arrays of a whole checkpoint, as orbax reads them: FNV-1a of their bytes."""
    def hashed(data):
        value = 14695981039346656037
        for byte in data:
            value = (value ^ byte) * 1099511628211 & 0xFFFFFFFFFFFFFFFF
        return f"{value:016x}"

    read = ocp.Checkpointer(ocp.PyTreeCheckpointHandler()).restore(here / name / "params")["params"]
    arrays = {"/".join(key.key for key in path): np.asarray(array) for path, array in
              jax.tree_util.tree_flatten_with_path(read)[0]}
    arrays = {name.removesuffix("/value"): hashed(array.tobytes()) for name, array in arrays.items()}
    (here / name / "hashes.json").write_text(json.dumps(arrays, indent=1, sort_keys=True) + "\n")


with_orbax("ocdbt")
with_orbax("folders", use_ocdbt=False)
with_orbax("raw", use_compression=False)
with_orbax("small_chunks", save_args={"chunk_byte_size": 100})
with_orbax("zarr3", use_zarr3=True)
with_orbax("zarr3_folders", use_zarr3=True, use_ocdbt=False)
with_orbax("zarr3_small_chunks", save_args={"chunk_byte_size": 100}, use_zarr3=True)
with_tensorstore()
with_a_tall_tree()
with_hashes("pi05_tiny")
with_hashes("pi0_lora")
