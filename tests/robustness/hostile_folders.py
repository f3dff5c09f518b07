"""Folders of a small model that tests damage: one field of the config, one header, one file."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def copied(source: Path, target: Path) -> Path:
    """A copy of a model folder, to be changed."""
    shutil.copytree(source, target)
    return target


def change_json(folder: Path, file: str = "config.json", **fields) -> None:
    """Set fields of a JSON file; a value of `...` removes one."""
    content = json.loads((folder / file).read_text()) | fields
    (folder / file).write_text(json.dumps({name: x for name, x in content.items() if x is not ...}))


def change_arrays(folder: Path, change) -> None:
    """Write the arrays that `change(arrays)` gives."""
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)


def with_header(folder: Path, header: object, content: bytes = b"") -> None:
    """Replace the weights by a header of any JSON and these bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + content)


def with_index(folder: Path, weight_map: object) -> None:
    """Replace the weights by an index of shards."""
    os.rename(folder / WEIGHTS, folder / "part.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def with_dtype(folder: Path, name: str, dtype: str, itemsize: int) -> None:
    """Store one array under another dtype, bytes of zeros."""
    arrays = load_file(folder / WEIGHTS)
    header, offset = {}, 0
    for key, x in arrays.items():
        stored, size = (dtype, x.size * itemsize) if key == name else ("F32", x.nbytes)
        header[key] = {"dtype": stored, "shape": list(x.shape), "data_offsets": [offset, offset + size]}
        offset += size
    with_header(folder, header, bytes(offset))


def as_array(x: object) -> np.ndarray:
    """A float32 array."""
    return np.asarray(x, np.float32)
