"""Dropout of attention weights whose random bits depend on the pair of positions, not on the implementation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from jax_attention.core.struct import data_field, struct

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray

MAX_RATE = 1 - 2.0**-32


@struct
class Dropout:
    """Dropout after the normalizer: set random weights to 0 and scale up the others.

        weight' = weight / (1 - rate)  with probability 1 - rate,  else 0

    Whether a pair is kept depends on (rng, batch index, q_pos, k_pos) and on nothing else: not on tile size,
    implementation, sharding under jit, or other rows. The batch index numbers the batch elements and heads of the call.
    Under `vmap` and `shard_map` it starts at 0 in each mapped call, so fold the mapped index into rng yourself:
    `Dropout(jax.random.fold_in(rng, i), rate)`.

    Args:
        rng: a JAX random key of any kind; use a fresh one per layer and step. The bits are those of threefry.
        rate: probability of dropping, `0 <= rate < 1`, a Python number (static).
        shared: one pattern for all batch elements and heads (Flax's `broadcast_dropout`).

    Returns:
        The argument of `attend(..., dropout=)`; None there means no dropout.

    Raises:
        ValueError: if `rate` is outside of [0, 1 - 2^-32].
        TypeError: if `rate` is not a Python number.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jax_attention import Dropout, attention_weights
        >>> x = jnp.zeros((2, 4))
        >>> attention_weights(x, x, x, dropout=Dropout(jax.random.key(0), 0.5))
        Array([[0., 0.],
               [1., 1.]], dtype=float32)

    Reference:
        Srivastava et al. (2014), "Dropout: a simple way to prevent neural networks from overfitting".
    """

    rng: PRNGKeyArray = data_field()
    rate: float
    shared: bool = False

    def __post_init__(self) -> None:
        if self.rng is None or isinstance(self.rng, (int, float)):
            raise TypeError(f"rng: expected a JAX random key, got {self.rng!r}. Make one: jax.random.key(0).")
        if isinstance(self.rate, bool) or not isinstance(self.rate, (int, float)):
            raise TypeError(f"rate: expected a Python number (it is static under jit), got {self.rate!r}.")
        # 32 bits decide about each pair: a rate above MAX_RATE would round to dropping all of them.
        if not 0 <= self.rate <= MAX_RATE:
            raise ValueError(
                f"rate: expected 0 <= rate <= 1 - 2^-32, got {self.rate}. Pass dropout=None to switch it off."
            )

    def __call__(
        self,
        weights: Float[Array, "*batch t s"],
        q_pos: Int[Array, "*#batch t 1"],
        k_pos: Int[Array, "*#batch 1 s"],
        index: Int[Array, "*batch"] | None = None,
    ) -> Float[Array, "*batch t s"]:
        """Return the weights of a tile after dropout.

        `index` is the batch index in the whole call (0, 1, 2, … if None): a tile may hold only some batch elements.
        """
        if self.rate == 0:
            return weights
        *batch, rows, columns = weights.shape
        count = 1
        for size in batch:
            count *= size
        q_pos = jnp.broadcast_to(q_pos[..., 0], (*batch, rows)).reshape(count, rows)
        k_pos = jnp.broadcast_to(k_pos[..., 0, :], (*batch, columns)).reshape(count, columns)
        index = jnp.arange(count) if index is None else jnp.broadcast_to(index, batch).reshape(count)
        index = jnp.zeros_like(index) if self.shared else index
        bits = jax.vmap(self._bits)(index, q_pos, k_pos).reshape(weights.shape)
        keep = bits >= jnp.uint32(round(self.rate * 2**32))  # uniform bits are below rate * 2^32 with probability rate
        return jnp.where(keep, weights / (1 - self.rate), 0)

    def _bits(self, index: jax.Array, q_pos: jax.Array, k_pos: jax.Array) -> jax.Array:
        """32 random bits for each pair `[t, s]` of one batch index: a hash of the pair, folded into rng."""
        fold = jax.random.fold_in
        rows = jax.vmap(fold, (None, 0))(fold(_threefry_key(self.rng), index), q_pos)
        pairs = jax.vmap(jax.vmap(fold, (None, 0)), (0, None))(rows, k_pos)
        # `fold_in` hashes, so the last word of its key is already random; `random.bits` would hash once more per pair.
        return jax.random.key_data(pairs)[..., -1]


def _threefry_key(rng: jax.Array) -> jax.Array:
    """A threefry key from a key of any kind, all of whose words count; a threefry key stays as it is.

    `fold_in` of `unsafe_rbg` keys combines numbers by exclusive or: folding in t and then s is folding in s and then t,
    so the pattern of dropout would be its own transpose (jax#21405).
    """
    words = rng if rng.dtype == jnp.uint32 else jax.random.key_data(rng)
    key = jax.random.wrap_key_data(words[:2], impl="threefry2x32")
    for word in words[2:]:
        key = jax.random.fold_in(key, word)
    return key
