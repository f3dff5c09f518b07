"""Every pair of parts against the loops of the oracle, in float32 and float64, with and without heads."""

from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest

from jax_attention import (
    attend,
    attend_heads,
    attend_with_stats,
    attend_with_stats_heads,
    attention_weights,
)
from jax_attention import attention_weights_heads as weights_heads
from tests.support import cases, oracle
from tests.support.tiers import slow, slow_except_every
from tests.support.tolerances import FORWARD

NO_MOD = cases.Case("none", None, lambda d: (None, lambda *i: None))
FACTORS = {
    "score": cases.SCORES,
    "mod": (NO_MOD, *cases.MODS),
    "second": (NO_MOD, cases.find("mod", "bias"), cases.find("mod", "soft_cap")),
    "mask": (NO_MOD, *cases.MASKS),
    "normalize": cases.NORMALIZERS,
    "shape": tuple(cases.SHAPES),
}


def pairwise(sizes: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Rows in which every pair of levels of every two factors occurs: a greedy choice of rows that cover new pairs."""
    axes = list(itertools.combinations(range(len(sizes)), 2))
    left = {(i, a, j, b) for i, j in axes for a in range(sizes[i]) for b in range(sizes[j])}
    rows = []
    while left:
        i, a, j, b = min(left)
        row = {i: a, j: b}
        for factor in [f for f in range(len(sizes)) if f not in row]:
            gain = [sum(_pair(factor, x, k, y) in left for k, y in row.items()) for x in range(sizes[factor])]
            row[factor] = max(range(sizes[factor]), key=lambda x: (gain[x], -((x + len(rows)) % sizes[factor])))
        rows.append(tuple(row[f] for f in range(len(sizes))))
        left -= {(i, row[i], j, row[j]) for i, j in axes}
    return rows


def _pair(i: int, a: int, j: int, b: int) -> tuple[int, int, int, int]:
    return (i, a, j, b) if i < j else (j, b, i, a)


ROWS = pairwise(tuple(len(levels) for levels in FACTORS.values()))


def test_every_catalogue_entry_has_a_case():
    assert cases.missing_cases() == set()


def test_every_pair_of_levels_is_covered():
    for i, j in itertools.combinations(range(len(FACTORS)), 2):
        sizes = [len(levels) for levels in FACTORS.values()]
        assert {(row[i], row[j]) for row in ROWS} == set(itertools.product(range(sizes[i]), range(sizes[j])))


def check_row(row: tuple[int, ...], dtype: str) -> None:
    chosen = {name: levels[x] for (name, levels), x in zip(FACTORS.items(), row, strict=True)}
    shape = cases.SHAPES[chosen.pop("shape")]
    draw = cases.Draw(np.random.default_rng(row), shape, dtype=dtype)
    built = {name: case.build(draw) for name, case in chosen.items()}
    parts, oracle_parts = ({name: pair[side] for name, pair in built.items()} for side in (0, 1))
    q, k, v = cases.operands(draw, parts["score"])
    rule = {name: parts[name] for name in ("score", "mask", "normalize")}
    rule["mods"] = tuple(parts[name] for name in ("mod", "second") if parts[name] is not None)
    rule |= shape.positions()
    expected = oracle_answer(oracle_parts, q, k, v, shape)
    label = " x ".join([*(case.name for case in chosen.values()), str(shape)])
    output, weights = jax.jit(lambda *x: (attend(*x, **rule), attention_weights(*x, **rule)))(q.jax, k.jax, v.jax)
    check_close(output, expected.output, dtype, label)
    check_close(weights, expected.weights, dtype, label)


def oracle_answer(oracle_parts, q, k, v, shape, index=(), kv_index=()) -> oracle.Answer:
    """The oracle's answer for one batch index."""
    parts = {name: oracle_part(*index) for name, oracle_part in oracle_parts.items()}
    mods = [parts[name] for name in ("mod", "second") if parts.get(name)]
    rule = {name: parts[name] for name in ("score", "mask", "normalize") if parts.get(name)}
    rule.setdefault("score", oracle.scaled_dot())
    return oracle.attend(q[index], k[kv_index], v[kv_index], mods=mods, **rule, **shape.positions())


def check_close(actual, expected, dtype: str, label: str = "") -> None:
    assert actual.dtype == dtype
    tolerance = FORWARD[dtype]
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=tolerance, atol=tolerance, err_msg=label)


