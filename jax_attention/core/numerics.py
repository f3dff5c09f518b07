"""Numerical guards shared by every rule: compute dtype, safe rows, gathers; matmul, its precision and gradient."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jax_attention.core.explicit_axes import has_explicit_axes, sum_sharding
from jax_attention.core.sizes import is_at_most

EMPTY_POSITION = 2**30
"""Position of an empty cache slot or of a padding token, so far ahead that causal masks exclude it.

Half of the range of int32: sums and differences with the offset of a mask (below 2**28) do not overflow.
"""


INT32_MAX = 2**31 - 1


def as_int32(x: Any) -> Any:
    """Positions, lengths and distances as int32, whatever integers they were; a Python int stays one.

    Masks and mods subtract and multiply them: in uint32 `2 - 3` is 4294967295, in int8 `100 + 100` is -56. Numbers
    beyond int32 become its largest or smallest one, which is as far away for every mask as they were.
    """
    if isinstance(x, int) or x.dtype == np.int32:
        return x
    xp, info = (np if isinstance(x, np.ndarray | np.generic) else jnp), jnp.iinfo(x.dtype)
    if info.max > INT32_MAX:
        x = xp.minimum(x, xp.asarray(INT32_MAX, x.dtype))
    if info.min < -INT32_MAX - 1:
        x = xp.maximum(x, xp.asarray(-INT32_MAX - 1, x.dtype))
    return x.astype(np.int32)


def compute_dtype(*arrays: Any) -> jnp.dtype:
    """The dtype of scores and statistics: at least float32; float64 stays float64."""
    dtype = jnp.dtype(jnp.result_type(*arrays))
    return dtype if dtype.itemsize >= 4 else jnp.dtype(jnp.float32)


def matmul_precision(precision: Any) -> AbstractContextManager:
    """A context in which every product is traced with `precision`, also those in a user's function."""
    if precision is None:
        return nullcontext()
    if isinstance(precision, tuple) and len(set(precision)) == 1:
        precision = precision[0]
    return nullcontext() if precision == lax.DotAlgorithmPreset.DEFAULT else _default_precision(precision)


def _default_precision(precision: Any) -> AbstractContextManager:
    name = precision
    if isinstance(precision, lax.Precision):
        name = precision.name.lower()
    elif isinstance(precision, lax.DotAlgorithmPreset):
        name = precision.name
    try:
        return jax.default_matmul_precision(name)
    except (TypeError, ValueError):
        raise ValueError(
            'precision: expected None, a name such as "highest", a jax.lax.Precision or a jax.lax.DotAlgorithmPreset, '
            f"the same for both operands, got {precision!r}."
        ) from None


def pvary_like(x: Any, like: Any) -> Any:
    """The pytree x, cast to vary over every mesh axis over which an array of the pytree `like` varies.

    Under `shard_map` the carry of a loop must have the same type before and after each step, so an initial state made
    of constants is cast first. Outside of `shard_map` nothing varies, and x is returned as it is.
    """
    axes = pvary_axes(like)
    return jax.tree.map(partial(_pvary, axes), x) if axes else x


def _pvary(axes: set[str], leaf: jax.Array) -> jax.Array:
    missing = tuple(sorted(axes - pvary_axes(leaf)))
    return lax.pcast(leaf, missing, to="varying") if missing else leaf


def full_with_sharding(shape: tuple[int, ...], number: float, like: jax.ShapeDtypeStruct) -> jax.Array:
    """A constant array with the dtype of `like`, and with its sharding where the mesh has explicit axes."""
    sharding = like.sharding if like.sharding is not None and like.sharding.mesh.explicit_axes else None
    return jnp.full(shape, number, like.dtype, out_sharding=sharding)


def pvary_axes(x: Any) -> set[str]:
    """Mesh axes over which any array (or `ShapeDtypeStruct`) of a pytree varies; none outside of `shard_map`."""
    types = [leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jax.typeof(leaf) for leaf in jax.tree.leaves(x)]
    return {axis for t in types if t.manual_axis_type is not None for axis in t.manual_axis_type.varying}


