"""Outputs do not depend on later keys, the order of keys, other rows, other batch elements, or the run."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import Dropout, attend, masks, mods
from tests.support import cases
from tests.support.arrays import normal_arrays, query_key_value
from tests.support.tiers import slow, slow_except_every


@pytest.mark.parametrize(("rows", "columns", "offset"), [(6, 6, 0), (3, 6, 3), (6, 3, 0), (4, 6, -1)])
def test_causality_by_gradient(rows, columns, offset):
    """The gradient is exactly 0 for every key and value after the query, and not 0 for the others."""
    q, k, v = query_key_value(1, rows, columns)
    by_key, by_value = (
        np.any(np.asarray(jax.jit(jax.jacrev(f))(x)) != 0, axis=(1, 3))
        for f, x in (
            (lambda k: attend(q, k, v, mask=masks.causal(offset)), k),
            (lambda v: attend(q, k, v, mask=masks.causal(offset)), v),
        )
    )
    allowed = np.arange(columns) <= np.arange(rows)[:, None] + offset
    np.testing.assert_array_equal(by_value, allowed)
    np.testing.assert_array_equal(by_key, allowed & (allowed.sum(axis=1, keepdims=True) > 1))


@pytest.mark.parametrize("case", slow_except_every(2, cases.NORMALIZERS), ids=lambda case: case.name)
def test_order_of_keys_does_not_matter(case, x64):
    """Permuted keys with permuted positions give the same output, up to rounding, for every normalizer."""
    q, k, v = query_key_value(dtype="float64")
    order = np.array([3, 0, 5, 1, 4, 2])
    normalize = case.build(cases.Draw(np.random.default_rng(0), cases.Shape(5, 6), dtype="float64"))[0]
    rule = {"mask": masks.causal(1), "mods": (mods.alibi(0.3),), "normalize": normalize}
    run = jax.jit(lambda k, v, positions: attend(q, k, v, key_positions=positions, **rule))
    shuffled = run(k[order], v[order], order)
    np.testing.assert_allclose(shuffled, run(k, v, np.arange(6)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("start", [*slow(0, 4), 2])
def test_a_chunk_of_queries_gives_the_rows_of_the_whole(start):
    """Decoding with a cache must use positions, not row numbers: flax#5591, pytorch#108108."""
    q, k, v = query_key_value(rows=6)
    rule = {"mask": masks.sliding_window(3), "mods": (mods.alibi(0.3), mods.relative(jnp.arange(8.0), max_distance=5))}
    rows = jnp.arange(start, start + 2)
    chunk = attend(q[rows], k, v, query_positions=rows, **rule)
    np.testing.assert_allclose(chunk, attend(q, k, v, **rule)[rows], rtol=1e-6, atol=1e-6)


def test_the_same_call_gives_the_same_bits():
    """Output and gradients, including the gradient of a learned bias (pytorch#145208)."""
    q, k, v, bias = normal_arrays(0, (2, 17, 8), (2, 17, 8), (2, 17, 8), (17, 17))
    rule = {"mask": masks.causal(), "dropout": Dropout(jax.random.key(0), 0.2)}
    f = jax.jit(
        jax.value_and_grad(lambda *x: jnp.sum(attend(*x[:3], mods=(mods.bias(x[3]),), **rule) ** 2), (0, 1, 2, 3))
    )
    jax.tree.map(np.testing.assert_array_equal, f(q, k, v, bias), f(q, k, v, bias))