SLICES = 18


@pytest.mark.parametrize("part", slow(*range(SLICES)))
def test_pairwise_float32(part):
    for row in ROWS[part::SLICES]:
        check_row(row, "float32")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_sample(dtype):
    with jax.enable_x64(dtype == "float64"):
        for row in ROWS[::60]:
            check_row(row, dtype)


@pytest.mark.parametrize("part", slow(*range(SLICES)))
def test_pairwise_float64(part, x64):
    for row in ROWS[part::SLICES]:
        check_row(row, "float64")


@pytest.mark.parametrize(("part", "case"), slow_except_every(3, cases.named_parts()))
@pytest.mark.parametrize("batch", [*slow(()), (2,)], ids=["", "batch"])
def test_grouped_heads_with_parameters_per_head(part, case, batch, x64):
    """N = 4 query heads over K = 2 key heads; every array has different numbers for every head and batch element."""
    shape, heads, kv_heads = cases.SHAPES["moved"], 4, 2
    rng = np.random.default_rng(7)
    draw = cases.Draw(rng, shape, batch_shape=(*batch, heads), dtype="float64")
    choice, oracle_part = case.build(draw)
    q, k, v = cases.operands(draw, choice if part == "score" else None, kv_batch_shape=(*batch, kv_heads))
    rule = cases.rule_arguments(part, choice) | shape.positions()
    arrays = [np.swapaxes(x.array, -2, -3) for x in (q, k, v)]
    forms = attend_heads, weights_heads, attend_with_stats_heads
    output, weights, statistics = jax.jit(lambda *x: [form(*x, **rule) for form in forms])(*arrays)
    for index in np.ndindex(*batch, heads):
        kv_index = (*index[:-1], index[-1] * kv_heads // heads)
        expected = oracle_answer({part: oracle_part}, q, k, v, shape, index, kv_index)
        rows = (*index[:-1], slice(None), index[-1])
        check_close(output[rows], expected.output, "float64", str(index))
        check_close(weights[index], expected.weights, "float64", str(index))
        check_close(statistics.logsumexp[rows], expected.logsumexp, "float64", str(index))
        check_close(statistics.max_score[rows], expected.max_score, "float64", str(index))
        check_close(statistics.entropy[rows], expected.entropy, "float64", str(index))


@pytest.mark.parametrize("kv_batch_shape", [*slow((2, 3)), (3,), (2, 1), *slow(())], ids=str)
def test_batch_dimensions_broadcast(kv_batch_shape, x64):
    """Keys without the batch dimensions of the query are shared."""
    shape = cases.SHAPES["wide"]
    draw = cases.Draw(np.random.default_rng(3), shape, batch_shape=(2, 3), dtype="float64")
    mod, oracle_part = cases.find("mod", "alibi").build(draw)
    q, k, v = cases.operands(draw, kv_batch_shape=kv_batch_shape)
    output = attend(q.jax, k.jax, v.jax, mods=(mod,))
    for index in np.ndindex(2, 3):
        shared = tuple(
            0 if size == 1 else i for i, size in zip(index[2 - len(kv_batch_shape) :], kv_batch_shape, strict=True)
        )
        expected = oracle_answer({"mod": oracle_part}, q, k, v, shape, index, shared)
        check_close(output[index], expected.output, "float64", str(index))


def test_statistics_against_the_loops(x64):
    for name, case in ((case.name, case) for case in cases.NORMALIZERS):
        shape = cases.SHAPES["square"]
        draw = cases.Draw(np.random.default_rng(5), shape, dtype="float64")
        (normalize, oracle_part), (mask, oracle_mask) = case.build(draw), cases.find("mask", "lengths").build(draw)
        q, k, v = cases.operands(draw)
        actual = jax.jit(lambda *x: attend_with_stats(*x, normalize=normalize, mask=mask))(q.jax, k.jax, v.jax)  # noqa: B023
        expected = oracle_answer({"normalize": oracle_part, "mask": oracle_mask}, q, k, v, shape)
        for field in actual._fields:
            check_close(getattr(actual, field), getattr(expected, field), "float64", f"{name} {field}")
