"""The weights of a folder: names, dtypes and shapes from the headers of its files first, numbers when they are read.

Safetensors in one file or in shards, a pickle, or the `flax_model.msgpack` that the Flax models of transformers wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jax_attention.core.checks import fail_unless
from jax_attention.core.foreign_files import foreign_file, read_json
from jax_attention.core.text import list_names, quote, quote_path
from jax_attention.interop.torch.tensors import import_torch, to_numpy

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
FLAX = "flax_model.msgpack"
PICKLE, PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
LFS_POINTER = b"version https://git-lfs"
MAX_HEADER_BYTES = 32 * 2**20
"""Largest header of safetensors; those of models with ten thousand arrays have about a megabyte."""
MAX_INDEX_BYTES = 32 * 2**20
FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Floating-point dtypes: name in safetensors -> name in NumPy and JAX."""


@dataclass(frozen=True)
class StoredArray:
    """An array in a file: the name of its dtype and its shape are known before its numbers are read."""

    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]

    def placeholder(self) -> np.ndarray:
        """An array of this shape that takes no memory, to try a conversion with."""
        return np.broadcast_to(np.zeros((), self.dtype), self.shape)


class Numbers(Mapping[str, np.ndarray]):
    """The numbers of stored arrays, each read when it is looked up."""

    def __init__(self, stored: Mapping[str, StoredArray]):
        self.stored = stored

    def __getitem__(self, name: str) -> np.ndarray:
        return self.stored[name].read()

    def __contains__(self, name: object) -> bool:
        return name in self.stored  # the default would read the array

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)


def open_weights(folder: Path, allow_pickle: bool) -> dict[str, StoredArray]:
    """All arrays of a folder by their names, in the dtype in which they are stored."""
    formats = (
        (WEIGHTS, INDEX, open_safetensors),
        (FLAX, f"{FLAX}.index.json", _open_flax),
        (PICKLE, PICKLE_INDEX, _open_pickle),
    )
    for whole, index, open_file in formats:
        if not (folder / whole).is_file() and not (folder / index).is_file():
            continue
        if open_file is _open_pickle and not allow_pickle:
            raise ValueError(
                f"path: expected safetensors, got pickled weights in {quote_path(folder)}. A pickle may run any "
                "code; if you trust it, pass allow_pickle=True, which reads it by torch.load(weights_only=True)."
            )
        is_whole = (folder / whole).is_file()
        arrays = open_file(folder / whole) if is_whole else _open_shards(folder, index, open_file)
        fail_unless(len(arrays) > 0, f"path: expected weights in {quote_path(folder)}, got a file without arrays.")
        return arrays
    raise FileNotFoundError(f"path: expected {WEIGHTS} or {INDEX} in {quote_path(folder)}, got neither.")


def check_floats(stored: Mapping[str, StoredArray]) -> None:
    """Refuse arrays of integers, booleans or 8-bit floats: read as weights, they would be other numbers."""
    wrong = [f"{name} {x.dtype}" for name, x in stored.items() if x.dtype not in FLOATS.values()]
    fail_unless(
        not wrong,
        f"path: expected weights in {', '.join(FLOATS.values())}, got {list_names(wrong)}. Quantised weights have to "
        "be converted back first.",
    )


def _open_shards(folder: Path, index: str, open_file: Callable) -> dict[str, StoredArray]:
    places = read_json(folder / index, MAX_INDEX_BYTES).get("weight_map")
    fail_unless(
        isinstance(places, dict) and len(places) > 0 and all(isinstance(name, str) for name in places.values()),
        f"path: expected a weight_map from names of arrays to names of files in {index}, got {quote(places)}.",
    )
    files = sorted(set(places.values()))
    paths, missing = [], []
    for name in files:
        try:
            paths.append(foreign_file(folder, name, f"{index}: weight_map"))
        except FileNotFoundError:
            missing.append(name)
    if missing:
        raise FileNotFoundError(f"path: expected every shard that {index} names, got none of {list_names(missing)}.")
    arrays: dict[str, StoredArray] = {}
    for path in paths:
        arrays |= open_file(path)
    lost = sorted(places.keys() - arrays.keys())
    fail_unless(
        not lost, f"path: expected the arrays that {index} names in its shards, got none for {list_names(lost)}."
    )
    return arrays


def open_safetensors(path: Path) -> dict[str, StoredArray]:
    """All arrays of one file, whose layout the library checks as a whole."""
    safetensors = import_safetensors()
    with path.open("rb") as raw:
        start = raw.read(max(8, len(LFS_POINTER)))
    size = int.from_bytes(start[:8], "little")
    is_pointer = start == LFS_POINTER
    fail_unless(
        size <= MAX_HEADER_BYTES or is_pointer or size > path.stat().st_size,
        f"path: expected a header of at most {MAX_HEADER_BYTES:,} bytes in {quote_path(path)}, got {size:,}.",
    )
    try:
        file = safetensors.safe_open(path, framework="numpy")
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except safetensors.SafetensorError as error:
        cure = "It is a pointer of git-lfs: run git lfs pull." if is_pointer else "Download it again."
        raise ValueError(
            f"path: expected safetensors in {quote_path(path)}, got a file without ({quote(str(error), 120)}). {cure}"
        ) from None
    return {
        name: StoredArray(
            FLOATS.get(x.get_dtype(), x.get_dtype()), tuple(x.get_shape()), partial(file.get_tensor, name)
        )
        for name, x in slices.items()
    }


def _open_flax(path: Path) -> dict[str, StoredArray]:
    """Arrays that the Flax models of transformers saved, under PyTorch's names and in PyTorch's shapes.

    Every Flax kernel is the transpose of the PyTorch weight. That holds for GPT-2 too: its `Conv1D` weights are
    `[in, out]` in PyTorch, and its Flax model kept `[out, in]`.
    """
    from flax import serialization
    from flax.traverse_util import flatten_dict

    leaves = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
    arrays = {}
    try:
        for (*path_to, leaf), x in flatten_dict(serialization.msgpack_restore(path.read_bytes())).items():
            array = np.asarray(x).T if leaf == "kernel" else np.asarray(x)
            arrays[".".join((*path_to, leaves.get(leaf, leaf)))] = _in_memory(array)
    except Exception as error:  # a damaged file makes Flax, msgpack and NumPy raise almost anything
        raise ValueError(
            f"path: expected an undamaged {path.name}, a dictionary of arrays, got another file "
            f"({quote(str(error), 200)})."
        ) from None
    return arrays


def _open_pickle(path: Path) -> dict[str, StoredArray]:
    torch = import_torch()
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        arrays = {}
        for name, x in tensors.items():
            fail_unless(isinstance(name, str), "names of arrays that are no texts")
            # A view that repeats its numbers could have any size.
            fail_unless(
                x.numel() * x.element_size() <= x.untyped_storage().nbytes(), "a tensor larger than its numbers"
            )
            known = str(x.dtype).removeprefix("torch.")
            arrays[name] = StoredArray(known, tuple(x.shape), partial(to_numpy, x))
    except Exception as error:  # unpickling raises almost anything
        raise ValueError(
            f"path: expected a dictionary of tensors in {quote_path(path)}, which torch.load(weights_only=True) "
            f"reads, got another file ({quote(str(error), 200)})."
        ) from None
    return arrays


def _in_memory(array: np.ndarray) -> StoredArray:
    return StoredArray(array.dtype.name, array.shape, lambda: array)


def import_safetensors() -> Any:
    """Import safetensors, an optional dependency."""
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError(
            "safetensors: expected the package to be installed, got no such module. Run: pip install "
            "jax_attention[interop]"
        ) from None
    return safetensors
