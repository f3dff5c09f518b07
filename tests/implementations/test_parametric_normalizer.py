"""A user's normalizer whose own array takes part in the rescaling of earlier tiles: derivatives by that array."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import Blockwise, attend, masks
from jax_attention.core.numerics import finite_or_zero, per_tile, row_max
from jax_attention.core.struct import array_field, struct
from jax_attention.normalizers import Normalizer
from tests.support.arrays import normal


@struct
class TemperedSoftmax(Normalizer):
    """A normalizer whose `rescale` depends on an array of its own."""

    temperature: jax.Array | float = array_field()

    def row_max(self, scores, where):
        return row_max(jnp.where(where, scores, -jnp.inf))

    def rescale(self, old, new):
        has_keys = ~jnp.isneginf(old)
        change = jnp.where(has_keys, old - finite_or_zero(new), 0) / per_tile(self.temperature)
        return jnp.where(has_keys, jnp.exp(change), 0)

    def numerator(self, scores, where, row_max):
        z = jnp.where(where, scores - finite_or_zero(row_max), 0) / per_tile(self.temperature)
        return jnp.where(where, jnp.exp(z), 0)

    def denominator(self, total, row_max):
        return jnp.where(total > 0, total, 1)


@pytest.mark.parametrize("batch", [(), (2,)], ids=str)
def test_second_derivatives_by_an_array_of_the_rescaling(batch, x64):
    """With a batch on one CPU, JAX inlines the derivative rule of the scan and differentiates the rescaling itself."""
    x = normal(0, *batch, 13, 3, dtype=np.float64)

    def second_derivatives(implementation):
        def loss(temperature):
            rule = {"normalize": TemperedSoftmax(temperature), "mask": masks.causal()}
            return jnp.sum(attend(x, x, x, **rule, implementation=implementation) ** 2)

        return jax.jit(lambda t: (jax.hessian(loss)(t), jax.grad(jax.grad(loss))(t)))(jnp.float64(0.7))

    actual, expected = second_derivatives(Blockwise(tile=(5, 4))), second_derivatives("reference")
    np.testing.assert_allclose(actual, expected, rtol=1e-10)
