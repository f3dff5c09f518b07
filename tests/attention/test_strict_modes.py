"""Rules with an array per head under `jax_numpy_rank_promotion="raise"` and strict dtype promotion.

Every public name under every mode: tests/strict_modes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import (
    Dropout,
    attend_with_stats_heads,
    masks,
    mods,
    normalizers,
    positions,
    scores,
)
from tests.support.tiers import slow, slow_except

RNG = np.random.default_rng(0)
B, T, N, K, H = 2, 5, 4, 2, 6


def array(*shape: int) -> jax.Array:
    return jnp.asarray(RNG.standard_normal(shape), jnp.float32)


def integers(*values: int) -> jax.Array:
    return jnp.asarray(values, jnp.int32)


PARTS = {
    "score": {
        "dot": scores.dot(),
        "scaled_dot": scores.scaled_dot(),
        "cosine": scores.cosine(array(N)),
        "general": scores.general(array(N, H, H)),
        "concat": scores.concat(array(H), array(H), 0.5),
        "additive": scores.additive(array(H, 3), array(H, 3), array(3), array(3)),
        "location": scores.location(array(2 * H, T), array(T)),
        "l2": scores.l2(),
        "features": scores.features("elu_plus_one"),
        "random_features": scores.random_features(array(N, 5, H)),
        "function": lambda q, k: q @ jnp.swapaxes(k, -1, -2),
    },
    "mods": {
        "bias": (mods.bias(array(N, T, T)),),
        "alibi": (mods.alibi(positions.alibi_slopes(N)),),
        "relative": (mods.relative(array(N, 8)),),
        "soft_cap": (mods.soft_cap(3.0),),
        "temperature": (mods.temperature(array(N)),),
        "function": (lambda s, q_pos, k_pos: s + 1.0,),
    },
    "mask": {
        "causal": masks.causal(),
        "sliding_window": masks.sliding_window(2, 1),
        "prefix": masks.prefix(integers(1, 2)[:, None]),
        "lengths": masks.lengths(integers(3, 2)[:, None]),
        "segments": masks.segments(integers(0, 0, 1, 1, 1)),
        "dilated": masks.dilated(2),
        "chunked": masks.chunked(2),
        "dense": masks.dense(RNG.random((B, 1, T, T)) > 0.3),
        "block_sparse": masks.block_sparse(RNG.random((2, 2)) > 0.3, 3),
        "combined": masks.causal() & ~masks.dilated(2) | masks.prefix(1),
        "function": lambda q_pos, k_pos: k_pos <= q_pos,
    },
    "normalize": {
        "softmax": normalizers.softmax(array(N)),
        "plus_one": normalizers.softmax(plus_one=True),
        "sigmoid": normalizers.sigmoid(-1.0),
        "relu": normalizers.relu(2),
        "linear": normalizers.linear(),
        "proportional": normalizers.proportional(eps=1e-6),
        "sparsemax": normalizers.sparsemax(),
        "entmax15": normalizers.entmax15(),
        "uniform": normalizers.uniform(),
        "hard": normalizers.hard(),
        "function": lambda scores, where: jnp.where(where, scores, 0.0),
    },
}
CASES = [(part, name) for part, values in PARTS.items() for name in values]
QUICK = [f"{part} {name}" for part, name in CASES if part != "mask" or name in ("lengths", "combined", "function")]
"""All masks promote in the same way, so these are a mask with arrays, a combination of masks, and a function."""


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


EVERY_RULE = [pytest.param(*case, id=" ".join(case)) for case in CASES]


def gradients_of(part: str, name: str):
    """Gradients of a call with dropout and statistics, as a function of its operands; and the operands."""

    def loss(q, k, v):
        rule = {part: PARTS[part][name]}
        return attend_with_stats_heads(q, k, v, **rule, dropout=Dropout(jax.random.key(0), 0.2)).output.sum()

    return jax.grad(loss, argnums=(0, 1, 2)), (array(B, T, N, H), array(B, T, K, H), array(B, T, K, 3))


@pytest.mark.parametrize("x64", [*slow(False), True], ids=["x32", "x64"])
@pytest.mark.parametrize(("part", "name"), slow_except(QUICK, EVERY_RULE))
def test_every_rule_is_traced_forward_and_backward(part, name, x64):
    """Dtypes and ranks are checked while tracing."""
    with jax.enable_x64(x64):
        gradients, operands = gradients_of(part, name)
        assert all(g.dtype == jnp.float32 for g in jax.eval_shape(gradients, *operands))


@pytest.mark.parametrize("x64", [*slow(False), True], ids=["x32", "x64"])
@pytest.mark.parametrize(("part", "name"), slow_except(("score additive", "mask combined"), EVERY_RULE))
def test_every_rule_forward_and_backward(part, name, x64):
    with jax.enable_x64(x64):
        gradients, operands = gradients_of(part, name)
        actual = jax.jit(gradients)(*operands)
    assert all(g.dtype == jnp.float32 and np.isfinite(g).all() for g in actual)
