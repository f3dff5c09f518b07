"""Input checks at the public boundary; the only file that imports chex at run time.

Every check is static (ranks, shapes, dtypes, Python types), so under `jit` it costs nothing. Every message names the
argument, what was expected, what came, and the cure.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.core.numerics import as_int32
from jax_attention.core.struct import NamedArray, named_arrays
from jax_attention.core.text import quote


def ensure(
    assertion: Callable, *args: Any, message: str | Callable[[], str], error: type[Exception] = ValueError
) -> None:
    """Run a chex assertion; if it fails, raise `error(message)` instead of the chex error."""
    try:
        assertion(*args)
    except AssertionError:
        raise error(message if isinstance(message, str) else message()) from None


def fail_unless(condition: bool, message: str, error: type[Exception] = ValueError) -> None:
    """Raise `error(message)` unless the (static) condition holds."""
    if not condition:
        raise error(message)


def check_instance(name: str, x: Any, classes: type | tuple[type, ...], expected: str, cure: str = "") -> Any:
    """Return x if it is an instance of one of the classes; `expected` says in words what they are."""
    fail_unless(
        isinstance(x, classes),
        f"{name}: expected {expected}, got a value of type {type(x).__name__}. {cure}".rstrip(),
        TypeError,
    )
    return x


def describe_array(x: Any) -> str:
    """Dtype and shape for messages: `float32[2,3]`; the type and `repr` of anything else."""
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        return f"{x.dtype}[{','.join(map(str, x.shape))}]"
    return f"{type(x).__name__} {quote(x, 160)}"


def check_operand(name: str, x: Any, least_rank: int, layout: str) -> jax.Array:
    """Return a floating-point query, key or value with at least `least_rank` axes as a JAX array."""
    if not hasattr(x, "dtype") and not isinstance(x, (list, tuple)):
        raise TypeError(f"{name}: expected an array {layout}, got {describe_array(x)}.")
    x = jnp.asarray(x)
    cure = f"Cast it first: {name}.astype(jnp.float32)."
    ensure(
        chex.assert_type,
        x,
        float,
        message=f"{name}: expected a floating-point array {layout}, got {describe_array(x)}. {cure}",
        error=TypeError,
    )
    fail_unless(
        x.ndim >= least_rank,
        f"{name}: expected {layout}, at least {least_rank} axes, got {describe_array(x)}. Add the missing axes.",
    )
    return x


def check_array(
    name: str, x: Any, axes: tuple[str, ...] = (), sizes: Mapping[str, int] | None = None, kind: str = "float"
) -> Any:
    """Return an array of a part after checking its kind of numbers, its rank, and axes whose sizes are known.

    Only what is known without looking into the array is checked: it may be traced. Python numbers stay Python numbers,
    as arrays they would promote the dtype of the scores.

    Args:
        name: of the argument, for the message.
        x: a number, a list or an array.
        axes: names of the axes after the batch dimensions, as in `array_field`.
        sizes: sizes of some of these axes.
        kind: "float", "int" or "bool".

    Returns:
        A Python number, or an array of that kind.

    Raises:
        TypeError: if it is of another kind.
        ValueError: if an axis is missing or has another size, or an integer does not fit.

    Example:
        >>> from jax_attention.parts import check_array
        >>> check_array("rate", 2)
        2.0
        >>> check_array("table", [1.0, 2.0], ("buckets",), {"buckets": 3})
        Traceback (most recent call last):
            ...
        ValueError: table: expected axis buckets of [..., buckets] to have size 3, got float32[2].
    """
    if isinstance(x, (bool, np.bool_, str, bytes)) or callable(x) or x is None:
        raise TypeError(f"{name}: expected a real {kind} number or array, got {describe_array(x)}.")
    if isinstance(x, float):
        x = float(x)  # np.float64, such as np.sqrt(2): with x64 it would make float64 of float32 scores
    if isinstance(x, numbers.Real) and not hasattr(x, "dtype"):
        fail_unless(not axes, f"{name}: expected an array [..., {', '.join(axes)}], got the number {x!r}.")
        of_kind = kind == "float" or isinstance(x, numbers.Integral)
        fail_unless(
            of_kind, f"{name}: expected an integer or an array of integers, got {describe_array(x)}.", TypeError
        )
        if kind == "int":
            _check_range(name, x, x)
        return float(x) if kind == "float" else x
    array = x if hasattr(x, "dtype") else np.asarray(x)
    dtypes = {"float": (jnp.floating, jnp.integer), "int": (jnp.integer,), "bool": (jnp.bool_,)}[kind]
    of_kind = any(jnp.issubdtype(array.dtype, dtype) for dtype in dtypes)
    cure = f" Turn 0/1 values into a mask by {name} != 0." if kind == "bool" else ""
    fail_unless(of_kind, f"{name}: expected {kind} values, got {describe_array(array)}.{cure}", TypeError)
    if kind == "float" and not jnp.issubdtype(array.dtype, jnp.floating):
        array = array.astype(np.float32)
    elif isinstance(array, np.ndarray) and array.dtype == np.float64 and not isinstance(x, np.ndarray):
        array = array.astype(
            np.float64 if jax.config.jax_enable_x64 else np.float32
        )  # a list, which NumPy made float64
    if kind == "int" and isinstance(array, np.ndarray) and array.size:
        _check_range(name, int(array.min()), int(array.max()), array.dtype)
    layout = f"[..., {', '.join(axes)}]" if axes else "[...]"
    ensure(
        lambda: chex.assert_rank(array, {*range(len(axes), len(axes) + 16)}),
        message=f"{name}: expected an array {layout}, at least {len(axes)} axes, got {describe_array(array)}.",
    )
    for axis, size in zip(axes, array.shape[array.ndim - len(axes) :], strict=True):
        known = (sizes or {}).get(axis, size)
        fail_unless(
            size == known,
            f"{name}: expected axis {axis} of {layout} to have size {known}, got {describe_array(array)}.",
        )
    return array


def check_lengths(name: str, x: Any) -> Any:
    """Return lengths, one integer or one per sequence, as int32; a Python int stays one."""
    return as_int32(check_array(name, x, kind="int"))


def check_int(name: str, x: Any, least: int | None, cure: str) -> int:
    """Return a Python or NumPy integer (static under jit) that is at least `least` as a Python int."""
    if isinstance(x, (bool, np.bool_)) or not isinstance(x, (int, np.integer)):
        raise TypeError(f"{name}: expected a Python int (it is static under jit), got {describe_array(x)}. {cure}")
    fail_unless(least is None or x >= least, f"{name}: expected an int >= {least}, got {x}. {cure}")
    return int(x)


def check_sizes(query: jax.Array, key: jax.Array, needs_equal_sizes: bool, key_per_query: bool, score: Any) -> None:
    """Check that query and key agree in head size, or in their number of rows, if the score needs that."""
    if needs_equal_sizes:
        ensure(
            chex.assert_equal,
            query.shape[-1],
            key.shape[-1],
            message=lambda: (
                f"key: expected head size {query.shape[-1]} as in query for score {score!r}, got "
                f"{key.shape[-1]}. scores.general, additive and concat take different sizes."
            ),
        )
    if key_per_query:
        ensure(
            chex.assert_equal,
            query.shape[-2],
            key.shape[-2],
            message=lambda: (
                f"key: expected {query.shape[-2]} rows, one per query row, for score {score!r}, got "
                f"{key.shape[-2]}. This score joins query t with key t; the value has the S rows."
            ),
        )


def check_rows(key: jax.Array, value: jax.Array, columns: int, heads: bool) -> None:
    """Check that there is one value row per column of the scores; a mismatch usually means the other layout."""
    count = value.shape[-3 if heads else -2]
    if heads:
        layout = "[..., S, K, E]"
        other = "attend_heads reads keys as [..., S, K, H]; if yours are [B, K, S, H] swap axes -2 and -3 or use attend"
    else:
        layout = "[..., S, E]"
        other = "attend reads keys as [..., S, H]; if yours are [B, S, K, H] use attend_heads"
    ensure(
        chex.assert_equal,
        columns,
        count,
        message=f"value: expected {columns} rows, as many as there are keys, got {count}: value {layout} is "
        f"{describe_array(value)}, key is {describe_array(key)}. Wrong layout? {other}.",
    )


def check_heads(query: jax.Array, key: jax.Array, value: jax.Array) -> tuple[int, int]:
    """Return the number of key/value heads K and the group size N / K."""
    heads, kv_heads = query.shape[-2], key.shape[-2]
    ensure(
        chex.assert_equal,
        kv_heads,
        value.shape[-2],
        message=f"value: expected as many heads as key ({kv_heads}), got {value.shape[-2]}: key [..., S, K, H] = "
        f"{describe_array(key)}, value [..., S, K, E] = {describe_array(value)}.",
    )
    fail_unless(
        kv_heads > 0 and heads % kv_heads == 0,
        f"query: expected a number of heads N that is a multiple of the {kv_heads} key heads K, got N = {heads}: "
        f"query [..., T, N, H] = {describe_array(query)}, key [..., S, K, H] = {describe_array(key)}. "
        "If the layout is [B, N, T, H], swap axes -2 and -3 or use attend.",
    )
    return kv_heads, heads // kv_heads


def check_batch(named: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Return the batch shape to which those of all operands (by name) broadcast."""
    try:
        return jnp.broadcast_shapes(*named.values())
    except ValueError:
        shown = ", ".join(f"{name} {shape}" for name, shape in named.items())
        raise ValueError(
            f"query, key, value: expected batch dimensions that broadcast together, got {shown}. Add axes of size 1."
        ) from None


