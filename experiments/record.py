"""results.json, which holds the numbers of an experiment and everything that is needed to measure them again."""

from __future__ import annotations

import dataclasses
import json
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np

DIGITS = 6
"""Significant digits of a float in results.json. Two machines do not agree on more."""


def write_results(folder: Path, config: Any, seeds: Sequence[int], numbers: dict[str, Any]) -> Path:
    """Write `folder/results.json`: config, seeds, numbers, CPU time, command, versions, device.

    Args:
        folder: created if it does not exist.
        config: a frozen dataclass.
        seeds: all seeds that the numbers depend on; empty if nothing is random.
        numbers: measured numbers. Arrays of NumPy and JAX become lists, floats keep 6 significant digits.

    Returns:
        Path of the file. Its `cpu_seconds` count the whole process so far, over all threads.

    Raises:
        ValueError: if a number is NaN or infinite: JSON cannot hold it, and no experiment should conclude from it.
    """
    results = {
        "config": dataclasses.asdict(config),
        "seeds": list(seeds),
        "numbers": numbers,
        "cpu_seconds": time.process_time(),
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "versions": {"jax": jax.__version__, "flax": flax.__version__, "python": platform.python_version()},
        "device": jax.devices()[0].device_kind,
    }
    text = json.dumps(_to_json(results), indent=1, ensure_ascii=False, allow_nan=False)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.json"
    path.write_text(text + "\n", encoding="utf-8")
    return path


def _to_json(x: Any) -> Any:
    """Replace arrays, tuples and NumPy numbers by the types that JSON has, in nested containers too."""
    if isinstance(x, dict):
        return {str(name): _to_json(item) for name, item in x.items()}
    if isinstance(x, (jax.Array, np.ndarray, np.generic)):
        return _to_json(np.asarray(x).tolist())
    if isinstance(x, (list, tuple)):
        return [_to_json(item) for item in x]
    return float(f"{x:.{DIGITS}g}") if isinstance(x, float) else x
