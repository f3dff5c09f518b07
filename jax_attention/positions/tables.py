"""Position encodings to add (sinusoids, a learned table), exact angles, T5's buckets and ALiBi's slopes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.core.checks import check_array, check_int, describe_array
from jax_attention.core.explicit_axes import take_rows
from jax_attention.core.numerics import as_int32, compute_dtype

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int


def sinusoidal(
    positions: Int[Array, "*batch T"],
    size: int,
    *,
    base: float = 10000.0,
    style: str = "interleaved",
    dtype=jnp.float32,
) -> Float[Array, "*batch T size"]:
    """Sinusoidal position encoding, to be added to embeddings; the shape `[..., T, D]` stays.

        PE(p, 2i) = sin(p / base^(2i / size)),        PE(p, 2i + 1) = cos(p / base^(2i / size))

    Args:
        positions: integers `[..., T]`; accurate to 1e-4 at position 100000.
        size: D, even.
        base: wavelengths run from 2 pi to `base * 2 pi` positions.
        style: "interleaved" (sin, cos, sin, cos, …) or "half" (all sines, then all cosines, as in Marian;
            fairseq too, with `base=10000 ** (size / (size - 2))`).
        dtype: of the result.

    Returns:
        `[..., T, size]`.

    Raises:
        ValueError: if `size` is odd or `style` unknown.
        TypeError: if `size` is not a Python int, or positions are not integers.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import positions
        >>> positions.sinusoidal(jnp.arange(2), 4).round(4)
        Array([[0.    , 1.    , 0.    , 1.    ],
               [0.8415, 0.5403, 0.01  , 1.    ]], dtype=float32)

    Reference:
        Vaswani et al. (2017), "Attention is all you need", section 3.5.
    """
    check_even("size", size)
    check_style(style)
    positions = jnp.asarray(positions)
    if not jnp.issubdtype(positions.dtype, jnp.integer) or positions.ndim == 0:
        raise TypeError(f"positions: expected integers [..., T], got {describe_array(positions)}.")
    positions = as_int32(positions)
    frequencies = 1.0 / base ** (np.arange(0, size, 2) / size)  # base^(-2i / size), in float64 on the host
    angle = angles(positions, frequencies, compute_dtype(dtype))
    sines, cosines = jnp.sin(angle), jnp.cos(angle)
    if style == "half":
        return jnp.concatenate([sines, cosines], axis=-1).astype(dtype)
    return jnp.stack([sines, cosines], axis=-1).reshape(*angle.shape[:-1], size).astype(dtype)


def learned(table: Float[Array, "L D"], positions: Int[Array, "*batch T"]) -> Float[Array, "*batch T D"]:
    """Learned position encoding: rows of a table.

        PE(p) = table[p]

    Args:
        table: `[L, D]`, one row per position.
        positions: integers `[..., T]`.

    Returns:
        `[..., T, D]`. Positions outside of the table, negative ones too, give rows of NaN: a traced position cannot
        raise an error, and clamping to the last row would be silently wrong.

    Raises:
        ValueError: if `table` has not two axes.
        TypeError: if `positions` are not integers.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import positions
        >>> positions.learned(jnp.array([[1., 2.], [3., 4.]]), jnp.array([1, 0, 2]))
        Array([[ 3.,  4.],
               [ 1.,  2.],
               [nan, nan]], dtype=float32)

    Reference:
        Gehring et al. (2017), "Convolutional sequence to sequence learning", section 3.1.
    """
    table, positions = jnp.asarray(check_array("table", table, ("L", "D"))), jnp.asarray(positions)
    if table.ndim != 2:
        raise ValueError(f"table: expected [L, D], got {describe_array(table)}.")
    if not jnp.issubdtype(positions.dtype, jnp.integer):
        raise TypeError(f"positions: expected integers, got {describe_array(positions)}.")
    positions = as_int32(positions)
    index = jnp.where(positions < 0, table.shape[0], positions)  # a negative index would count from the end
    return take_rows(table, index)


def alibi_slopes(num_heads: int) -> Float[Array, "N"]:
    """ALiBi's slopes, one per head, a geometric series.

        slope_i = 2^(-8 i / N),  i = 1 … N,  for N a power of two

    Otherwise the series for the largest power of two below N, followed by every other slope of the next series.

    Args:
        num_heads: N.

    Returns:
        float32 `[N]`.

    Raises:
        TypeError: if `num_heads` is not a Python int.
        ValueError: if it is smaller than 1.

    Example:
        >>> from jax_attention import positions
        >>> positions.alibi_slopes(4)
        Array([0.25      , 0.0625    , 0.015625  , 0.00390625], dtype=float32)

    Reference:
        Press, Smith, Lewis (2022), "Train short, test long", section 3 and its published code for other N.
    """
    num_heads = check_int("num_heads", num_heads, 1, "It is the number of query heads.")
    power = 2 ** math.floor(math.log2(num_heads))  # the largest power of two up to N
    slopes = [2.0 ** (-8.0 * i / power) for i in range(1, power + 1)]
    slopes += [2.0 ** (-4.0 * i / power) for i in range(1, 2 * (num_heads - power), 2)]  # odd i of 2^(-8 i / (2 power))
    with jax.ensure_compile_time_eval():  # concrete also inside of jit: modules keep the slopes as constants
        return jnp.asarray(slopes, jnp.float32)


def t5_buckets(
    relative_position: Int[Array, "*any"] | int,
    *,
    bidirectional: bool = True,
    num_buckets: int = 32,
    max_distance: int = 128,
) -> Int[Array, "*any"]:
    """T5's bucket of a relative position: exact for near keys, logarithmic for far ones, the last one beyond.

        b(n) = n                                                              for n < m
        b(n) = min(m + floor((B - m) log(n / m) / log(max_distance / m)), B - 1)   otherwise,        m = B / 2

    where n is the distance and B the number of buckets. If bidirectional, B is half of them; keys to the right use the
    other half.

    Args:
        relative_position: key position minus query position, any shape.
        bidirectional: False counts keys to the right as distance 0 (for causal attention).
        num_buckets: at least 2, or 4 and even if bidirectional.
        max_distance: distances from here on share the last bucket; larger than m.

    Returns:
        int32 bucket numbers in `[0, num_buckets)`, same shape.

    Raises:
        ValueError: if `num_buckets` or `max_distance` is too small.
        TypeError: if one of them is not a Python int.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import positions
        >>> positions.t5_buckets(jnp.array([-200, -3, 0, 3, 200]))
        Array([15,  3,  0, 19, 31], dtype=int32)

    Reference:
        Raffel et al. (2020), "Exploring the limits of transfer learning", section 2.1; Hugging Face `T5Attention`.
    """
    cure = "T5 uses 32 buckets and max_distance 128."
    num_buckets = check_int("num_buckets", num_buckets, 4 if bidirectional else 2, cure)
    relative_position = as_int32(jnp.asarray(relative_position))
    B = num_buckets // 2 if bidirectional else num_buckets
    m = B // 2
    check_int("max_distance", max_distance, m + 1, cure)
    # A table of b(n) for n = 0 ... max_distance, in float32 as in Hugging Face: another dtype, or the logarithm of
    # another device, would move some distances to the neighbouring bucket.
    n = np.arange(max_distance + 1)
    # log(n / m) / log(max_distance / m), for n >= 1: the entry of n = 0 is not used.
    ratio = np.log(np.maximum(n, 1).astype(np.float32) / np.float32(m)) / np.float32(math.log(max_distance / m))
    logarithmic = m + (ratio * np.float32(B - m)).astype(np.int32)
    table = np.where(n < m, n, np.minimum(logarithmic, B - 1)).astype(np.int32)
    distance = jnp.abs(relative_position) if bidirectional else -jnp.minimum(relative_position, 0)
    bucket = take_rows(jnp.asarray(table), jnp.minimum(distance, max_distance))
    return jnp.where(relative_position > 0, bucket + B, bucket) if bidirectional else bucket


def check_even(name: str, size: int) -> int:
    """Return an even Python int, at least 2."""
    size = check_int(name, size, 2, "Sines and cosines come in pairs.")
    if size % 2:
        raise ValueError(f"{name}: expected an even number, got {size}. Sines and cosines come in pairs.")
    return size


def check_style(style: str) -> str:
    """Return the name of one of the two layouts of pairs."""
    if style not in ("half", "interleaved"):
        raise ValueError(f'style: expected "half" or "interleaved", got {style!r}.')
    return style


def angles(positions: jax.Array, frequencies: np.ndarray | jax.Array, dtype: jnp.dtype) -> jax.Array:
    """`positions[...]` times `frequencies[F]` or `[..., F]` (radians per position), modulo 2 pi, as `[..., F]`.

    In float32 the product 100000 * 1.0 radians is only known to about 0.004, and its sine to no better. So the phase is
    kept in fixed point: an unsigned 32-bit multiplication wraps around by itself, and with the frequency in turns per
    position, scaled by 2^32, the phase is exact modulo one turn to `position * 2^-33` turns: 1e-4 radians at position
    100000 and below 1e-6 for the first thousand.
    Fixed point is used for integer positions, frequencies known during tracing, and a dtype below float64; otherwise
    the angle is the plain product.
    """
    positions = jnp.asarray(positions)
    expand = (None,) * (
        positions.ndim + 1 - np.ndim(frequencies)
    )  # explicit, as `jax_numpy_rank_promotion="raise"` forbids implicit broadcasting
    exact = isinstance(frequencies, np.ndarray) and jnp.issubdtype(positions.dtype, jnp.integer)
    if not exact or dtype == jnp.float64:
        return positions[..., None].astype(dtype) * jnp.asarray(frequencies, dtype)[expand]
    turns = np.asarray(frequencies, np.float64) / (2 * np.pi)
    fixed = np.round(np.mod(turns, 1.0) * 2.0**32).astype(np.uint64).astype(np.uint32)
    # uint32 multiplication wraps around, which is the reduction modulo one turn, without any rounding.
    phase = positions[..., None].astype(jnp.uint32) * jnp.asarray(fixed)[expand]
    # Read as int32 the phase is in [-1/2, 1/2) turns: float32 keeps more digits of small angles than of large ones.
    signed = jax.lax.bitcast_convert_type(phase, jnp.int32)
    return signed.astype(dtype) * np.asarray(2 * np.pi / 2.0**32, dtype)
