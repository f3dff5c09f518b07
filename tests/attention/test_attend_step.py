"""The recurrent form of linear attention: step by step, in a scan, and errors where no state of fixed size exists."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import attend, attend_step, masks, normalizers, scores
from tests.support.arrays import check_close, normal
from tests.support.tiers import slow_except

B, T, N, K, H, E, F = 2, 9, 4, 2, 3, 2, 5
X = jnp.ones((3, 4))
PROPORTIONAL = normalizers.proportional()
KERNEL = {"score": scores.features("relu"), "normalize": PROPORTIONAL}


STEPS = {
    "elu_plus_one": lambda: (scores.features("elu_plus_one"), PROPORTIONAL),
    "random_features": lambda: (scores.random_features(normal(0, K, 1, F, H)), normalizers.proportional(eps=0.1)),
    "mean": lambda: (scores.scaled_dot(), normalizers.linear(mean=True)),
    "concat": lambda: (scores.concat(normal(1, H), normal(2, H)), normalizers.linear()),
    "uniform": lambda: (scores.dot(), normalizers.uniform()),
}


def rows() -> tuple[jax.Array, ...]:
    """Query, key and value with the grouped heads as batch dimensions `[K, G]`."""
    return normal(0, B, K, 2, T, H), normal(1, B, K, 1, T, H), normal(2, B, K, 1, T, E)


SPLITS = [*(pytest.param(name, (4, 1, 0, 4), id=name) for name in STEPS)]
SPLITS += [pytest.param("elu_plus_one", (1,) * T, id="one row at a time")]


@pytest.mark.parametrize(("name", "sizes"), slow_except(("elu_plus_one", "concat"), SPLITS))
def test_step_by_step_is_all_at_once(name, sizes, x64):
    """Outputs and gradients, for steps of 4, 1, 0 and 4 rows, and for one row at a time."""
    score, normalize = STEPS[name]()

    def stepped(score, *x):
        state, outputs = None, []
        for block in zip(*(jnp.split(y, np.cumsum(sizes)[:-1], axis=-2) for y in x), strict=True):
            output, state = attend_step(state, *block, score=score, normalize=normalize)
            outputs.append(output)
        return jnp.concatenate(outputs, axis=-2)

    def at_once(implementation):
        rule = {"normalize": normalize, "mask": masks.causal(), "implementation": implementation}
        return lambda score, *x: attend(*x, score=score, **rule)

    weight = jnp.cos(jnp.arange(B * N * T * E)).reshape(B, K, 2, T, E)

    @jax.jit
    def results(arguments):
        forms = (stepped, at_once("linear_attention"), at_once("reference"))
        return [
            (f(*arguments), jax.grad(lambda arguments, f=f: jnp.sum(weight * f(*arguments)))(arguments)) for f in forms
        ]

    *actual, expected = results((jax.tree.map(jnp.asarray, score), *rows()))
    for form in actual:
        check_close(form, expected, 1e-10)


def test_decoding_in_a_scan():
    """From the empty state, compiled once; the state stays float32 under bfloat16."""
    q, k, v = (x.astype(jnp.bfloat16) for x in rows())
    step = partial(attend_step, score=scores.features("elu_plus_one"))
    empty = step(None, *(x[..., :0, :] for x in (q, k, v)))[1]
    assert empty.values.dtype == jnp.float32
    assert empty.values.shape == (B, K, 1, H, E)

    def body(state, row):
        output, state = step(state, *(x[..., None, :] for x in row))
        return state, output[..., 0, :]

    state, outputs = jax.jit(partial(jax.lax.scan, body))(empty, tuple(jnp.moveaxis(x, -2, 0) for x in (q, k, v)))
    expected = attend(q, k, v, score=scores.features("elu_plus_one"), normalize=PROPORTIONAL, mask=masks.causal())
    assert outputs.dtype == jnp.bfloat16
    assert state.count == T
    np.testing.assert_allclose(
        jnp.moveaxis(outputs, 0, -2).astype("float32"), expected.astype("float32"), rtol=0.01, atol=0.01
    )


STATE = attend_step(None, X, X, X, score=KERNEL["score"])[1]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: attend_step(None, X, X, X, score=KERNEL["score"], normalize=normalizers.softmax()),
            ValueError,
            "normalize: expected proportional, linear or uniform, got softmax",
        ),
        (
            lambda: attend_step(
                None, X, X, X, score=scores.concat(jnp.ones(4), jnp.ones(4)), normalize=normalizers.softmax()
            ),
            ValueError,
            "normalize: expected proportional, linear or uniform, got softmax.*jax_attention.cache",
        ),
        (
            lambda: attend_step(None, X[:2], X, X, score=KERNEL["score"]),
            ValueError,
            "key: expected one row for each of the 2 queries, got 3",
        ),
        (lambda: attend_step((1, 2), X, X, X, score=KERNEL["score"]), TypeError, "state: expected a FeatureState"),
        (
            lambda: attend_step(STATE, X, X, X, score=scores.features("hedgehog")),
            ValueError,
            r"state: expected values, total and count of shapes \(\(8, 4\), \(8,\), \(\)\).*got \(\(4, 4\)",
        ),
    ],
)
def test_mistakes_with_a_state(call, error, message):
    with pytest.raises(error, match=message):
        call()
