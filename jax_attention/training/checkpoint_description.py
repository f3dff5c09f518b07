"""The description in a checkpoint's metadata: which run and step, which metrics, and name, shape and checksum of each
array. It is checked when it is read, because a bit may have flipped or another program may have written it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.core.checks import describe_array, fail_unless
from jax_attention.core.text import quote
from jax_attention.core.tree_paths import list_differences
from jax_attention.training.host_arrays import checksum, is_key

FORMAT = "jax_attention.training/1"
"""Marker in the metadata of checkpoints written here, which those of other programs lack."""


class DamagedCheckpoint(ValueError):
    """Error for a checkpoint whose files changed since they were written; `reason` is the message without the cure."""

    def __init__(self, reason: str, cure: str = ""):
        super().__init__(f"{reason} {cure}".rstrip())
        self.reason = reason


def describe_checkpoint(
    step: int, named: Mapping[str, Any], arrays: Mapping[str, np.ndarray], metrics: Any, extra: Any, run: str | None
) -> dict[str, Any]:
    """The description of a state: `named` are its leaves, `arrays` the same on the host."""
    description = {
        "format": FORMAT,
        "step": step,
        "metrics": {name: float(value) for name, value in (metrics or {}).items()},
        "extra": _as_json(extra or {}),
        "leaves": {name: _describe(named[name], arrays[name]) for name in named},
    } | ({} if run is None else {"run": run})
    return description | {"crc32": _checksum(description)}


def _checksum(description: Mapping[str, Any]) -> int:
    """CRC-32 of a description without its checksum; Orbax stores it without one."""
    contents = {name: x for name, x in description.items() if name != "crc32"}
    return zlib.crc32(json.dumps(contents, sort_keys=True).encode())


def _as_json(extra: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(dict(extra)))
    except TypeError as error:
        raise TypeError(
            f"extra: expected data that JSON can hold, got {extra!r} ({error}). Convert it first."
        ) from None


def _describe(leaf: Any, array: np.ndarray) -> dict[str, Any]:
    """Describe a leaf: `is` is compared with the example, the other entries are needed to read the array."""
    impl = str(jax.random.key_impl(leaf)) if is_key(leaf) else None
    entry = {"is": describe_array(leaf), "impl": impl}
    return entry | {"words": str(array.dtype), "stored": list(array.shape), "crc32": checksum(array)}


def check_description(description: Any, path: Path, others: str) -> dict[str, Any]:
    """Return a description as `describe_checkpoint` makes it; raise for anything else."""
    written_format = description.get("format") if isinstance(description, dict) else None
    if written_format != FORMAT:
        raise DamagedCheckpoint(
            f"checkpoint {path}: expected one written by jax_attention ({FORMAT}), got {quote(written_format)}: "
            "written by another program, or its metadata is damaged.",
            others,
        )
    if not _is_whole(description):
        raise DamagedCheckpoint(f"checkpoint {path}: expected metadata as they were written, got damaged ones.", others)
    return description


def _is_whole(x: dict[str, Any]) -> bool:
    kinds = {"step": int, "metrics": dict, "extra": dict, "leaves": dict}
    return (
        all(isinstance(x.get(name), kind) for name, kind in kinds.items())
        and all(isinstance(value, (int, float)) for value in x["metrics"].values())
        and isinstance(x.get("run", ""), str)
        and x.get("crc32", _checksum(x)) == _checksum(x)  # absent before version 0.2
        and all(map(_is_leaf, x["leaves"].values()))
    )


def _is_leaf(x: Any) -> bool:
    kinds = {"is": str, "words": str, "stored": list, "crc32": int, "impl": (str, type(None))}
    return (
        isinstance(x, dict)
        and all(isinstance(x.get(name), kind) for name, kind in kinds.items())
        and all(isinstance(size, int) and size >= 0 for size in x["stored"])
        and _is_dtype(x["words"])
    )


def _is_dtype(name: str) -> bool:
    try:
        jnp.dtype(name)
    except TypeError:
        return False
    return True


def check_identity(description: Mapping[str, Any], path: Path, step: int, run: str | None, adopted: Any) -> None:
    """Refuse the checkpoint of another step under this name, or of another run."""
    fail_unless(
        description["step"] == step,
        f"checkpoint {path}: expected that of step {step}, got that of step {description['step']}: the folder was "
        f"renamed or copied. Give it its old name, {description['step']}.",
    )
    of = description.get("run")
    if run is None or of == run or (of is None and step in adopted):
        return
    raise ValueError(
        f"checkpoint {path}: expected one of run {run}, got one of {'no run' if of is None else f'run {quote(of)}'}: "
        "it was copied from elsewhere. Put the right one back, or move it away."
    )


def check_same_leaves(path: Path, example: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose names, shapes or dtypes differ from those of the example."""
    expected = {name: describe_array(leaf) for name, leaf in example.items()}
    lines = list_differences(expected, {name: x["is"] for name, x in saved.items()})
    more = f"\n  and {len(lines) - 5} more" if len(lines) > 5 else ""
    fail_unless(
        not lines,
        f"like: expected a checkpoint with the leaves of the example, got {path} with {len(lines)} differences:\n  "
        + "\n  ".join(lines[:5])
        + f"{more}\nBuild the example from the configuration that the checkpoint was trained with.",
    )