def check_rule_arrays(parts: Mapping[str, Any], batch: tuple[int, ...], sizes: Mapping[str, int]) -> None:
    """Check that the arrays inside the parts (by argument) fit the scores `[*batch, T, S]`."""
    for entry in [entry for argument, part in parts.items() for entry in named_arrays(part, argument)]:
        shape = np.shape(entry.array)
        array_batch = shape[: len(shape) - len(entry.axes)]
        for axis, size in zip(entry.axes, shape[len(array_batch) :], strict=True):
            known = sizes.get(axis, size)
            fail_unless(
                size == known or (size == 1 and axis in ("T", "S")),
                f"{entry.name}: expected axis {axis} to have size {known}, got {describe_array(entry.array)} read as "
                f"[..., {', '.join(entry.axes)}]. {_axis_cure(entry.axes)}",
            )
        _check_batch_shape(entry, array_batch, batch)


def _axis_cure(axes: tuple[str, ...]) -> str:
    if axes == ("T", "S"):
        return "A [B, S] padding mask needs axes for heads and queries: mask[:, None, None, :]."
    return "Check the layout of the array."


def _check_range(name: str, least: int, most: int, dtype: Any = int) -> None:
    """Refuse integers that the dtype JAX will use (32 bits unless x64 is enabled) would wrap around silently."""
    jax_dtype = jax.dtypes.canonicalize_dtype(dtype)
    fits = jnp.iinfo(jax_dtype).min <= least and most <= jnp.iinfo(jax_dtype).max
    got = f"{least} to {most}. Number them anew from 0" if least < most else f"{least}"
    fail_unless(fits, f"{name}: expected integers that fit {jax_dtype}, got {got}.")


