"""Kernels, and the logarithm of one whose features are exponentials: what `proportional` normalises instead of it."""

from __future__ import annotations

import math
from collections.abc import Callable

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

    Each query and each key has a shift of its own, so a score depends on no other row, and all sums are one product. A
    pair whose largest `a_tf + b_sf` is far below `A_t + B_s` (by 93 in float32) is lost there. Tiles with such a pair
    are computed feature by feature, relative to the largest one of each pair: as exact, and some F times slower.
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
        return jax.lax.cond(
            _all(found), lambda: score, lambda: jnp.where(found, score, _feature_by_feature(query, key, score))
        )


def _feature_by_feature(query: jax.Array, key: jax.Array, like: jax.Array) -> jax.Array:
    """`log sum_f exp(a_tf + b_sf)`, in the memory of one score per pair."""
    rows = jnp.moveaxis(query, -1, 0)[..., :, None], jnp.moveaxis(key, -1, 0)[..., None, :]

    # Without the checkpoint the scan would keep a number per pair and feature for the backward pass.
    def over_features(step: Callable, start: jax.Array, rows: tuple[jax.Array, jax.Array]) -> jax.Array:
        return jax.lax.scan(jax.checkpoint(lambda x, row: (step(x, row[0] + row[1]), None)), start, rows)[0]

    constant, zeros = jax.lax.stop_gradient(rows), jnp.zeros_like(like)
    largest = over_features(jnp.maximum, zeros + constant[0][0] + constant[1][0], constant)
    return largest + jnp.log(over_features(lambda total, z: total + jnp.exp(z - largest), zeros, rows))


@jax.custom_batching.custom_vmap
def _all(x: jax.Array) -> jax.Array:
    """Whether all are True, also over mapped axes: a `cond` of one bool per mapped call would compute both branches."""
    return jnp.all(x)


@_all.def_vmap
def _all_vmap(axis_size: int, in_batched: list[bool], x: jax.Array) -> tuple[jax.Array, bool]:
    return _all(x), False


@jax.custom_jvp
def _log(x: jax.Array) -> jax.Array:
    """`log(x)` with the derivative `exp(-log(x))`: that of JAX, `1 / x`, has `1 / x^2` in the second derivative, which
    over- or underflows though its product with the tangents does not."""
    return jnp.log(x)


@_log.defjvp
def _log_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    log = _log(*primals)
    return log, tangents[0] * jnp.exp(-log)
