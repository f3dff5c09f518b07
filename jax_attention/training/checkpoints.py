"""Checkpoints of a training state on disk: written whole or not at all; the newest few and the best one are kept.

Orbax writes the arrays in the background, under a temporary name that is changed to the step when all is on disk.
This module adds four things. A state is saved as nested dictionaries of host arrays, so that an example `like` restores
any pytree on any number of devices. Differences between the example and the checkpoint are listed by name. A checksum
per array finds flipped bits, which Orbax reads back without an error. Old checkpoints are renamed before they are
deleted, so that a kill in the middle leaves no incomplete one.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import math
import shutil
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.core.checks import check_int, describe_array, fail_unless
from jax_attention.core.tree_paths import flatten, leaves_by_path, list_differences, nest
from jax_attention.training.host_arrays import checksum, is_key, to_device, to_host

FORMAT = "jax_attention.training/1"
"""Marker in the metadata of checkpoints written here, which those of other programs lack."""
METADATA = "_CHECKPOINT_METADATA"
"""File that Orbax writes into a complete checkpoint."""
UNFINISHED = ".orbax-checkpoint-tmp"
"""End of the temporary name of a folder that Orbax is writing."""
DELETED = ".deleted"
"""End of the name of a folder that is being deleted."""


class Checkpoints:
    """The checkpoints of one run, `folder/<step>`, with at most one writer at a time.

        kept = newest `keep` steps  |  { argmin over steps of metrics[best] }

    Args:
        folder: the folder of the checkpoints; made by the first save.
        keep: the number of newest checkpoints that are kept.
        best: the metric of `save` whose smallest finite value marks one more checkpoint to keep; None for none.

    Returns:
        An object with `save`, `wait`, `restore`, `read`, and the properties `steps`, `latest`, `best`.

    Raises:
        ValueError: if `keep` is smaller than 1.
        TypeError: if `keep` is not an int.
        ImportError: by the methods, if Orbax is not installed.

    Example:
        >>> import tempfile
        >>> import jax, jax.numpy as jnp
        >>> from jax_attention import training
        >>> state = {"w": jnp.ones(2), "rng": jax.random.key(0)}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     checkpoints = training.Checkpoints(folder, keep=1, best="loss")
        ...     for step, loss in ((10, 2.0), (20, 1.0), (30, 1.5)):
        ...         checkpoints.save(step, state, metrics={"loss": loss})
        ...     checkpoints.steps, checkpoints.latest, checkpoints.best
        ...     checkpoints.restore(20, like=state)["w"]
        ([20, 30], 30, 20)
        Array([1., 1.], dtype=float32)

    Reference:
        https://orbax.readthedocs.io/en/latest/guides/checkpoint/v1/checkpoint_format.html
    """

    def __init__(self, folder: str | Path, *, keep: int = 3, best: str | None = "loss"):
        self.folder = Path(folder).absolute()
        self.keep = check_int("keep", keep, 1, "It is the number of newest checkpoints that are kept.")
        self.metric = best
        self._pending: Any = None
        self._leftovers_removed = False
        self._descriptions: dict[int, dict[str, Any]] = {}

    @property
    def steps(self) -> list[int]:
        """The steps of all complete checkpoints, ascending. Waits for an unfinished save."""
        self.wait()
        return self._complete_steps()

    @property
    def latest(self) -> int | None:
        """The newest step, or None."""
        return max(self.steps, default=None)

    @property
    def best(self) -> int | None:
        """The step with the smallest finite metric, the newest of equal ones; None if there is no finite one."""
        metrics = {step: self.read(step)["metrics"].get(self.metric) for step in self.steps}
        finite = {step: x for step, x in metrics.items() if x is not None and math.isfinite(x)}
        return min(finite, key=lambda step: (finite[step], -step), default=None)

    def save(
        self,
        step: int,
        state: Any,
        *,
        metrics: Mapping[str, float] | None = None,
        extra: Mapping[str, Any] | None = None,
        wait: bool = False,
    ) -> None:
        """Save a pytree of arrays as `folder/<step>`.

        Returns when the arrays are copied to the host, so `state` may be donated at once. The files are written in the
        background. An unfinished earlier save is finished first, and a program that ends waits for the last one.

        Args:
            step: the number of updates done, which names the checkpoint; `>= 0`.
            state: any pytree of jax or NumPy arrays, nnx modules and typed random keys included.
            metrics: numbers to compare checkpoints by.
            extra: anything that JSON can hold, returned by `read`.
            wait: return only when everything is on disk.

        Raises:
            FileExistsError: if a file or folder of that step exists.
            TypeError: if a leaf is not an array, or `extra` is not JSON.
            ValueError: if two leaves have the same name.
        """
        check_int("step", step, 0, "It is the number of updates done.")
        self.wait()
        path = self.folder / str(step)
        if path.exists():
            raise FileExistsError(
                f"step: expected a step that is not saved yet, got {step}, and {path} exists. Nothing was written. "
                "Restore it and go on from there, or choose another folder."
            )
        named = leaves_by_path(state)
        arrays = {name: to_host(leaf) for name, leaf in named.items()}
        description = {
            "format": FORMAT,
            "step": step,
            "metrics": {name: float(value) for name, value in (metrics or {}).items()},
            "extra": _as_json(extra or {}),
            "leaves": {name: _describe(named[name], arrays[name]) for name in named},
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_leftovers()
        # Orbax refuses arrays without elements. Their shapes, all that they have, are in the description.
        tree = nest({name: array for name, array in arrays.items() if array.size}, "/")
        self._pending = _orbax().save_async(path, tree, custom_metadata=description)
        if wait:
            self.wait()

    def wait(self) -> None:
        """Finish an unfinished save, then delete the checkpoints that need not be kept.

        Raises:
            OSError: or another error of the background write, for example on a full disk.
        """
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        pending.result()
        steps = self._complete_steps()
        for step in set(steps[: -self.keep]) - {self.best if self.metric else None}:
            self._delete(self.folder / str(step))
            self._descriptions.pop(step, None)

    def read(self, step: int | None = None) -> dict[str, Any]:
        """Read everything but the arrays: `step`, `metrics`, `extra` and a description of the `leaves`.

        Args:
            step: the step of the checkpoint; the newest if None.

        Raises:
            FileNotFoundError: if there is no such checkpoint.
            ValueError: if it is damaged, or was written by another program.
        """
        self.wait()
        step = self._find_step(step)
        if step not in self._descriptions:
            path = self.folder / str(step)
            with _short_errors(path):
                description = _orbax().metadata(path).custom_metadata
            written_format = description.get("format") if isinstance(description, dict) else None
            fail_unless(
                written_format == FORMAT and "leaves" in description,
                f"checkpoint {path}: expected one written by jax_attention ({FORMAT}), got {written_format!r}: written "
                f"by another program, or its metadata is damaged. {self._describe_others(step)}",
            )
            self._descriptions[step] = description
        return self._descriptions[step]

    def restore(self, step: int | None = None, *, like: Any, part: str | None = None) -> Any:
        """Restore the saved pytree, bit for bit, with the structure and on the devices of `like`.

        Args:
            step: the step of the checkpoint; the newest if None.
            like: an example of the result: arrays, or the output of `jax.eval_shape`. Its shardings, if any, say where
                the arrays go, whatever devices they were saved from.
            part: the name of a part of the state, such as `"model"`, if `like` is an example of that part alone.

        Returns:
            A pytree like `like`.

        Raises:
            FileNotFoundError: if there is no such checkpoint.
            ValueError: if names, shapes or dtypes differ (the first few are listed), or if the checkpoint is damaged or
                was written by another program.
        """
        self.wait()
        step = self._find_step(step)
        description, path = self.read(step), self.folder / str(step)
        example = leaves_by_path(like)
        if part is not None:
            example = {f"{part}/{name}": leaf for name, leaf in example.items()}
        saved = {name: x for name, x in description["leaves"].items() if part is None or name.startswith(f"{part}/")}
        _check_same_leaves(path, example, saved)
        arrays = self._load(path, description["leaves"], set(example))
        for name, array in arrays.items():
            fail_unless(
                checksum(array) == saved[name]["crc32"],
                f"checkpoint {path}: expected checksum {saved[name]['crc32']} of {name}, got {checksum(array)}: the "
                f"file is damaged. {self._describe_others(description['step'])}",
            )
        placed = [to_device(arrays[name], leaf, saved[name]["impl"]) for name, leaf in example.items()]
        return jax.tree.unflatten(jax.tree.structure(like), placed)

    def _load(self, path: Path, table: dict[str, Any], names: set[str]) -> dict[str, np.ndarray]:
        """Load the named arrays from disk; `...` in the example makes Orbax skip an array."""
        nonempty = {name: x for name, x in table.items() if math.prod(x["stored"]) > 0}
        # One element, broadcast: an example of the right shape that takes no memory.
        example = {
            name: np.broadcast_to(np.zeros((), jnp.dtype(x["words"])), x["stored"]) if name in names else ...
            for name, x in nonempty.items()
        }
        loaded = {}
        if names & set(nonempty):
            with _short_errors(path):
                loaded = flatten(_orbax().load(path, nest(example, "/")), "/")
        empty = {
            name: np.zeros(table[name]["stored"], jnp.dtype(table[name]["words"])) for name in names - set(nonempty)
        }
        return {name: loaded[name] if name in nonempty else empty[name] for name in names}

    def _complete_steps(self) -> list[int]:
        """Steps of the folders that are named by a number and contain Orbax's metadata, ascending.

        `orbax.is_orbax_checkpoint` is not used: it takes an empty folder for a checkpoint.
        """
        if not self.folder.is_dir():
            return []
        numbered = [path for path in self.folder.iterdir() if path.name.isascii() and path.name.isdigit()]
        return sorted(int(path.name) for path in numbered if (path / METADATA).is_file())

    def _find_step(self, step: int | None) -> int:
        steps = self._complete_steps()
        if step is None and steps:
            return steps[-1]
        if step in steps:
            return step
        content = ", ".join(sorted(path.name for path in self.folder.iterdir())[:5]) if self.folder.is_dir() else ""
        expected = "a complete checkpoint" if step is None else f"a complete checkpoint of step {step}"
        got = f"the steps {steps}" if steps else f"none (the folder holds {content})" if content else "none"
        raise FileNotFoundError(
            f"folder: expected {expected} in {self.folder}, got {got}. Give the folder that training wrote "
            "checkpoints to, or start without resuming."
        )

    def _describe_others(self, step: int) -> str:
        others = [other for other in self._complete_steps() if other != step]
        return (
            f"Other steps here: {others}; restore one of them by its number." if others else "There is no other here."
        )

    def _remove_leftovers(self) -> None:
        """Remove folders that a killed run left incomplete. Once per object, as none appear while it lives."""
        for path in () if self._leftovers_removed else list(self.folder.iterdir()):
            if path.is_dir() and path.name.endswith((UNFINISHED, DELETED)):
                shutil.rmtree(path)
        self._leftovers_removed = True

    @staticmethod
    def _delete(path: Path) -> None:
        # Renaming is atomic, deleting a folder is not: a kill in between would leave an incomplete checkpoint.
        shutil.rmtree(path.rename(path.with_name(path.name + DELETED)))


def _orbax() -> Any:
    try:
        from orbax.checkpoint import v1
    except ImportError as error:
        raise ImportError(
            "Checkpoints: expected the package orbax-checkpoint, got none. Install it: pip install "
            "'jax_attention[train]'."
        ) from error
    return v1


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


def _check_same_leaves(path: Path, example: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
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


@contextlib.contextmanager
def _short_errors(path: Path) -> Iterator[None]:
    """Turn an error while reading into one clear error, and silence the pages that Orbax logs about storage details."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    except Exception as error:  # Which types Orbax and TensorStore raise for broken files is not documented.
        reason = " ".join(str(error).split())[:200]
        # Abandoned tasks of Orbax log an error when they are collected: collect them now, while the loggers are off.
        traceback.clear_frames(error.__traceback__)
        gc.collect()
        raise ValueError(
            f"checkpoint {path}: expected files as Orbax wrote them, got {type(error).__name__}: {reason}. The "
            "checkpoint is damaged or incomplete; restore another step by its number."
        ) from None
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled
