"""Checkpoints of a training state on disk: written whole or not at all; the newest few and the best one are kept.

Orbax writes the arrays in the background, under a temporary name that is changed to the step when all is on disk.
This module adds four things. A state is saved as nested dictionaries of host arrays, so that an example `like` restores
any pytree on any number of devices. Differences between the example and the checkpoint are listed by name. A checksum
per array finds flipped bits, which Orbax reads back without an error. Old checkpoints are renamed before they are
deleted, so that a kill in the middle leaves no incomplete one.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.core.checks import check_int
from jax_attention.core.tree_paths import flatten, leaves_by_path, nest
from jax_attention.training.checkpoint_description import (
    DamagedCheckpoint,
    check_description,
    check_identity,
    check_same_leaves,
    describe_checkpoint,
)
from jax_attention.training.checkpoint_folder import (
    METADATA,
    DeletedCheckpoint,
    complete_steps,
    delete,
    deletion_reported,
    find_step,
    numbered_steps,
    remove_leftovers,
    remove_set_aside,
    set_aside,
)
from jax_attention.training.host_arrays import checksum, to_device, to_host
from jax_attention.training.orbax_files import orbax, save_error, short_errors


class Checkpoints:
    """The checkpoints of one run, `folder/<step>`, with at most one writer at a time.

        kept = newest `keep` steps  |  { argmin over steps of metrics[best] }

    Args:
        folder: the folder of the checkpoints; made by the first save.
        keep: the number of newest checkpoints that are kept.
        best: the metric of `save` whose smallest finite value marks one more checkpoint to keep; None for none.
        run: name of the run, written into each checkpoint; those of other runs are refused.
        adopted: steps whose checkpoints may have no run in them, because an earlier version wrote them.

    Returns:
        An object with `save`, `wait`, `clean_up`, `restore`, `restore_newest`, `read`, and the properties `steps`,
        `latest`, `best`.

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

    def __init__(
        self,
        folder: str | Path,
        *,
        keep: int = 3,
        best: str | None = "loss",
        run: str | None = None,
        adopted: Collection[int] = (),
    ):
        self.folder = Path(folder).absolute()
        self.run, self.adopted = run, frozenset(adopted)
        self._must_exist = self.folder.is_dir()
        self.keep = check_int("keep", keep, 1, "It is the number of newest checkpoints that are kept.")
        self.metric = best
        self._pending: Any = None
        self._leftovers_removed = False
        self._descriptions: dict[int, dict[str, Any]] = {}

    @property
    def steps(self) -> list[int]:
        """The steps of all complete checkpoints, ascending. Waits for an unfinished save."""
        self.wait()
        return complete_steps(self.folder)

    @property
    def has_any(self) -> bool:
        """Whether the folder holds checkpoints, complete or not."""
        self.wait()
        return bool(numbered_steps(self.folder))

    @property
    def latest(self) -> int | None:
        """The newest step, or None."""
        return max(self.steps, default=None)

    @property
    def best(self) -> int | None:
        """The step with the smallest finite metric, the newest of equal ones; None if there is no finite one."""
        metrics = {step: self._metric(step) for step in self.steps}
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
            FileNotFoundError: if the folder existed before and is gone: deleted or renamed during the run.
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
        description = describe_checkpoint(step, named, arrays, metrics, extra, self.run)
        self._make_folder()
        if not self._leftovers_removed:  # once, as none appear while this object lives
            remove_leftovers(self.folder)
            self._leftovers_removed = True
        # Orbax refuses arrays without elements. Their shapes, all that they have, are in the description.
        tree = nest({name: array for name, array in arrays.items() if array.size}, "/")
        save = orbax().save_async
        try:
            self._pending = path, save(path, tree, custom_metadata=description)
        except Exception as error:
            raise save_error(path, error) from None
        if wait:
            self.wait()

    def wait(self) -> None:
        """Finish an unfinished save, then delete the checkpoints that need not be kept.

        Raises:
            OSError: or another error of the background write, for example on a full disk.
        """
        if self._pending is None:
            return
        (path, pending), self._pending = self._pending, None
        try:
            pending.result()
        except Exception as error:  # Which types Orbax and TensorStore raise is not documented.
            raise save_error(path, error) from None
        self._delete_old()

    def clean_up(self) -> None:
        """`wait`, and delete what a process left that was killed while it wrote or deleted a checkpoint."""
        if self.has_any:
            remove_leftovers(self.folder)
            self._delete_old()

    def _delete_old(self) -> None:
        steps = complete_steps(self.folder)
        for step in set(steps[: -self.keep]) - {self.best if self.metric else None}:
            delete(self.folder, step)
            self._descriptions.pop(step, None)
        for step in steps:
            remove_set_aside(self.folder, step)

    def read(self, step: int | None = None) -> dict[str, Any]:
        """Read everything but the arrays: `step`, `metrics`, `extra` and a description of the `leaves`.

        Args:
            step: the step of the checkpoint; the newest if None.

        Raises:
            FileNotFoundError: if there is no such checkpoint.
            ValueError: if it is damaged, or was written by another program, by another run or at another step.
        """
        self.wait()
        step = find_step(self.folder, step)
        if step not in self._descriptions:
            path = self.folder / str(step)
            with deletion_reported(path), short_errors(path):
                metadata = orbax().metadata(path).custom_metadata
                description = check_description(metadata, path, self._describe_others(step))
            check_identity(description, path, step, self.run, self.adopted)
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
            FileNotFoundError: if there is no such checkpoint, or another process deletes it meanwhile.
            ValueError: if names, shapes or dtypes differ (the first few are listed), or if the checkpoint is damaged or
                was written by another program.
        """
        self.wait()
        step = find_step(self.folder, step)
        description, path = self.read(step), self.folder / str(step)
        example = leaves_by_path(like)
        if part is not None:
            example = {f"{part}/{name}": leaf for name, leaf in example.items()}
        saved = {name: x for name, x in description["leaves"].items() if part is None or name.startswith(f"{part}/")}
        check_same_leaves(path, example, saved)
        arrays = self._load(step, description["leaves"], set(example))
        placed = [to_device(arrays[name], leaf, saved[name]["impl"]) for name, leaf in example.items()]
        return jax.tree.unflatten(jax.tree.structure(like), placed)

    def restore_newest(self, *, like: Any) -> tuple[Any, int, list[str]]:
        """Restore the newest checkpoint that is whole; damaged newer ones are renamed to `STEP.damaged`.

        A later save of the same step replaces the damaged one.

        Args:
            like: as in `restore`.

        Returns:
            The state, its step, and a sentence about each damaged checkpoint.

        Raises:
            FileNotFoundError: if there is no checkpoint.
            ValueError: if all are damaged; or as `restore`, if one is of another run or does not fit the example.
        """
        self.wait()
        problems: list[str] = []
        for step in sorted(numbered_steps(self.folder), reverse=True):
            try:
                state = self.restore(step, like=like)
            except (DamagedCheckpoint, FileNotFoundError) as error:
                problems.append(error.reason if isinstance(error, DamagedCheckpoint) else self._incomplete(step))
                continue
            for damaged in numbered_steps(self.folder):
                if damaged > step:
                    set_aside(self.folder, damaged)
            return state, step, problems
        if not problems:
            find_step(self.folder, None)  # raises, as there is no checkpoint
        raise DamagedCheckpoint(f"{problems[0]} No other checkpoint can be restored either.")

    def verify(self, step: int) -> None:
        """Read a whole checkpoint and compare all checksums.

        Raises:
            FileNotFoundError: if there is no such checkpoint.
            ValueError: if it is damaged, or of another program, run or step.
        """
        leaves = self.read(step)["leaves"]
        self._load(step, leaves, set(leaves))

    def _load(self, step: int, table: dict[str, Any], names: set[str]) -> dict[str, np.ndarray]:
        """Load the named arrays from disk and check them; `...` in the example makes Orbax skip an array."""
        path = self.folder / str(step)
        nonempty = {name: x for name, x in table.items() if math.prod(x["stored"]) > 0}
        # One element, broadcast: an example of the right shape that takes no memory.
        example = {
            name: np.broadcast_to(np.zeros((), jnp.dtype(x["words"])), x["stored"]) if name in names else ...
            for name, x in nonempty.items()
        }
        loaded = {}
        if names & set(nonempty):
            with deletion_reported(path), short_errors(path):
                loaded = flatten(orbax().load(path, nest(example, "/")), "/")
        empty = {
            name: np.zeros(table[name]["stored"], jnp.dtype(table[name]["words"])) for name in names - set(nonempty)
        }
        arrays = {name: loaded[name] if name in nonempty else empty[name] for name in names}
        for name, array in arrays.items():
            if checksum(array) != table[name]["crc32"]:
                raise DamagedCheckpoint(
                    f"checkpoint {path}: expected checksum {table[name]['crc32']} of {name}, got {checksum(array)}: "
                    "the file is damaged.",
                    self._describe_others(step),
                )
        return arrays

    def _metric(self, step: int) -> float | None:
        """The metric that marks the best checkpoint; None for a damaged or deleted one, which is no reason to stop."""
        try:
            return self.read(step)["metrics"].get(self.metric)
        except (DamagedCheckpoint, DeletedCheckpoint):
            return None

    def _incomplete(self, step: int) -> str:
        return f"checkpoint {self.folder / str(step)}: expected {METADATA} in it, got none. It is incomplete."

    def _make_folder(self) -> None:
        if self._must_exist and not self.folder.is_dir():
            raise FileNotFoundError(
                f"folder: expected {self.folder}, which was there when this run started, got none: it was deleted or "
                "renamed. Nothing was saved. Put it back and resume."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self._must_exist = True

    def _describe_others(self, step: int) -> str:
        others = [other for other in complete_steps(self.folder) if other != step]
        return (
            f"Other steps here: {others}; restore one of them by its number." if others else "There is no other here."
        )
