"""Data parallelism: one mesh axis; every device holds the whole state and some rows of each batch.

The program is the same for 1 and for n devices: `jax.jit` sees global arrays, and the compiler adds the sum of the
gradients. Random numbers, dropout patterns included, are those of the global batch and do not depend on n.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jax_attention.core.checks import check_int, fail_unless

AXIS = "data"
"""The name of the mesh axis that batches are split over."""


def data_mesh(devices: Sequence[jax.Device] | None = None, *, batch_size: int | None = None) -> Mesh:
    """Make a mesh with one axis, `data`, over all devices, some devices, or as many as divide a batch.

        device i holds rows i B/n, …, (i + 1) B/n - 1 of every batch of B rows, and all of the state

    Args:
        devices: the devices to choose from; `jax.devices()` if None.
        batch_size: B. The mesh then takes the first n devices, with the largest n that divides B. When several
            processes train together it takes all of them, since each process must hold some rows of every batch.

    Returns:
        A mesh for `fit(..., mesh=)`, `replicate` and `split_rows`.

    Raises:
        ValueError: if the list of devices is empty, or `batch_size` is not positive.
        TypeError: if `batch_size` is not an int.

    Example:
        >>> from jax_attention import training
        >>> dict(training.data_mesh(batch_size=12).shape)
        {'data': 1}

    Reference:
        https://docs.jax.dev/en/latest/notebooks/Distributed_arrays_and_automatic_parallelization.html
    """
    devices = jax.devices() if devices is None else list(devices)
    fail_unless(len(devices) > 0, "devices: expected at least one device, got none. Leave it out for all devices.")
    if batch_size is not None:
        check_int("batch_size", batch_size, 1, "It is the number of rows of the global batch.")
        if jax.process_count() == 1:
            count = max(n for n in range(1, len(devices) + 1) if batch_size % n == 0)
            devices = devices[:count]
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def must_run_alone(mesh: Mesh) -> bool:
    """Whether a program on the mesh must end before an independent one is started.

    The devices of one CPU share a pool of threads. Two programs with collectives that run at once can each hold some of
    the threads while they wait for the rest, a deadlock: after 40 seconds XLA ends the process. Accelerators run the
    programs of a device in order, and so does a CPU if one program needs the results of the other.
    """
    return mesh.size > 1 and mesh.devices.flat[0].platform == "cpu"


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def rows(mesh: Mesh) -> NamedSharding:
    """The sharding of arrays whose first axis is split over the devices."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copy every array of a pytree to every device of the mesh.

        x on device i  =  x,        i = 0, …, n - 1

    Args:
        tree: a model, a `TrainState`, any pytree of arrays (random keys too).
        mesh: from `data_mesh`.

    Returns:
        The same tree of arrays on the mesh. Arrays that are there already are not copied.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import training
        >>> x = training.replicate({"w": jnp.ones(3)}, training.data_mesh())["w"]
        >>> x.sharding.is_fully_replicated
        True
    """
    return jax.device_put(tree, replicated(mesh))


def split_rows(batch: Any, mesh: Mesh) -> Any:
    """Split the first axis of every array of a batch over the devices of the mesh.

        device i holds x[i B/n : (i + 1) B/n]

    Args:
        batch: a `data.Batch` or any pytree of arrays `[B, ...]`; fields that are None stay None.
        mesh: from `data_mesh`.

    Returns:
        The same tree of global arrays on the mesh, with the rows in the order of the batch.

    Raises:
        ValueError: if B is not a multiple of the number of devices, or the mesh has no axis `data`.

    Example:
        >>> import numpy as np
        >>> from jax_attention import training
        >>> training.split_rows({"tokens": np.zeros((4, 8), np.int32)}, training.data_mesh())["tokens"].shape
        (4, 8)
    """
    for leaf in jax.tree.leaves(batch):
        check_divides(leaf.shape[0], mesh)
    return jax.device_put(batch, rows(mesh))


def check_divides(batch_size: int, mesh: Mesh) -> None:
    """Refuse a batch size that is not a multiple of the number of devices.

        B mod n = 0,        n devices along the axis `data` of the mesh

    Args:
        batch_size: B.
        mesh: from `data_mesh`.

    Raises:
        ValueError: if B is not a multiple of n, or the mesh has no axis `data`.
        TypeError: if B is not an int.

    Example:
        >>> from jax_attention import training
        >>> training.check_divides(12, training.data_mesh())
    """
    check_int("batch_size", batch_size, 1, "It is the number of rows of the global batch.")
    fail_unless(
        AXIS in mesh.shape,
        f"mesh: expected an axis {AXIS!r}, over which batches are split, got the axes {', '.join(mesh.axis_names)}. "
        "Take training.data_mesh(), or give one of them that name.",
    )
    count = mesh.shape[AXIS]
    fail_unless(
        batch_size % count == 0,
        f"batch_size: expected a multiple of the {count} devices of the mesh, got {batch_size}. Take "
        f"{-(-batch_size // count) * count}, or fewer devices: mesh=training.data_mesh(batch_size={batch_size}).",
    )


def check_whole(name: str, tree: Any) -> None:
    """Refuse arrays that are split over devices: data parallelism would copy each of them whole to every device."""
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        if isinstance(x, jax.Array) and not x.sharding.is_fully_replicated:
            raise ValueError(
                f"{name}: expected arrays that every device holds whole, got {jax.tree_util.keystr(path)} split by "
                f"{getattr(x.sharding, 'spec', x.sharding)}. If all of it fits on each device, call "
                f"training.replicate({name}, mesh) first; if not, jit the step in a loop of your own."
            )
