"""Safetensors files as NumPy arrays."""

import json
import pathlib

import numpy as np


def read_tensors(path):
    """A safetensors file's tensors, all float32."""
    data = pathlib.Path(path).read_bytes()
    size = int.from_bytes(data[:8], "little")
    tensors = {}
    for name, entry in json.loads(data[8 : 8 + size]).items():
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        tensors[name] = np.frombuffer(data[begin:end], np.float32).reshape(entry["shape"])
    return tensors


def write_tensors(path, tensors):
    header, offset = {}, 0
    for name, values in tensors.items():
        dtype = {"float32": "F32", "int32": "I32"}[values.dtype.name]
        header[name] = {"dtype": dtype, "shape": values.shape, "data_offsets": [offset, offset + values.nbytes]}
        offset += values.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(values.tobytes() for values in tensors.values()))


def same(found, expected):
    """Equal in all bits, and NaN where NaN."""
    return np.all((found.view(np.int32) == expected.view(np.int32)) | (np.isnan(found) & np.isnan(expected)))
