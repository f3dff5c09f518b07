"""Special cases of blockwise: half precision, one query, rows without tiles, functions of whole rows."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import (
    Blockwise,
    attend,
    attend_heads,
    attend_with_stats,
    attention_weights,
    masks,
    mods,
    normalizers,
    scores,
)
from jax_attention.attention.prepare import prepare
from jax_attention.core.struct import array_field, struct
from jax_attention.implementations.blockwise.tiled_call import (
    MAX_SCORES_AT_ONCE,
    MAX_TILE_SCORES,
    MIN_TILE_SCORES,
    make_tile_grid,
)
from tests.support.arrays import normal, random_mask
from tests.support.tiers import slow
from tests.support.tolerances import FORWARD, GRADIENT

SMALL = Blockwise(tile=(4, 3))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, *slow(jnp.float16)])
def test_half_precision_is_summed_in_float32(dtype):
    """The reference sums in float32 too, so the two differ only by the last rounding of output and gradients."""
    operands = [normal(n, 2, 13, 4, 8, dtype=dtype) for n in range(3)]

    def loss(*operands, implementation):
        output = attend_heads(*operands, mask=masks.causal(), implementation=implementation)
        assert output.dtype == dtype
        return jnp.sum(jnp.sin(output.astype(jnp.float32)))

    actual, expected = (
        jax.jit(jax.value_and_grad(partial(loss, implementation=implementation), (0, 1, 2)))(*operands)
        for implementation in (SMALL, "reference")
    )
    eps = float(jnp.finfo(dtype).eps)
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(np.float32(x), np.float32(y), rtol=2 * eps, atol=2 * eps)


@pytest.mark.parametrize(
    ("rows", "columns", "sharing", "tiles"),
    [
        (4096, 4096, 1, (512, 512)),
        (768, 768, 1, (384, 384)),
        (1, 10**6, 1, (1, 250_000)),
        (10**6, 3, 1, (83_334, 3)),
        (4096, 4096, 1024, (128, 128)),
        (4096, 4096, 10**9, (64, 64)),
    ],
)
def test_tiles_have_about_the_same_area(rows, columns, sharing, tiles):
    call = prepare(jnp.ones((rows, 1)), jnp.ones((columns, 1)), jnp.ones((columns, 1)))
    grid = make_tile_grid(call, sharing=sharing)
    assert (grid.height, grid.width) == tiles
    assert grid.height * grid.width <= min(
        MAX_TILE_SCORES["cpu"][0], max(MAX_SCORES_AT_ONCE // sharing, MIN_TILE_SCORES)
    )


def test_tiles_are_smaller_where_a_pair_takes_more_than_one_number():
    x = jnp.ones((4096, 2))
    score = scores.additive(jnp.ones((2, 16)), jnp.ones((2, 16)), jnp.ones(16))
    assert make_tile_grid(prepare(x, x, x, score=score))[:2] == (128, 128)


def test_tiles_on_an_accelerator_are_tall(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    call = prepare(jnp.ones((16384, 1)), jnp.ones((16384, 1)), jnp.ones((16384, 1)))
    assert make_tile_grid(call, sharing=16)[:2] == (2048, 512)
    assert make_tile_grid(call)[:2] == (4096, 1024)


@pytest.mark.parametrize(
    ("mask", "size"),
    [
        (masks.causal(), 512),
        (masks.sliding_window(64), 128),
        (masks.sliding_window(256), 128),
        (masks.sliding_window(2048), 512),
        (masks.causal() & masks.prefix(64), 128),
        (masks.causal() | masks.prefix(64), 512),
        (masks.causal() & masks.segments(jnp.arange(4096) // 64), 512),
    ],
    ids=["causal", "64", "256", "2048", "prefix", "| prefix", "segments"],
)
def test_a_static_mask_chooses_tiles(mask, size):
    x = jnp.ones((4096, 1))
    assert make_tile_grid(prepare(x, x, x, mask=mask))[:2] == (size, size)
    assert make_tile_grid(prepare(x, x, x, mask=mask), (700, 300))[:2] == (683, 293)


def test_one_query_against_many_keys():
    q, k, v = normal(0, 1, 8), normal(1, 300_001, 8), normal(2, 300_001, 3)
    mask = masks.lengths(1, 299_999)

    def run(implementation):
        loss = lambda q, k: jnp.sum(attend(q, k, v, mask=mask, implementation=implementation))  # noqa: E731
        return jax.jit(jax.value_and_grad(loss, (0, 1)))(q, k)

    for x, y in zip(jax.tree.leaves(run(None)), jax.tree.leaves(run("reference")), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)  # sums of 300,000 terms: sqrt(n) u = 3e-5


@pytest.mark.parametrize("derivative", [jax.grad, *slow(jax.hessian)])
def test_sinks_that_overflow_exp_with_rows_without_tiles(derivative, x64):
    x, sinks = normal(0, 12, 3, dtype=jnp.float64), jnp.float64(800.0)
    mask = masks.causal(-20) | masks.sliding_window(2, 0, offset=-6)

    def loss(x, sinks, implementation):
        return jnp.sum(
            attend(x, x, x, mask=mask, normalize=normalizers.softmax(sinks), implementation=implementation) ** 2
        )

    actual, expected = (
        jax.jit(derivative(loss, (0, 1)), static_argnums=2)(x, sinks, implementation)
        for implementation in (SMALL, "reference")
    )
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert np.all(np.isfinite(a))
        np.testing.assert_allclose(a, b, atol=FORWARD["float64"])


@pytest.mark.parametrize("kind", ["mod", *slow("score")])
def test_values_at_keys_that_a_mod_or_a_score_forbids_are_not_used(kind):
    q, k, v = normal(0, 10, 3), normal(1, 7, 3), normal(2, 7, 2)
    forbidden = np.isin(np.arange(7), (1, 6))
    row = jnp.asarray(np.where(forbidden, -np.inf, 0).astype(np.float32))
    k, v = (jnp.asarray(np.where(forbidden[:, None], fill, x)) for fill, x in ((np.float32(100), k), (np.nan, v)))
    rule = {
        "mod": {"mods": (mods.bias(jnp.broadcast_to(row, (10, 7))),)},
        "score": {"score": lambda q, k: jnp.where(k[:, :1].T > 99, -jnp.inf, q @ k.T)},
    }[kind]

    def run(v, implementation):
        return jnp.sum(jnp.sin(attend(q, k, v, **rule, implementation=implementation)))

    actual, expected = (
        jax.jit(jax.value_and_grad(run), static_argnums=1)(v, implementation) for implementation in (SMALL, "reference")
    )
    assert jnp.isfinite(actual[0])
    np.testing.assert_allclose(actual[0], expected[0], rtol=FORWARD["float32"])
    np.testing.assert_allclose(actual[1], expected[1], atol=FORWARD["float32"])
    assert jnp.all(actual[1][forbidden] == 0)


@pytest.mark.parametrize("shape", [*slow((1, 7), (10, 1), (1, 1)), (2, 1, 7)], ids=str)
@pytest.mark.parametrize("normalize", [None, *slow(normalizers.sparsemax())])
def test_arrays_with_one_entry_for_all_queries_or_all_keys(shape, normalize, monkeypatch):
    monkeypatch.setattr("jax_attention.implementations.blockwise.row_blocks.MAX_SCORES_PER_BLOCK", 30)
    q, k, bias = normal(0, 2, 10, 3), normal(1, 2, 7, 3), normal(2, *shape)
    allowed = random_mask(3, *shape)

    def loss(q, bias, implementation):
        rule = {"mask": masks.dense(allowed) & masks.causal(3), "mods": (mods.bias(bias),), "normalize": normalize}
        return jnp.sum(jnp.sin(attend(q, k, k, **rule, implementation=implementation)))

    gradients = jax.jit(jax.value_and_grad(loss, (0, 1)), static_argnums=2)
    actual, expected = (gradients(q, bias, implementation) for implementation in (SMALL, "reference"))
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=GRADIENT["float32"], atol=GRADIENT["float32"])


@pytest.mark.parametrize("ids", [(1, 7), (10, 1), (1, 1)], ids=str)
def test_one_segment_for_all(ids):
    q, k = normal(0, 10, 3), normal(1, 7, 3)
    mask = masks.segments(*(jnp.arange(n) // 4 for n in ids))

    def outputs(q, k):
        return [attend(q, k, k, mask=mask, implementation=implementation) for implementation in (SMALL, "reference")]

    actual, expected = jax.jit(outputs)(q, k)
    np.testing.assert_allclose(actual, expected, rtol=FORWARD["float32"], atol=FORWARD["float32"])


@struct
class Sharpness(normalizers.Normalizer):
    """Sigmoid with a slope per query and per key, and an output scaled by query."""

    rows: jax.Array = array_field("T")
    columns: jax.Array = array_field("S")

    def numerator(self, z, where, row_max):
        return jnp.where(where, jax.nn.sigmoid(z * self.rows[..., :, None] * self.columns[..., None, :]), 0)

    def denominator(self, total, row_max):
        return 1 + self.rows[..., :, None] ** 2


@struct
class Table(scores.Score):
    """q . k plus a number for every pair, which is scaled by a number for every query."""

    pairs: jax.Array = array_field("T", "S")
    rows: jax.Array = array_field("T")

    def tile(self, query, key):
        return query @ jnp.swapaxes(key, -1, -2) + self.pairs * self.rows[..., :, None]


@pytest.mark.parametrize("normalize", [*slow(None, normalizers.sparsemax()), Sharpness])
def test_parts_of_users_may_have_an_entry_per_query_and_per_key(normalize, x64, monkeypatch):
    monkeypatch.setattr("jax_attention.implementations.blockwise.row_blocks.MAX_SCORES_PER_BLOCK", 30)
    q, k = normal(0, 2, 10, 3, dtype=jnp.float64), normal(1, 2, 7, 3, dtype=jnp.float64)
    arrays = tuple(normal(n, *shape, dtype=jnp.float64) for n, shape in enumerate([(10, 7), (10,), (7,)], 2))

    def loss(arrays, implementation):
        pairs, rows, columns = arrays
        rule = {"score": Table(pairs, rows), "normalize": normalize}
        if normalize is Sharpness:
            rule["normalize"] = Sharpness(rows, columns)
        return jnp.sum(jnp.sin(attend(q, k, k, mask=masks.causal(2), implementation=implementation, **rule)))

    gradients = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    actual, expected = (gradients(arrays, implementation) for implementation in (SMALL, "reference"))
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=GRADIENT["float64"], atol=GRADIENT["float64"])


@pytest.mark.parametrize("shape", [(1, 64), *slow((64, 1), (8, 8))], ids=str)
def test_gradients_of_biases_in_half_precision_are_summed_in_float32(shape):
    """The bias is shared by 64 rows, columns or batch elements, too many terms for a sum in half precision."""
    x = normal(0, 8, 64 if 64 in shape else 8, 4)
    bias = jnp.zeros(shape, jnp.bfloat16)

    def loss(bias, implementation):
        rule = {"normalize": normalizers.sigmoid(), "mods": (mods.bias(bias),)}
        return jnp.sum(attend(x, x, 1 + x, **rule, implementation=implementation))

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    exact = gradient(bias.astype(jnp.float32), "reference")
    for implementation in (SMALL, "reference"):
        actual = np.float32(gradient(bias, implementation))
        np.testing.assert_allclose(actual, exact, rtol=0.005, atol=0.005 * float(jnp.abs(exact).max()))


BAD = {
    "score": (lambda q, k: q @ k.T * jnp.ones((12, 12)), "score: expected a function of any block"),
    "mods": ((lambda z, q, k: z + jnp.ones((12, 12)),), "mods: expected a function of any block"),
    "mask": (lambda q, k: jnp.ones((12, 12), bool), "mask: expected a function of any block"),
}


@pytest.mark.parametrize("part", BAD)
def test_a_function_of_the_whole_row_is_refused(part):
    function, message = BAD[part]
    x = normal(0, 12, 3)
    assert attend(x, x, x, **{part: function}).shape == (12, 3)  # correct in the reference
    with pytest.raises(ValueError, match=message) as failed:
        attend(x, x, x, **{part: function}, implementation=SMALL)
    assert "ask for implementation='reference'" in str(failed.value)


def test_a_function_after_a_part_in_float64(x64):
    """Scores in float32 plus a table in float64 are float64, and so is the input of the next function."""
    x, table, slope = normal(0, 7, 3, dtype="float32"), np.ones((7, 7)), jnp.arange(7, dtype=jnp.float32)
    rule = {"mods": (mods.bias(table), lambda z, s, t: z * slope[s], lambda z, s, t: z - 1)}

    def outputs(x):
        return [attend(x, x, x, **rule, implementation=implementation) for implementation in (SMALL, "reference")]

    actual, expected = jax.jit(outputs)(x)
    np.testing.assert_allclose(actual, expected, rtol=FORWARD["float32"], atol=FORWARD["float32"])


@pytest.mark.parametrize("tile", [(0, 3), (4,), 4, (4.0, 3)])
def test_a_wrong_tile_is_refused(tile):
    with pytest.raises(ValueError, match="tile: expected"):
        Blockwise(tile)


def test_an_unknown_implementation_is_refused():
    x = normal(0, 3, 3)
    for wrong in ("flash", ("blockwise",), 3):
        with pytest.raises(ValueError, match="there is no implementation"):
            attend(x, x, x, implementation=wrong)


@pytest.mark.parametrize(
    "normalize", [*slow(None), normalizers.sparsemax(), *slow(lambda z, where: jax.nn.softmax(z * where))]
)
def test_weights_and_statistics_by_blocks_of_rows(normalize, x64, monkeypatch):
    monkeypatch.setattr("jax_attention.implementations.blockwise.row_blocks.MAX_SCORES_PER_BLOCK", 30)
    operands = [normal(n, 2, 11, 3, dtype=jnp.float64) for n in range(3)]
    rule = {"mask": masks.causal() & masks.sliding_window(4), "normalize": normalize}

    def answers(implementation):
        call = {**rule, "implementation": implementation}
        numbers = lambda *x: sum(jnp.sum(jnp.sin(y)) for y in attend_with_stats(*x, **call))  # noqa: E731
        return attention_weights(*operands, **call), *attend_with_stats(*operands, **call), jax.grad(numbers)(*operands)

    for actual, expected in zip(
        *jax.jit(lambda: [answers(implementation) for implementation in (SMALL, "reference")])(), strict=True
    ):
        np.testing.assert_allclose(actual, expected, rtol=GRADIENT["float64"], atol=GRADIENT["float64"])


def test_keys_that_belong_to_queries_are_cut_with_them():
    """The location score has one key row per query; blocks of queries for sparsemax take only their own."""
    operands = normal(0, 2, 7, 3), normal(1, 2, 7, 4), normal(2, 2, 5, 2)
    rule = {"score": scores.location(normal(3, 7, 5)), "normalize": normalizers.sparsemax()}

    def answers(implementation):
        run = lambda *x: attend(*x, **rule, implementation=implementation)  # noqa: E731
        output, pullback = jax.vjp(run, *operands)
        return output, *pullback(jnp.cos(output))

    actual, expected = jax.jit(lambda: (answers(Blockwise(tile=(3, 3))), answers("reference")))()
    for x, y in zip(actual, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=GRADIENT["float32"], atol=GRADIENT["float32"])