def forbid(scores: jax.Array, where: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Scores and mask after a score of -inf has forbidden its pair; scores of forbidden pairs become 0.

    Otherwise a mod or normalizer would see inf or NaN there, and its gradient would be 0 * inf = NaN although the
    cotangent of a forbidden pair is 0.

    Args:
        scores: `[..., t, s]`.
        where: bool `[..., t, s]`, the pairs that the mask allows.

    Returns:
        The scores, and the pairs that are still allowed.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention.parts import forbid
        >>> forbid(jnp.array([[1.0, -jnp.inf, 3.0]]), jnp.array([[True, True, False]]))
        (Array([[1., 0., 0.]], dtype=float32), Array([[ True, False, False]], dtype=bool))
    """
    where = where & ~jnp.isneginf(scores)
    return jnp.where(where, scores, 0), where


def row_max(scores: jax.Array) -> jax.Array:
    """The largest score of each row, `[..., t, 1]`; -inf for a row without keys.

    A constant to derivatives: it cancels in the quotient, and the gradient of a maximum would only cost time.

    Args:
        scores: `[..., t, s]`, with -inf at forbidden pairs.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention.parts import row_max
        >>> row_max(jnp.array([[1.0, 2.0], [-jnp.inf, -jnp.inf]]))
        Array([[  2.],
               [-inf]], dtype=float32)
    """
    return jnp.max(jax.lax.stop_gradient(scores), axis=-1, keepdims=True, initial=-jnp.inf)


def finite_or_zero(x: jax.Array) -> jax.Array:
    """The array with -inf replaced by 0: for a row without keys `score - row_max` would be -inf - (-inf) = NaN.

    Args:
        x: any array, such as a row maximum.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention.parts import finite_or_zero
        >>> finite_or_zero(jnp.array([2.0, -jnp.inf]))
        Array([2., 0.], dtype=float32)
    """
    return jnp.where(jnp.isneginf(x), 0, x)


def zero_rows(x: jax.Array, used: jax.Array) -> jax.Array:
    """`x[..., R, C]` with unused rows set to 0, forward and backward; `used` is bool `[..., R]`.

    A zero weight does not protect from NaN (0 * NaN = NaN), neither in `weights @ value` nor in the gradients of
    `query @ key`, so rows that no score depends on are replaced before any product. Where x has size 1 and `used` has
    more (one mask per head over shared keys), a row is kept when any of them uses it.
    """
    shared = tuple(i for i, size in enumerate(x.shape[:-2]) if size == 1)
    used = jnp.any(used, axis=shared, keepdims=True)
    return jnp.where(used[..., None], x, jnp.zeros((), x.dtype))


def pad_with_last(x: Any, axis: int, count: Any) -> Any:
    """x with its last entry along a negative axis repeated `count` times more; NumPy stays NumPy.

    `jnp.pad(mode="edge")` also slices the axes that it does not pad, which fails where they are sharded.
    """
    xp = np if isinstance(x, np.ndarray) else jnp
    last = x[(..., slice(-1, None), *(slice(None),) * (-1 - axis))]
    shape = list(x.shape)
    shape[axis] = count
    return xp.concatenate([x, xp.broadcast_to(last, shape)], axis=axis)


def take_last(table: jax.Array, index: jax.Array) -> jax.Array:
    """Entries of a table, looked up for each pair; the batch dimensions of both broadcast.

        take_last(table, index)[..., t, s] = table[..., index[..., t, s]]

    Args:
        table: `[..., n]`, such as one bias for each distance.
        index: integers `[..., t, s]`, 0 … n-1.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention.parts import take_last
        >>> per_head = jnp.array([[0.0, 1.0, 2.0], [0.0, 10.0, 20.0]])
        >>> take_last(per_head, jnp.array([[0, 1], [1, 0]]))[1]
        Array([[ 0., 10.],
               [10.,  0.]], dtype=float32)
    """
    if all(size == 1 for size in index.shape[:-2]):  # one index for the batch: do not broadcast it
        table = table.reshape((1,) * (index.ndim - 1 - table.ndim) + table.shape)
        return jnp.take(table, index.reshape(index.shape[-2:]), axis=-1)
    batch = jnp.broadcast_shapes(table.shape[:-1], index.shape[:-2])
    table = jnp.broadcast_to(table, (*batch, table.shape[-1]))
    flat = jnp.broadcast_to(index, batch + index.shape[-2:]).reshape(*batch, -1)
    return jnp.take_along_axis(table, flat, axis=-1).reshape(batch + index.shape[-2:])


def per_tile(x: jax.Array | float) -> jax.Array | float:
    """One number for each batch element, spread over a tile: `[...]` becomes `[..., 1, 1]`.

    Args:
        x: the content of an `array_field()`; a Python number stays one.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention.parts import per_tile
        >>> per_tile(jnp.ones(4)).shape, per_tile(0.5)
        ((4, 1, 1), 0.5)
    """
    return x if isinstance(x, (int, float)) else jnp.asarray(x)[..., None, None]


def safe_norm(x: jax.Array) -> jax.Array:
    """Euclidean length over the last axis, `[..., 1]`; for a zero vector both the length and its gradient are 0.

    Args:
        x: `[..., H]`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jax_attention.parts import safe_norm
        >>> safe_norm(jnp.array([3.0, 4.0])), jax.grad(lambda x: safe_norm(x)[0])(jnp.zeros(2))
        (Array([5.], dtype=float32), Array([0., 0.], dtype=float32))
    """
    # `sqrt` has an infinite slope at 0, and 0 * inf in the chain rule would make the gradient NaN: the inner `where`
    # takes the root of 1 instead.
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0)


def matmul(a: jax.Array, b: jax.Array, precision: Any = None, preferred_element_type: Any = None) -> jax.Array:
    """`a[..., M, K] @ b[..., K, N]`, derivatives too; leading axes broadcast; None is the current precision.

    The gradient of b is `a^T g`. XLA on CPU computes it two to four times as slow as a matmul of two matrices that lie
    row by row in memory, so for a single pair of matrices the smaller operand is copied first. (Stacks of small ones
    gain nothing.) The rule is linear in the tangents, so forward mode and higher orders work as ever.
    """
    if precision is None:  # fixed here: the derivative may be traced outside a `with jax.default_matmul_precision`
        precision = jax.config.jax_default_matmul_precision
    if a.ndim == b.ndim == 2 and jax.default_backend() == "cpu" and not has_explicit_axes(a, b):
        return _matmul_2d(a, b, precision, preferred_element_type)
    options = {"precision": precision, "preferred_element_type": preferred_element_type}
    return jnp.matmul(a, b, **options, out_sharding=sum_sharding(a, b))


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _matmul_2d(a: jax.Array, b: jax.Array, precision: Any, dtype: Any) -> jax.Array:
    return jnp.matmul(a, b, precision=precision, preferred_element_type=dtype)


@_matmul_2d.defjvp
def _matmul_2d_jvp(precision: Any, dtype: Any, primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    (a, b), (da, db) = primals, tangents
    product = partial(jnp.matmul, precision=precision, preferred_element_type=dtype)
    # Not `_matmul_2d`: a remat policy that saves products must see a product, not a call with a custom derivative.
    return product(a, b), product(da, b) + _times_tangent(a, db, product)


def _times_tangent(a: jax.Array, db: jax.Array, product: Any) -> jax.Array:
    """`a @ db`, written so that its transpose is `copy(a^T) @ g` or `(copy(g^T) @ a)^T`, whichever copies less."""
    if is_at_most(a.shape[-1], db.shape[-1]):
        return product(_row_by_row(a.T).T, _row_by_row(db))
    return _row_by_row(product(_row_by_row(db.T), a.T)).T


def _row_by_row(x: jax.Array) -> jax.Array:
    """x itself, and XLA may neither undo the copy nor choose another order of axes for it: a vector has only one.

    (Without the vector, a transposed layout can reach a stack of products, on which XLA aborts.)
    """
    return jax.lax.optimization_barrier(x.reshape(-1)).reshape(x.shape)
