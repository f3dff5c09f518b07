"""Thresholds in a row of logits without sorting it: two binary searches over the 32 bits of a float.

Sorting 50,000 logits takes XLA about ten milliseconds on a CPU core, as long as a third of a whole GPT-2 step; counting
how many logits lie above a threshold, 32 times, takes well under one. The searches are exact, and the bound may be
traced, so that another k or p runs the same compiled program.

The order is that of a stable ascending sort: by logit, and among equal logits by token number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float, Int, UInt

BITS = 32
"""Bits of a float32, and so steps of a binary search."""


def sort_keys(logits: Float[Array, "*batch V"]) -> UInt[Array, "*batch V"]:
    """Unsigned integers in the same order as the logits in float32: -inf is the smallest, -0 equals 0.

    IEEE floats of one sign are ordered as their bits are. Setting the sign bit of the positive ones and inverting all
    bits of the negative ones puts both signs in one order.
    """
    # -0 becomes 0: the two have different bits, but are equal logits and so must be a tie.
    logits = logits.astype(jnp.float32)
    bits = jax.lax.bitcast_convert_type(jnp.where(logits == 0, 0, logits), jnp.uint32)
    sign = jnp.uint32(1 << (BITS - 1))
    return jnp.where(bits & sign, ~bits, bits | sign)


def largest_key(
    holds: Callable[[UInt[Array, "*batch 1"]], Bool[Array, "*batch"]], batch_shape: tuple[int, ...]
) -> UInt[Array, "*batch 1"]:
    """Binary search for the largest key of each row for which `holds` is true.

    `holds` must be true up to some key and false above it. The key is built from its highest bit down: a bit is set if
    `holds` is still true with it.
    """

    def try_bit(i: jax.Array, key: jax.Array) -> jax.Array:
        larger = key | (jnp.uint32(1) << (BITS - 1 - i).astype(jnp.uint32))
        return jnp.where(holds(larger)[..., None], larger, key)

    return jax.lax.fori_loop(0, BITS, try_bit, jnp.zeros((*batch_shape, 1), jnp.uint32))


def kth_largest(keys: UInt[Array, "*batch V"], k: Int[Array, "*#batch"] | int) -> UInt[Array, "*batch 1"]:
    """The k-th largest key of each row; 0, which is below every key, if k is larger than V."""
    return largest_key(lambda key: jnp.sum(keys >= key, axis=-1, dtype=jnp.int32) >= k, keys.shape[:-1])


def is_among_smallest(keys: UInt[Array, "*batch V"], count: Int[Array, "*#batch"] | int) -> Bool[Array, "*batch V"]:
    """Which tokens are the first `count < V` of their row in ascending order, ties by token number."""
    border = kth_largest(keys, keys.shape[-1] - count)
    below, tied = keys < border, keys == border
    remaining = count - jnp.sum(below, axis=-1, dtype=jnp.int32)
    return below | (tied & (jnp.cumsum(tied, axis=-1, dtype=jnp.int32) <= jnp.asarray(remaining)[..., None]))


def count_light_tail(
    keys: UInt[Array, "*batch V"], mass: Float[Array, "*batch V"], max_mass: Float[Array, "*#batch"] | float
) -> Int[Array, "*batch"]:
    """How many of the smallest tokens have together a mass of at most `max_mass`.

    largest n with  sum of mass over the first n tokens in ascending order  <=  max_mass
    """

    def is_light(key: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(keys < key, mass, 0), axis=-1) <= max_mass

    # The border is the largest key below which the mass is light enough. Of the tokens that tie with it, all of one
    # mass, only as many count as fit into what is left of max_mass.
    border = largest_key(is_light, keys.shape[:-1])
    below, tied = keys < border, keys == border
    room = max_mass - jnp.sum(jnp.where(below, mass, 0), axis=-1)
    tie_mass = jnp.max(jnp.where(tied, mass, 0), axis=-1)
    ties = jnp.sum(tied, axis=-1).astype(mass.dtype)
    # A mass of 0, from a logit of -inf or one that underflowed, fits any number of times: no division by it.
    fitting = jnp.where(tie_mass > 0, jnp.floor(room / jnp.where(tie_mass > 0, tie_mass, 1)), ties)
    return jnp.sum(below, axis=-1, dtype=jnp.int32) + jnp.minimum(fitting, ties).astype(jnp.int32)
