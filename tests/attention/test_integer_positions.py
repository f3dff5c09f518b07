"""Positions of any integer dtype give the result of int32 (tpu-inference#2755, local-attention#12)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jax_attention import attend, masks, mods, nn, positions
from jax_attention.core.numerics import as_int32
from tests.support.arrays import check_close, normal
from tests.support.tiers import slow_except

T, H = 120, 4
X = jnp.asarray(normal(0, T, H))
DTYPES = ("uint32", "int8", "uint8", "int16", "uint16", "int64", "uint64")
RULES = {
    "causal": {"mask": masks.causal(100)},
    "causal, behind": {"mask": masks.causal(-100)},
    "window": {"mask": masks.sliding_window(4)},
    "window, both sides": {"mask": masks.sliding_window(100, 90, 20)},
    "dilated": {"mask": masks.dilated(7) & masks.causal()},
    "chunked": {"mask": masks.chunked(7)},
    "lengths": {"mask": masks.lengths(100, 110)},
    "prefix": {"mask": masks.causal() | masks.prefix(90)},
    "blocks": {"mask": masks.block_sparse(np.eye(12, dtype=bool), 10)},
    "alibi": {"mods": (mods.alibi(0.01),)},
    "relative": {"mods": (mods.relative(jnp.arange(32.0) / 10),)},
    "function": {"mods": (lambda z, q, k: z - (q - k) ** 2 / 1000.0,)},
}


def by_rule(p, implementation):
    return {
        name: attend(X, X, X, **rule, query_positions=p, key_positions=p, implementation=implementation)
        for name, rule in RULES.items()
    }


@pytest.fixture(scope="module")
def run():
    """A compiled program for each implementation; the positions are traced."""
    return {name: jax.jit(lambda p, name=name: by_rule(p, name)) for name in ("reference", "blockwise")}


@pytest.fixture(scope="module")
def expected(run):
    return run["reference"](jnp.arange(T))


@pytest.mark.parametrize("implementation", ["reference", "blockwise"])
@pytest.mark.parametrize("dtype", slow_except(("uint32", "int8"), DTYPES))
def test_masks_and_mods_do_not_overflow(run, expected, dtype, implementation):
    with jax.enable_x64(dtype.endswith("64")):
        actual = run[implementation](jnp.arange(T, dtype=dtype))
    for name in RULES:
        check_close(actual[name], expected[name], 1e-6)


@pytest.mark.parametrize("dtype", ["uint32", "int8"])
def test_modules_and_position_encodings_do_not_overflow(dtype):
    rope = positions.rotary(scaling=positions.dynamic_scaling(2.0, 64))
    layer = nn.MultiHeadAttention(2, H, rope=rope, rngs=nnx.Rngs(0))
    narrow, wide = jnp.arange(T, dtype=dtype), jnp.arange(T)

    @jax.jit
    def results(p):
        return (
            layer(X, mask=masks.sliding_window(4), query_positions=p),
            positions.rotary(scaling=positions.dynamic_scaling(4.0, 100))(X, p),
            positions.sinusoidal(p, H),
            positions.learned(normal(1, 200, H), p - 3),  # the first three are before the table
            positions.t5_buckets(p - 3),
            masks.fully_masked_rows(masks.causal(-100), T, T, query_positions=p, key_positions=p),
        )

    for actual, expected in zip(results(narrow), results(wide), strict=True):
        if dtype == "uint32":  # 0 - 3 is no position of a user's: 4294967293
            actual, expected = actual[3:], expected[3:]
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(
    ("dtype", "x", "expected"),
    [
        ("int8", [-128, 127], [-128, 127]),
        ("uint32", [0, 2**31 - 1, 2**31, 2**32 - 1], [0] + 3 * [2**31 - 1]),
        ("int64", [-(2**40), -5, 2**40], [-(2**31), -5, 2**31 - 1]),
        ("uint64", [5, 2**63], [5, 2**31 - 1]),
    ],
)
def test_far_positions_stay_far(dtype, x, expected):
    with jax.enable_x64(True):
        for array in (np.asarray(x, dtype), jnp.asarray(x, dtype)):
            got = as_int32(array)
            assert (type(got).__module__.split(".")[0], got.dtype) == (type(array).__module__.split(".")[0], np.int32)
            np.testing.assert_array_equal(got, expected)
