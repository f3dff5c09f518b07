"""Accurate angles `position * frequency` at large positions: the phase is kept in fixed point, modulo one turn.

In float32 the product 100000 * 1.0 radians is only known to about 0.004, and its sine to no better. An unsigned 32-bit
multiplication wraps around by itself, so with the frequency in turns per position, scaled by 2^32, the phase is exact
modulo one turn to `position * 2^-33` turns: 1e-4 radians at position 100000 and below 1e-6 for the first thousand.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def angles(positions: jax.Array, frequencies: np.ndarray | jax.Array, dtype: jnp.dtype) -> jax.Array:
    """`positions[...]` times `frequencies[F]` (radians per position), modulo 2 pi, as `[..., F]`.

    Fixed point is used for integer positions, frequencies known during tracing, and a dtype below float64; otherwise
    the angle is the plain product.
    """
    positions = jnp.asarray(positions)
    expand = (None,) * positions.ndim  # explicit, as `jax_numpy_rank_promotion="raise"` forbids implicit broadcasting
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
