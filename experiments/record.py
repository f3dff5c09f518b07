"""What an experiment leaves behind: results.json, with everything that is needed to make it again."""

from __future__ import annotations

import dataclasses
import json
import platform
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np
from matplotlib.figure import Figure

from experiments import figures

SCRATCH = Path(".experiments")
DIGITS = 6
"""Significant digits of a written float: more than two machines agree on."""


def place(given: Any, here: Path) -> Path:
    """Where a command writes: what is committed belongs to the plain command alone.

    Args:
        given: the options, a dataclass with `out`.
        here: the experiment's folder.

    Returns:
        `given.out` if there is one; `here` if no option was given; else `.experiments/NAME`.
    """
    if given.out is not None:
        return given.out
    needed = [f for f in dataclasses.fields(given) if f.default is dataclasses.MISSING is f.default_factory]
    plain = not needed and given == type(given)()
    return here if plain else SCRATCH / here.name


def keep(
    given: Any,
    here: Path,
    config: Any,
    seeds: Sequence[int],
    numbers: dict[str, Any],
    draw: Callable[[], dict[str, Figure]],
) -> Path:
    """Write results.json, and then draw the figures, NAME.png each, into the `place` of a command, which it returns."""
    out = place(given, here)
    write(out, config, seeds, numbers)
    for name, figure in draw().items():
        figures.save(figure, out / f"{name}.png")
    return out


def write(folder: Path, config: Any, seeds: Sequence[int], numbers: dict[str, Any]) -> Path:
    """Write `folder/results.json`: config, seeds, numbers, CPU time, command, versions, device.

    Args:
        folder: made if it is not there.
        config: a frozen dataclass.
        seeds: all that the numbers depend on; empty where nothing is random.
        numbers: what was measured; arrays, also of JAX, become lists, and floats keep 6 digits.

    Returns:
        The path of the file; its `cpu_seconds` are those of the process so far, over all threads.

    Raises:
        ValueError: if a number is NaN or infinite, which JSON cannot say and no experiment should conclude from.
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
    written = json.dumps(_plain(results), indent=1, ensure_ascii=False, allow_nan=False)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.json"
    path.write_text(written + "\n", encoding="utf-8")
    return path


def _plain(x: Any) -> Any:
    """Nested dicts and lists of what JSON knows."""
    if isinstance(x, dict):
        return {str(name): _plain(item) for name, item in x.items()}
    if isinstance(x, (jax.Array, np.ndarray, np.generic)):
        return _plain(np.asarray(x).tolist())
    if isinstance(x, (list, tuple)):
        return [_plain(item) for item in x]
    return float(f"{x:.{DIGITS}g}") if isinstance(x, float) else x
