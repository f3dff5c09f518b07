"""Files of a Hugging Face model folder: `config.json` is read and written, weights are written as safetensors."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jax_attention.core.checks import check_instance
from jax_attention.core.files import replaced_file
from jax_attention.core.foreign_files import read_json
from jax_attention.core.text import list_names, quote_path
from jax_attention.interop.hf.stored_weights import INDEX, WEIGHTS, import_safetensors

CONFIG = "config.json"
MAX_CONFIG_BYTES = 16 * 2**20
"""Largest config; that of a classifier of 21,000 named classes has about a megabyte."""
MAX_SHARD_BYTES = 5 * 10**9
"""Largest file, the default of `save_pretrained` in transformers 4."""


def check_folder(path: str | Path) -> Path:
    """Check that an argument is a path."""
    return Path(check_instance("path", path, (str, os.PathLike), "the name of a folder"))


def read_config_json(folder: Path) -> dict[str, Any]:
    """The fields of `config.json`."""
    path = folder / CONFIG
    if not path.is_file():
        content = "no such folder" if not folder.is_dir() else list_names(sorted(x.name for x in folder.iterdir()))
        raise FileNotFoundError(
            f"path: expected a model folder with {CONFIG}, got {quote_path(folder)} ({content or 'empty'}). "
            "Download the whole folder of a model first."
        )
    return read_json(path, MAX_CONFIG_BYTES)


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
    content = import_safetensors().numpy.save(dict(arrays), metadata={"format": "pt"})
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


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file: whole, or not at all if that fails."""
    with replaced_file(path) as file:
        file.write(_json(data))


def _json(data: Mapping[str, Any]) -> bytes:
    return (json.dumps(data, indent=2, sort_keys=True) + "\n").encode()
