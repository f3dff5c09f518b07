"""Checkpoints of a training state on disk: written whole or not at all, the newest few and the best kept.

Orbax writes the arrays (in the background, under a temporary name that becomes the step's name when all is on disk).
Around it stand four things it leaves to its users: a state is saved as plain nested dictionaries of host arrays, so any
pytree comes back by an example `like` on any number of devices; differences between the two are listed by name; a
checksum per array catches flipped bits, which Orbax reads back without complaint; and old checkpoints are renamed
before they are deleted, so that a kill in the middle leaves none that is half there.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import math
import shutil
import traceback
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.core.checks import check_int, describe_array, fail_unless
from jax_attention.core.tree_paths import flatten, leaves_by_path, list_differences, nest
from jax_attention.training.host_arrays import is_key, to_device, to_host

FORMAT = "jax_attention.training/1"
"""What the metadata of our checkpoints says; another program's checkpoint does not."""
METADATA = "_CHECKPOINT_METADATA"
UNFINISHED = ".orbax-checkpoint-tmp"
DELETED = ".deleted"


class Checkpoints:
    """The checkpoints of one run: `folder/<step>`, at most one writer at a time.

        kept = newest `keep` steps  |  { argmin over steps of metrics[best] }

    Args:
        folder: where they are; made by the first save.
        keep: how many of the newest stay.
        best: the metric, given to `save`, whose smallest finite value marks one more checkpoint to keep; None for none.

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
        self.keep = check_int("keep", keep, 1, "It is the number of newest checkpoints that stay.")
        self.metric = best
        self._pending: Any = None
        self._swept = False
        self._seen: dict[int, dict[str, Any]] = {}

    @property
    def steps(self) -> list[int]:
        """The steps of all complete checkpoints, ascending. Waits for a save under way."""
        self.wait()
        return self._complete()

    @property
    def latest(self) -> int | None:
        """The newest step, or None."""
        return max(self.steps, default=None)

    @property
    def best(self) -> int | None:
        """The step with the smallest finite value of the metric, the newest such; None if no checkpoint has one."""
        values = {step: self.read(step)["metrics"].get(self.metric) for step in self.steps}
        finite = {step: value for step, value in values.items() if value is not None and math.isfinite(value)}
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

        Returns when the arrays are copied to the host, so `state` may be donated at once; writing goes on in the
        background. A save still under way is finished first. A program that ends waits for the last one.

        Args:
            step: the name, `>= 0`; updates done so far.
            state: any pytree of jax or NumPy arrays, nnx modules and typed random keys included.
            metrics: numbers to judge the checkpoint by.
            extra: whatever JSON can hold, for `read`.
            wait: return only when everything is on disk.

        Raises:
            FileExistsError: if there is something at that step already.
            TypeError: if a leaf is not an array, or `extra` is not JSON.
            ValueError: if two leaves have one name.
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
        about = {
            "format": FORMAT,
            "step": step,
            "metrics": {name: float(value) for name, value in (metrics or {}).items()},
            "extra": _json(extra or {}),
            "leaves": {name: _describe(named[name], arrays[name]) for name in named},
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        self._sweep()
        # Orbax refuses arrays without elements; their shapes are in the description, and that is all they have.
        tree = nest({name: array for name, array in arrays.items() if array.size}, "/")
        self._pending = _orbax().save_async(path, tree, custom_metadata=about)
        if wait:
            self.wait()

    def wait(self) -> None:
        """Finish the save under way, then delete what need not be kept.

        Raises:
            OSError: or whatever else went wrong in the background, for example a full disk.
        """
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        pending.result()
        steps = self._complete()
        for step in set(steps[: -self.keep]) - {self.best if self.metric else None}:
            self._delete(self.folder / str(step))
            self._seen.pop(step, None)

    def read(self, step: int | None = None) -> dict[str, Any]:
        """What was saved beside the arrays: `step`, `metrics`, `extra` and a description of the `leaves`.

        Args:
            step: which checkpoint; the newest if None.

        Raises:
            FileNotFoundError: if there is no such checkpoint.
            ValueError: if it is damaged, or was not written by this class.
        """
        self.wait()
        step = self._find(step)
        if step not in self._seen:
            path = self.folder / str(step)
            with _explained(path):
                about = _orbax().metadata(path).custom_metadata
            fail_unless(
                isinstance(about, dict) and about.get("format") == FORMAT and "leaves" in about,
                f"checkpoint {path}: expected one written by jax_attention ({FORMAT}), got "
                f"{about.get('format') if isinstance(about, dict) else None!r}: foreign, or its metadata is damaged. "
                f"{self._others(step)}",
            )
            self._seen[step] = about
        return self._seen[step]

    def restore(self, step: int | None = None, *, like: Any, part: str | None = None) -> Any:
        """The saved pytree, bit for bit, with the structure and on the devices of `like`.

        Args:
            step: which checkpoint; the newest if None.
            like: an example of the result: arrays, or what `jax.eval_shape` makes. Its shardings, where given, say
                where the arrays go, whatever devices they were saved from.
            part: the name of a part of what was saved, `"model"`, if `like` is an example of that part alone.

        Returns:
            A pytree like `like`.

        Raises:
            FileNotFoundError: if there is no such checkpoint.
            ValueError: if names, shapes or dtypes differ (the first few are listed), the checkpoint is damaged, or was
                not written by this class.
        """
        self.wait()
        step = self._find(step)
        about, path = self.read(step), self.folder / str(step)
        wanted = leaves_by_path(like)
        if part is not None:
            wanted = {f"{part}/{name}": leaf for name, leaf in wanted.items()}
        saved = {name: x for name, x in about["leaves"].items() if part is None or name.startswith(f"{part}/")}
        _compare(path, wanted, saved)
        arrays = self._load(path, about["leaves"], set(wanted))
        for name, array in arrays.items():
            fail_unless(
                _checksum(array) == saved[name]["crc32"],
                f"checkpoint {path}: expected checksum {saved[name]['crc32']} of {name}, got {_checksum(array)}: the "
                f"file is damaged. {self._others(about['step'])}",
            )
        placed = [to_device(arrays[name], leaf, saved[name]["impl"]) for name, leaf in wanted.items()]
        return jax.tree.unflatten(jax.tree.structure(like), placed)

    def _load(self, path: Path, table: dict[str, Any], wanted: set[str]) -> dict[str, np.ndarray]:
        """The wanted arrays from disk; `...` tells Orbax to leave out the others."""
        filled = {name: x for name, x in table.items() if math.prod(x["stored"]) > 0}
        # An example of the right shape that takes no memory: one element, broadcast.
        example = {
            name: np.broadcast_to(np.zeros((), jnp.dtype(x["words"])), x["stored"]) if name in wanted else ...
            for name, x in filled.items()
        }
        loaded = {}
        if wanted & set(filled):
            with _explained(path):
                loaded = flatten(_orbax().load(path, nest(example, "/")), "/")
        empty = {
            name: np.zeros(table[name]["stored"], jnp.dtype(table[name]["words"])) for name in wanted - set(filled)
        }
        return {name: loaded[name] if name in filled else empty[name] for name in wanted}

    def _complete(self) -> list[int]:
        """Folders named by a number with Orbax's metadata; anything else in the folder is none of our business.

        (`orbax.is_orbax_checkpoint` takes an empty folder for a checkpoint.)
        """
        if not self.folder.is_dir():
            return []
        named = [path for path in self.folder.iterdir() if path.name.isascii() and path.name.isdigit()]
        return sorted(int(path.name) for path in named if (path / METADATA).is_file())

    def _find(self, step: int | None) -> int:
        steps = self._complete()
        if step is None and steps:
            return steps[-1]
        if step in steps:
            return step
        held = ", ".join(sorted(path.name for path in self.folder.iterdir())[:5]) if self.folder.is_dir() else ""
        what = "a complete checkpoint" if step is None else f"a complete checkpoint of step {step}"
        got = f"the steps {steps}" if steps else f"none (the folder holds {held})" if held else "none"
        raise FileNotFoundError(
            f"folder: expected {what} in {self.folder}, got {got}. Give the folder that training wrote its checkpoints "
            "to, or start without resuming."
        )

    def _others(self, step: int) -> str:
        rest = [other for other in self._complete() if other != step]
        return f"Other steps here: {rest}; restore one of them by its number." if rest else "There is no other here."

    def _sweep(self) -> None:
        """Once per object: remove what a killed run left half written or half deleted."""
        for path in () if self._swept else list(self.folder.iterdir()):
            if path.is_dir() and path.name.endswith((UNFINISHED, DELETED)):
                shutil.rmtree(path)
        self._swept = True

    @staticmethod
    def _delete(path: Path) -> None:
        # Renaming is atomic, deleting a folder is not.
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


def _json(extra: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(dict(extra)))
    except TypeError as error:
        raise TypeError(f"extra: expected what JSON can hold, got {extra!r} ({error}). Convert it first.") from None


def _describe(leaf: Any, array: np.ndarray) -> dict[str, Any]:
    """`is` is compared with the example; the rest is what it takes to read the array."""
    impl = str(jax.random.key_impl(leaf)) if is_key(leaf) else None
    shown = {"is": describe_array(leaf), "impl": impl}
    return shown | {"words": str(array.dtype), "stored": list(array.shape), "crc32": _checksum(array)}


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def _compare(path: Path, wanted: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    expected = {name: describe_array(leaf) for name, leaf in wanted.items()}
    lines = list_differences(expected, {name: x["is"] for name, x in saved.items()})
    more = f"\n  and {len(lines) - 5} more" if len(lines) > 5 else ""
    fail_unless(
        not lines,
        f"like: expected a checkpoint with the leaves of the example, got {path} with {len(lines)} differences:\n  "
        + "\n  ".join(lines[:5])
        + f"{more}\nBuild the example from the configuration that the checkpoint was trained with.",
    )


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Errors while reading as one clear error; Orbax's own reports would bury it under pages of storage details."""
    loud = [logging.getLogger(name) for name in ("absl", "asyncio")]
    before = [logger.disabled for logger in loud]
    for logger in loud:
        logger.disabled = True
    try:
        yield
    except Exception as error:  # Which types Orbax and TensorStore raise for broken files is not documented.
        reason = " ".join(str(error).split())[:200]
        # Forgotten tasks of Orbax report themselves when they are collected: let it be now, unheard.
        traceback.clear_frames(error.__traceback__)
        gc.collect()
        raise ValueError(
            f"checkpoint {path}: expected files as Orbax wrote them, got {type(error).__name__}: {reason}. The "
            "checkpoint is damaged or incomplete; restore another step by its number."
        ) from None
    finally:
        for logger, disabled in zip(loud, before, strict=True):
            logger.disabled = disabled
