"""Input checks of the public boundary, and the only home of chex at run time.

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

from jax_attention.core.parts import NamedArray, named_arrays


def ensure(assertion: Callable, *args: Any, message: str, error: type[Exception] = ValueError) -> None:
    """Run a chex assertion; if it fails, raise `error` with our message instead of chex's."""
    try:
        assertion(*args)
    except AssertionError:
        raise error(message) from None


def fail_unless(condition: bool, message: str, error: type[Exception] = ValueError) -> None:
    """Raise `error(message)` unless the (static) condition holds."""
    if not condition:
        raise error(message)


def check_instance(name: str, x: Any, kinds: type | tuple[type, ...], wanted: str, cure: str = "") -> Any:
    """A value of one of these classes."""
    fail_unless(
        isinstance(x, kinds),
        f"{name}: expected {wanted}, got a value of type {type(x).__name__}. {cure}".rstrip(),
        TypeError,
    )
    return x


def describe_array(x: Any) -> str:
    """`float32[2,3]`, for messages."""
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        return f"{x.dtype}[{','.join(map(str, x.shape))}]"
    return f"{type(x).__name__} {x!r}"


def check_operand(name: str, x: Any, least_rank: int, layout: str) -> jax.Array:
    """A floating query, key or value with at least `least_rank` axes, as a jax array."""
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
    """An array inside a value: the right kind, at least its named axes, and agreeing with known `sizes`.

    Python numbers stay Python numbers, so that they do not promote the dtype of what they are combined with.
    """
    if isinstance(x, (bool, np.bool_, str, bytes)) or callable(x) or x is None:
        raise TypeError(f"{name}: expected a real {kind} number or array, got {describe_array(x)}.")
    if isinstance(x, numbers.Real) and not hasattr(x, "dtype"):
        fail_unless(not axes, f"{name}: expected an array [..., {', '.join(axes)}], got the number {x!r}.")
        fits = kind == "float" or isinstance(x, numbers.Integral)
        fail_unless(fits, f"{name}: expected an integer or an array of integers, got {describe_array(x)}.", TypeError)
        if kind == "int":
            _check_fits(name, x, x)
        return float(x) if kind == "float" else x
    array = x if hasattr(x, "dtype") else np.asarray(x)
    wanted = {"float": (jnp.floating, jnp.integer), "int": (jnp.integer,), "bool": (jnp.bool_,)}[kind]
    fits = any(jnp.issubdtype(array.dtype, w) for w in wanted)
    cure = f" Turn 0/1 values into a mask by {name} != 0." if kind == "bool" else ""
    fail_unless(fits, f"{name}: expected {kind} values, got {describe_array(array)}.{cure}", TypeError)
    if kind == "float" and not jnp.issubdtype(array.dtype, jnp.floating):
        array = array.astype(np.float32)
    elif isinstance(array, np.ndarray) and array.dtype == np.float64 and not isinstance(x, np.ndarray):
        array = array.astype(np.float64 if jax.config.jax_enable_x64 else np.float32)
    if kind == "int" and isinstance(array, np.ndarray) and array.size:
        _check_fits(name, int(array.min()), int(array.max()), array.dtype)
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


def check_int(name: str, x: Any, least: int | None, cure: str) -> int:
    """A Python (or NumPy) integer, static under jit, not smaller than `least`."""
    if isinstance(x, (bool, np.bool_)) or not isinstance(x, (int, np.integer)):
        raise TypeError(f"{name}: expected a Python int (it is static under jit), got {describe_array(x)}. {cure}")
    fail_unless(least is None or x >= least, f"{name}: expected an int >= {least}, got {x}. {cure}")
    return int(x)


def check_returned(what: str, x: Any, shape: tuple[int, ...]) -> None:
    """What a user's function returned has the shape it must have."""
    got = tuple(getattr(x, "shape", ()))
    fail_unless(
        got == tuple(shape),
        f"{what}: expected the function to return shape {tuple(shape)}, got {describe_array(x)}. "
        "Leading axes must stay as they are: let arrays it closes over broadcast, slopes[:, None, None], and look "
        "tables up with broadcasting indices, table[jnp.arange(N)[:, None, None], q_pos - k_pos].",
    )


def check_broadcasts(what: str, x: Any, shape: tuple[int, ...]) -> None:
    """What a mask returned broadcasts to the scores without enlarging them."""
    fail_unless(
        broadcasts(x.shape, shape),
        f"{what}: expected a shape that broadcasts to the scores {tuple(shape)}, got {describe_array(x)}.",
    )


def check_bool(what: str, x: Any) -> None:
    """A user's mask function returned booleans."""
    fail_unless(
        jnp.result_type(getattr(x, "dtype", float)) == jnp.bool_,
        f"{what}: expected the function to return bool (True = may attend), got {describe_array(x)}. "
        "Additive values belong into mods=(mods.bias(array),).",
        TypeError,
    )


def check_sizes(query: jax.Array, key: jax.Array, same_size: bool, paired: bool, score: Any) -> None:
    """Head sizes agree where the score is a product; rows agree where it pairs them."""
    if same_size:
        ensure(
            chex.assert_equal,
            query.shape[-1],
            key.shape[-1],
            message=f"key: expected head size {query.shape[-1]} as in query for score {score!r}, got "
            f"{key.shape[-1]}. scores.general, additive and concat take different sizes.",
        )
    if paired:
        ensure(
            chex.assert_equal,
            query.shape[-2],
            key.shape[-2],
            message=f"key: expected {query.shape[-2]} rows, one per query row, for score {score!r}, got "
            f"{key.shape[-2]}. This score pairs query t with key t; the value has the S rows.",
        )


