"""A user's part must return the right shape for every T and S, whether it is a function or a struct."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import attend, attend_heads, masks, mods, normalizers, scores
from jax_attention.core.numerics import per_tile
from jax_attention.core.struct import array_field, struct
from tests.support.arrays import check_close, normal

N = T = S = 4  # so that an array of heads fits the columns of a tile by accident
SLOPES = jnp.arange(1.0, N + 1)
Q, K, V = (jnp.asarray(normal(i, 2, N, T, 6)) for i in range(3))


@struct
class Decay(mods.Mod):
    slope: jax.Array = array_field()
    spread: bool = True

    def __call__(self, z, q_pos, k_pos):
        return z - (per_tile(self.slope) if self.spread else self.slope) * jnp.abs(q_pos - k_pos)


@struct
class PairBias(mods.Mod):
    rows: jax.Array = array_field("T")
    pairs: jax.Array = array_field("T", "S")

    def __call__(self, z, q_pos, k_pos):
        return z + self.rows[..., None] + self.pairs


@struct
class ExtraAxis(mods.Mod):
    def __call__(self, z, q_pos, k_pos):
        return z[None]


@struct
class RowScore(scores.Score):
    def tile(self, query, key):
        return query[..., :1] * key[..., :1]  # a product per row, silently broadcast where T = S


@struct
class FloatMask(masks.Mask):
    def __call__(self, q_pos, k_pos):
        return (k_pos <= q_pos).astype(jnp.float32)


@struct
class LastRows(normalizers.Normalizer):
    one_pass = False

    def __call__(self, scores, where=None):
        return scores[..., -1:, :]


@struct
class Broken(mods.Mod):
    def __call__(self, z, q_pos, k_pos):
        return z + jnp.zeros((3, 5))


WRONG = {
    "forgotten per_tile where N = S": ("mods", (Decay(SLOPES, spread=False),), r"mods: expected decay\(.*per_tile"),
    "one axis more": ("mods", (ExtraAxis(),), r"mods: expected extra_axis\(\) to return the shape of the scores"),
    "rows of a score": ("score", RowScore(), r"score: expected row_score\(\) to take .*got TypeError"),
    "a mask of numbers": ("mask", FloatMask(), r"mask: expected float_mask\(\) to return booleans"),
    "rows of a normalizer": ("normalize", LastRows(), r"normalize: expected last_rows\(\) to return weights"),
    "an error inside": (
        "mods",
        (Broken(),),
        r"mods: expected broken\(\) to take .*,1009,1013\].*got (Type|Value)Error",
    ),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("implementation", ["reference", "blockwise"])
def test_wrong_structs_are_refused(case, implementation):
    name, part, message = WRONG[case]
    with pytest.raises((ValueError, TypeError), match=message):
        jax.eval_shape(lambda q, k, v: attend(q, k, v, **{name: part}, implementation=implementation), Q, K, V)


@pytest.mark.parametrize("heads", [False, True])
def test_right_structs_are_as_functions(heads):
    """Also under grouped queries, and with arrays for queries and keys."""
    call = attend_heads if heads else attend
    q, k, v = (jnp.swapaxes(x, -2, -3) for x in (Q, K[:, :2], V[:, :2])) if heads else (Q, K, V)
    rows, pairs = normal(3, N, T), normal(4, T, S)
    own = (Decay(SLOPES), PairBias(rows, pairs))
    same = lambda z, i, j: z - SLOPES[:, None, None] * jnp.abs(i - j) + rows[..., None] + pairs  # noqa: E731
    expected = call(q, k, v, mods=(same,), implementation="reference")
    check_close(call(q, k, v, mods=own), expected, 1e-6)


def test_nothing_is_computed_or_compiled_for_the_check():
    calls = []

    @struct
    class Counted(mods.Mod):
        def __call__(self, z, q_pos, k_pos):
            calls.append(z)
            return z

    attend(Q, K, V, mods=(Counted(),), implementation="reference")
    assert [isinstance(z, jax.core.Tracer) for z in calls] == [True, False]
    assert calls[0].shape == (2, N, 1009, 1013)


@pytest.mark.parametrize(
    ("name", "function", "message"),
    [
        ("mods", lambda z: z, r"mods: expected a function of \(scores, q_pos, k_pos\), got <lambda>\(z\)"),
        ("mask", lambda q, k, z: q, r"mask: expected a function of \(q_pos, k_pos\), got <lambda>\(q, k, z\)"),
        ("score", lambda q: q, r"score: expected a function of \(query, key\)"),
        ("normalize", jax.nn.sigmoid, r"normalize: expected a function of \(scores, where\)"),
    ],
)
def test_functions_of_other_parameters_are_refused(name, function, message):
    with pytest.raises(TypeError, match=message):
        attend(Q, K, V, **{name: (function,) if name == "mods" else function})


def test_functions_with_defaults_are_taken():
    actual = attend(Q, K, V, mods=(lambda z, *positions, factor=2.0: z * factor,))
    np.testing.assert_allclose(actual, attend(Q, K, V, mods=(mods.temperature(0.5),)), rtol=1e-6, atol=1e-6)
