"""Kernels, and the logarithm of one whose features are exponentials: what `proportional` normalises instead of it."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jax_attention.core.numerics import matmul, row_max
from jax_attention.core.struct import part_field, struct
from jax_attention.scores.base import Score


class Kernel(Score):
    """Base of the kernel scores, `phi(q) . phi(k)`; see `features`."""

    needs_equal_sizes = True
    is_product = True

    def features(self, x: jax.Array) -> jax.Array:
        """The feature map phi of each row by itself, `[..., H] -> [..., F]`."""
        raise NotImplementedError(f"{type(self).__name__} must define features(x)")

    def log_features(self, x: jax.Array) -> jax.Array:
        """`log phi`, for kernels with a `logarithm`."""
        raise NotImplementedError(f"{type(self).__name__} must define log_features(x)")

    def project(self, query: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        return self.features(query), self.features(key)

    def tile(self, query: jax.Array, key: jax.Array) -> jax.Array:
        return matmul(query, jnp.swapaxes(key, -1, -2))


@struct
class LogKernel(Score):
    """`log(phi(q) . phi(k))` from `log phi`, so that no feature over- or underflows.

        score(t, s) = A_t + B_s + log sum_f exp(a_tf - A_t) exp(b_sf - B_s),        A_t = max_f a_tf,  B_s = max_f b_sf

    Each query and each key has a shift of its own, so a score depends on no other row. A pair whose largest
    `a_tf + b_sf` is more than `log(max)` below `A_t + B_s` (89 in float32) may have the score -inf, a weight of 0.
    """

    kernel: Kernel = part_field()

    def project(self, query: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        return self.kernel.log_features(query), self.kernel.log_features(key)

    def tile(self, query: jax.Array, key: jax.Array) -> jax.Array:
        # Products reach F max^(2/5), and below max^(-13/20) they count as 0. Wider limits would lose gradients, which
        # divide by the product: at the upper end a cotangent of 1e-20 would become 0, at the lower end one of 1 inf.
        log_max = math.log(float(jnp.finfo(query.dtype).max))
        from_query, from_key = (row_max(x) - 0.2 * log_max for x in (query, key))
        product = matmul(jnp.exp(query - from_query), jnp.swapaxes(jnp.exp(key - from_key), -1, -2))
        found = ~(product <= math.exp(-0.65 * log_max))  # NaN is found, so that it is not taken for 0
        score = _log(jnp.where(found, product, 1)) + from_query + jnp.swapaxes(from_key, -1, -2)
        return jnp.where(found, score, -jnp.inf)


@jax.custom_jvp
def _log(x: jax.Array) -> jax.Array:
    """`log(x)` with the derivative `exp(-log(x))`: that of JAX, `1 / x`, has `1 / x^2` in the second derivative, which
    over- or underflows though its product with the tangents does not."""
    return jnp.log(x)


@_log.defjvp
def _log_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    log = _log(*primals)
    return log, tangents[0] * jnp.exp(-log)