def check_rows(key: jax.Array, value: jax.Array, columns: int, heads: bool) -> None:
    """After projection `columns` keys face as many values; a mismatch usually means the other layout."""
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
    """The key/value head count K and the group size N / K."""
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
    """The common leading axes of the operands, by name."""
    try:
        return jnp.broadcast_shapes(*named.values())
    except ValueError:
        shown = ", ".join(f"{name} {shape}" for name, shape in named.items())
        raise ValueError(
            f"query, key, value: expected leading axes that broadcast together, got {shown}. Add axes of size 1."
        ) from None


def check_rule_arrays(parts: Mapping[str, Any], lead: tuple[int, ...], sizes: Mapping[str, int]) -> None:
    """Arrays inside score, mods, mask and normalize fit the scores `[*lead, T, S]`: named axes and leading axes."""
    for entry in [entry for part, held in parts.items() for entry in named_arrays(held, part)]:
        shape = np.shape(entry.array)
        own = shape[: len(shape) - len(entry.axes)]
        for axis, size in zip(entry.axes, shape[len(own) :], strict=True):
            known = sizes.get(axis, size)
            fail_unless(
                size == known or (size == 1 and axis in ("T", "S")),
                f"{entry.name}: expected axis {axis} to have size {known}, got {describe_array(entry.array)} read as "
                f"[..., {', '.join(entry.axes)}]. {_axis_cure(entry.axes)}",
            )
        _check_batching(entry, own, lead)


def _axis_cure(axes: tuple[str, ...]) -> str:
    if axes == ("T", "S"):
        return "A [B, S] padding mask needs axes for heads and queries: mask[:, None, None, :]."
    return "Check the layout of the array."


def _check_fits(name: str, least: int, most: int, dtype: Any = int) -> None:
    held = jax.dtypes.canonicalize_dtype(dtype)
    fits = jnp.iinfo(held).min <= least and most <= jnp.iinfo(held).max
    got = f"{least} to {most}. Number them anew from 0" if least < most else f"{least}"
    fail_unless(fits, f"{name}: expected integers that fit {held}, got {got}.")


def _check_batching(entry: NamedArray, own: tuple[int, ...], lead: tuple[int, ...]) -> None:
    got = f"{describe_array(entry.array)} read as [{', '.join(('...', *entry.axes))}]"
    insert = "[" + ", ".join([":", *["None"] * max(1, len(lead) - 1), *[":"] * len(entry.axes)]) + "]"
    if entry.per_sequence:
        fail_unless(
            len(own) in (0, len(lead)),
            f"{entry.name}: expected no leading axis or all of the scores' leading axes {lead} (batch, then heads), "
            f"got {got}. For one entry per batch element index it with {insert}.",
        )
    fail_unless(
        broadcasts(own, lead),
        f"{entry.name}: expected leading axes that broadcast against the scores' {lead} (batch, then heads), got "
        f"{got}. For one entry per batch element index it with {insert}.",
    )


def broadcasts(own: tuple[int, ...], lead: tuple[int, ...]) -> bool:
    """Whether shape `own` broadcasts to `lead` without enlarging it."""
    try:
        return jnp.broadcast_shapes(own, lead) == tuple(lead)
    except ValueError:
        return False


def check_positions(name: str, positions: Any, count: int, lead: tuple[int, ...]) -> jax.Array:
    """Integer positions `[..., count]` whose leading axes broadcast against `lead`."""
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
        broadcasts(positions.shape[:-1], lead),
        f"{name}: expected leading axes that broadcast against {tuple(lead)}, got {describe_array(positions)}.",
    )
    return positions


def check_tokens(name: str, tokens: Any) -> jax.Array:
    """Integers `[..., T]`, of at least 32 bits."""
    tokens = jnp.asarray(tokens)
    fail_unless(
        jnp.issubdtype(tokens.dtype, jnp.integer) and tokens.ndim > 0,
        f"{name}: expected integers [..., T], got {describe_array(tokens)}. Encode text first: tokenizer.encode.",
        TypeError,
    )
    return tokens if tokens.dtype in (jnp.int32, jnp.int64) else tokens.astype(jnp.int32)


_FLOORS = {"score": "scores", "mods": "mods", "mask": "masks", "normalize": "normalizers"}


def check_kind(part: str, x: Any) -> None:
    """A value of another part of the rule is callable too, and would be taken for a plain function: refuse it."""
    kind = getattr(x, "part", None)
    fail_unless(
        kind in (None, part),
        f"{part}: expected a value of jax_attention.{_FLOORS[part]} or a function, got {x!r}. It belongs to {kind}=.",
        TypeError,
    )
    fail_unless(
        not hasattr(x, "as_score"),
        f"{part}: expected a value, got the module {type(x).__name__}. Pass its present value: module.as_score().",
        TypeError,
    )
    fail_unless(
        x is not jax.nn.softmax,
        f"{part}: expected a function (scores, where) -> weights, got jax.nn.softmax, whose second argument is the "
        "axis. Leave normalize out, or use normalizers.softmax().",
        TypeError,
    )


def check_part(name: str, x: Any, factories: tuple[Callable, ...], hint: str) -> None:
    """A part of the rule is a value or a callable; a factory without its call, a string or an array is a mistake."""
    module = f"{name}s" if name != "normalize" else "normalizers"
    check_kind("mods" if name == "mod" else name, x)
    for factory in factories:
        if x is factory:
            raise TypeError(
                f"{name}: expected a value, got the factory {factory.__name__} itself. "
                f"Call it: {module}.{factory.__name__}(...)."
            )
    fail_unless(
        callable(x) and not isinstance(x, type),
        f"{name}: expected a value of jax_attention.{module} or a function, got {describe_array(x)}. {hint}",
        TypeError,
    )
