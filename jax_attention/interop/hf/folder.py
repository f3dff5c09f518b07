"""Files of a Hugging Face model folder: `config.json`, and weights as safetensors in one file or in shards, as a
pickle, or as the `flax_model.msgpack` that the Flax models of transformers wrote.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jax_attention.core.checks import check_instance
from jax_attention.core.files import replaced_file
from jax_attention.interop.torch.tensors import import_torch, to_numpy

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
LFS_POINTER = b"version https://git-lfs"
FLAX = "flax_model.msgpack"
PICKLE, PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
MAX_SHARD_BYTES = 5 * 10**9
"""Largest file, the default of `save_pretrained` in transformers 4."""


def check_folder(path: str | Path) -> Path:
    """Check that an argument is a path."""
    return Path(check_instance("path", path, (str, os.PathLike), "the name of a folder"))


def read_config_json(folder: Path) -> dict[str, Any]:
    """The fields of `config.json`."""
    path = folder / CONFIG
    if not path.is_file():
        content = "no such folder" if not folder.is_dir() else ", ".join(sorted(x.name for x in folder.iterdir())[:8])
        raise FileNotFoundError(
            f"path: expected a model folder with {CONFIG}, got {str(folder)!r} ({content or 'empty'}). Download the "
            "whole folder of a model first."
        )
    return read_json(path)


def read_weights(folder: Path, allow_pickle: bool) -> dict[str, np.ndarray]:
    """All arrays by their names, in the dtype in which they are stored."""
    formats = (
        (WEIGHTS, INDEX, read_safetensors),
        (FLAX, f"{FLAX}.index.json", _read_flax),
        (PICKLE, PICKLE_INDEX, _read_pickle),
    )
    for whole, index, read in formats:
        if not (folder / whole).is_file() and not (folder / index).is_file():
            continue
        if read is _read_pickle and not allow_pickle:
            raise ValueError(
                f"path: expected safetensors, got pickled weights in {str(folder)!r}. A pickle may run any code; if "
                "you trust it, pass allow_pickle=True, which reads it by torch.load(weights_only=True)."
            )
        if (folder / whole).is_file():
            return read(folder / whole)
        return _read_shards(folder, index, read)
    raise FileNotFoundError(f"path: expected {WEIGHTS} or {INDEX} in {str(folder)!r}, got neither.")


def _read_shards(folder: Path, index: str, read: Any) -> dict[str, np.ndarray]:
    places: dict[str, str] = read_json(folder / index)["weight_map"]
    files = sorted(set(places.values()))
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"path: expected every shard that {index} names, got none of {', '.join(missing)}.")
    arrays: dict[str, np.ndarray] = {}
    for name in files:
        arrays |= read(folder / name)
    lost = sorted(places.keys() - arrays.keys())
    if lost:
        raise ValueError(
            f"path: expected the arrays that {index} names in its shards, got none for {', '.join(lost[:8])}."
        )
    return arrays


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """All arrays of one file, bfloat16 too."""
    safetensors = _import_safetensors()
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except safetensors.SafetensorError as error:
        with path.open("rb") as raw:
            pointer = raw.read(len(LFS_POINTER)) == LFS_POINTER
        cure = "It is a pointer of git-lfs: run git lfs pull." if pointer else "Download it again."
        raise ValueError(f"path: expected safetensors in {str(path)!r}, got a file without ({error}). {cure}") from None


def _read_flax(path: Path) -> dict[str, np.ndarray]:
    """Arrays that the Flax models of transformers saved, under PyTorch's names and in PyTorch's shapes.

    Every Flax kernel is the transpose of the PyTorch weight. That holds for GPT-2 too: its `Conv1D` weights are
    `[in, out]` in PyTorch, and its Flax model kept `[out, in]`.
    """
    from flax import serialization
    from flax.traverse_util import flatten_dict

    leaves = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
    arrays = {}
    try:
        nested = serialization.msgpack_restore(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"path: expected an undamaged {path.name}, got another file ({error}).") from None
    for (*path_to, leaf), x in flatten_dict(nested).items():
        name = ".".join((*path_to, leaves.get(leaf, leaf)))
        arrays[name] = np.asarray(x).T if leaf == "kernel" else np.asarray(x)
    return arrays


def _read_pickle(path: Path) -> dict[str, np.ndarray]:
    return {name: to_numpy(x) for name, x in import_torch().load(path, map_location="cpu", weights_only=True).items()}


def write_folder(
    folder: Path, config: Mapping[str, Any], weights: Mapping[str, np.ndarray], max_shard_bytes: int
) -> None:
    """Write shards of at most that many bytes, their index if there are several, and the config.

    The config comes last and is encoded first: a folder without `config.json` is no model, so neither a config that
    JSON cannot express nor an interrupted write leaves a folder that looks whole.
    """
    config_bytes = _json(config)
    make_folder(folder)
    taken = [name for name in (CONFIG, WEIGHTS, INDEX) if (folder / name).exists()]
    if taken:
        raise FileExistsError(f"path: expected a folder without a model, got {', '.join(taken)} in {str(folder)!r}.")
    groups = _split_into_shards(weights, max_shard_bytes)
    names = (
        [WEIGHTS]
        if len(groups) == 1
        else [f"model-{i:05}-of-{len(groups):05}.safetensors" for i in range(1, len(groups) + 1)]
    )
    for name, group in zip(names, groups, strict=True):
        write_safetensors(folder / name, group)
    if len(groups) > 1:
        places = {key: name for name, group in zip(names, groups, strict=True) for key in group}
        size = sum(x.nbytes for x in weights.values())
        write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": places})
    with replaced_file(folder / CONFIG) as file:
        file.write(config_bytes)


def make_folder(folder: Path) -> None:
    """Make a folder, or keep one that exists."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise FileExistsError(f"path: expected a folder, got {str(folder)!r}, where a file is in the way.") from None


def write_safetensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """One file. transformers refuses a file whose metadata has no format."""
    content = _import_safetensors().numpy.save(dict(arrays), metadata={"format": "pt"})
    with replaced_file(path) as file:
        file.write(content)


def _split_into_shards(weights: Mapping[str, np.ndarray], max_shard_bytes: int) -> list[dict[str, np.ndarray]]:
    """Arrays in order, as many in each shard as fit; an array that is larger than a shard has one of its own."""
    shards: list[dict[str, np.ndarray]] = [{}]
    size = 0
    for name, x in weights.items():
        if shards[-1] and size + x.nbytes > max_shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = np.ascontiguousarray(x)
        size += x.nbytes
    return shards


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"path: expected JSON in {str(path)!r}, got something else ({error}).") from None
    if not isinstance(content, dict):
        raise ValueError(f"path: expected an object in {str(path)!r}, got a {type(content).__name__}.")
    return content


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file: whole, or not at all if that fails."""
    with replaced_file(path) as file:
        file.write(_json(data))


def _json(data: Mapping[str, Any]) -> bytes:
    return (json.dumps(data, indent=2, sort_keys=True) + "\n").encode()


def _import_safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError(
            "safetensors: expected the package to be installed, got no such module. Run: pip install "
            "jax_attention[interop]"
        ) from None
    return safetensors