def _check_batch_shape(entry: NamedArray, array_batch: tuple[int, ...], batch: tuple[int, ...]) -> None:
    got = f"{describe_array(entry.array)} read as [{', '.join(('...', *entry.axes))}]"
    insert = "[" + ", ".join([":", *["None"] * max(1, len(batch) - 1), *[":"] * len(entry.axes)]) + "]"
    if entry.per_sequence:
        fail_unless(
            len(array_batch) in (0, len(batch)),
            f"{entry.name}: expected no batch dimension or all of the scores' batch dimensions {batch} (batch, then "
            f"heads), got {got}. For one entry per batch element index it with {insert}.",
        )
    fail_unless(
        broadcasts(array_batch, batch),
        f"{entry.name}: expected batch dimensions that broadcast against the scores' {batch} (batch, then heads), got "
        f"{got}. For one entry per batch element index it with {insert}.",
    )


def broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether `shape` broadcasts to the shape `target` without enlarging it."""
    try:
        return jnp.broadcast_shapes(shape, target) == tuple(target)
    except ValueError:
        return False


def check_positions(name: str, positions: Any, count: int, batch: tuple[int, ...]) -> jax.Array:
    """Return integer positions `[..., count]` whose batch dimensions broadcast against `batch` as int32 of JAX."""
    positions = jnp.asarray(positions)
    fail_unless(
        jnp.issubdtype(positions.dtype, jnp.integer),
        f"{name}: expected integers, got {describe_array(positions)}. Cast them: {name}.astype(jnp.int32).",
        TypeError,
    )
    fail_unless(
        positions.ndim >= 1 and positions.shape[-1] == count,
        f"{name}: expected one position per row, [..., {count}], got {describe_array(positions)}.",
    )
    fail_unless(
        broadcasts(positions.shape[:-1], batch),
        f"{name}: expected batch dimensions that broadcast against {tuple(batch)}, got {describe_array(positions)}.",
    )
    return as_int32(positions)


def check_tokens(name: str, tokens: Any) -> jax.Array:
    """Return token ids `[..., T]` as integers of at least 32 bits: narrower ones would overflow in arithmetic."""
    tokens = jnp.asarray(tokens)
    fail_unless(
        jnp.issubdtype(tokens.dtype, jnp.integer) and tokens.ndim > 0,
        f"{name}: expected integers [..., T], got {describe_array(tokens)}. Encode text first: tokenizer.encode.",
        TypeError,
    )
    return tokens if tokens.dtype in (jnp.int32, jnp.int64) else tokens.astype(jnp.int32)
