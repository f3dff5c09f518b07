"""Every implementation against the dense formula: outputs, gradients, Hessian products, and `vmap`, in float64."""

from __future__ import annotations

import itertools
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import (
    Blockwise,
    Dropout,
    attend,
    attend_with_stats_heads,
    masks,
    mods,
    normalizers,
    scores,
)
from jax_attention.implementations.blockwise import blockwise, row_blocks
from jax_attention.testing.derivative_checks import derivatives
from jax_attention.testing.make_trial import make_trial
from jax_attention.testing.run_check import complete_rule
from jax_attention.testing.trial import Trial
from tests.support.arrays import check_close, difference, normal, random_mask
from tests.support.tiers import long_except_every, slow, slow_except_every
from tests.support.tolerances import GRADIENT

T, S, N, H, E, A = 7, 5, 4, 3, 2, 3
IMPLEMENTATIONS = {"blockwise": Blockwise(tile=(4, 3)), "reference": "reference"}


def segments() -> masks.Mask:
    return masks.segments(
        jnp.array([[0, 0, 1, 1, 1, 2, 2], [0] * T])[:, None], jnp.array([[0, 0, 1, 3, 3], [0] * S])[:, None]
    )


SCORES = {
    "scaled_dot": lambda: scores.scaled_dot(),
    "cosine": lambda: scores.cosine(normal(0, N)),
    "general": lambda: scores.general(normal(1, N, H, H)),
    "additive": lambda: scores.additive(normal(2, H, A), normal(3, H, A), normal(4, A), normal(5, N, A)),
    "concat": lambda: scores.concat(normal(6, H), normal(7, H)),
    "l2": lambda: scores.l2(0.3),
    "location": lambda: scores.location(normal(22, N, 2 * H, S), normal(23, S)),
    "features": lambda: scores.features("elu_plus_one"),
    "random_features": lambda: scores.random_features(normal(21, N, 4, H)),
    "plain": lambda: lambda q, k: jnp.sin(q @ jnp.swapaxes(k, -1, -2)) * normal(8, N)[:, None, None],
}
MODS = {
    "none": lambda: (),
    "alibi": lambda: (mods.alibi(normal(9, N)),),
    "soft_cap, bias": lambda: (mods.soft_cap(2.0), mods.bias(normal(10, N, T, S))),
    "relative": lambda: (mods.relative(normal(11, N, 32)),),
    "temperature": lambda: (mods.temperature(1.3),),
    "plain": lambda: (lambda z, q, k: z * normal(12, N)[:, None, None] - 0.1 * jnp.abs(q - k),),
    "forbids": lambda: (lambda z, q, k: jnp.where((q + k) % 3 == 0, -jnp.inf, z),),
}
MASKS = {
    "none": lambda: None,
    "causal": lambda: masks.causal(),
    "causal, no pair": lambda: masks.causal(-20),
    "window": lambda: masks.sliding_window(3, 2, offset=1),
    "prefix | causal": lambda: masks.prefix(3) | masks.causal(),
    "lengths": lambda: masks.lengths(jnp.array([[2], [5]]), jnp.array([[7], [3]])),
    "segments & causal": lambda: segments() & masks.causal(),
    "~segments": lambda: ~segments(),
    "dense": lambda: masks.dense(random_mask(13, N, T, S)),
    "block_sparse": lambda: masks.block_sparse(random_mask(14, 4, 3), 2),
    "dilated": lambda: masks.dilated(2),
    "chunked": lambda: masks.chunked(3),
    "plain": lambda: lambda q, k: (q + k) % 3 != 0,
    "plain with heads": lambda: lambda q, k: (q + k) % (2 + jnp.arange(N)[:, None, None]) != 0,
}
NORMALIZERS = {
    "softmax": lambda: normalizers.softmax(),
    "sinks": lambda: normalizers.softmax(normal(15, N)),
    "plus_one": lambda: normalizers.softmax(plus_one=True),
    "sigmoid": lambda: normalizers.sigmoid(normal(16, N)),
    "relu": lambda: normalizers.relu(2),
    "linear": lambda: normalizers.linear(mean=True),
    "proportional": lambda: normalizers.proportional(eps=9.0),
    "uniform": lambda: normalizers.uniform(),
    "hard": lambda: normalizers.hard(),
    "sparsemax": lambda: normalizers.sparsemax(),
    "entmax15": lambda: normalizers.entmax15(),
    "plain": lambda: lambda z, where: jnp.where(where, jnp.exp(jnp.sin(z)), 0),
}
TABLES = (SCORES, MODS, MASKS, NORMALIZERS)


def pairwise(seed: int = 0) -> list[tuple[str, ...]]:
    """A few rules that combine every two entries of different tables, chosen greedily from random candidates."""
    rng = random.Random(seed)
    pairs_of_tables = list(itertools.combinations(range(4), 2))
    uncovered = {(a, b, x, y) for a, b in pairs_of_tables for x in TABLES[a] for y in TABLES[b]}
    chosen = []
    while uncovered:
        candidates = [tuple(rng.choice(list(table)) for table in TABLES) for _ in range(60)]
        a, b, x, y = min(uncovered)
        candidates = [
            tuple(x if n == a else y if n == b else name for n, name in enumerate(entry)) for entry in candidates
        ]
        covered = [{(a, b, entry[a], entry[b]) for a, b in pairs_of_tables} for entry in candidates]
        best = max(range(len(candidates)), key=[len(pairs & uncovered) for pairs in covered].__getitem__)
        uncovered -= covered[best]
        chosen.append(candidates[best])
    return chosen


def rule_of(names: tuple[str, ...]) -> dict:
    return {
        part: table[name]()
        for part, table, name in zip(("score", "mods", "mask", "normalize"), TABLES, names, strict=True)
    }


def trial_of(rule: dict, dtype: str = "float64") -> Trial:
    """The rule with random operands; the key of the location score has a row for each query."""
    return make_trial(complete_rule(rule), ((T, S),), N, H, seed=17).replace(dtype=dtype)


def check_derivatives(trial: Trial, tolerance: float = 1e-10, **options: object) -> None:
    """Loss, tangent, gradients and Hessian product, and gradients under `vmap` over two queries with shared keys."""
    point, direction = trial.point, trial.direction()
    two = {name: jnp.stack([point[name], factor * point[name]]) for name, factor in (("query", 2), ("value", -1))}
    axes = {name: 0 if name in two else None for name in point}

    def results(implementation: object) -> tuple:
        run = derivatives(trial, implementation=implementation, **options)
        gradient = jax.grad(lambda x: trial.loss(trial.attend_at(x, implementation=implementation, **options)))
        mapped = jax.jit(jax.vmap(gradient, (axes,)))({**point, **two})
        return run(point, direction), mapped

    check_close(*map(results, IMPLEMENTATIONS.values()), tolerance)


def check(names: tuple[str, ...], monkeypatch) -> None:
    if names in PAIRWISE_RULES[1::2]:  # as on an accelerator: all heads in one tile
        monkeypatch.setattr(blockwise, "batch_may_be_mapped", lambda call: False)
        monkeypatch.setattr(row_blocks, "batch_may_be_mapped", lambda call: False)
    monkeypatch.setattr(row_blocks, "MAX_SCORES_PER_BLOCK", 3 * S)
    check_derivatives(trial_of(rule_of(names)))


PAIRWISE_RULES = pairwise()
FEW_RULES = [tuple(list(table)[n % len(table)] for table in TABLES) for n in range(max(map(len, TABLES)))]
"""A few rules that use every entry of every table."""
CHEAP_RULE = ("scaled_dot", "none", "causal", "softmax")
"""A rule that compiles fast: `make test` compares its gradient, Hessian product and maps."""


@pytest.mark.parametrize("names", FEW_RULES, ids="; ".join)
def test_every_part_forward(names, x64):
    trial = trial_of(rule_of(names))

    def outputs(*x):
        return [trial.attend(*x, implementation=implementation) for implementation in IMPLEMENTATIONS.values()]

    check_close(*jax.jit(outputs)(*trial.operands), 1e-10)


@pytest.mark.parametrize("names", slow_except_every(7, FEW_RULES, 1), ids="; ".join)
def test_gradients_of_every_part(names, x64):
    """Gradients by the operands and by the arrays of the rule; `check` compares all other derivatives."""
    check_value_and_gradients(trial_of(rule_of(names)))


def check_value_and_gradients(trial: Trial, **options: object) -> None:
    def results(implementation: object) -> tuple:
        loss = lambda x: trial.loss(trial.attend_at(x, implementation=implementation, **options))  # noqa: E731
        return jax.jit(jax.value_and_grad(loss))(trial.point)

    check_close(*map(results, IMPLEMENTATIONS.values()), 1e-10)


@pytest.mark.parametrize("names", [CHEAP_RULE, *slow(*PAIRWISE_RULES[::50])], ids="; ".join)
def test_a_sample_of_rules(names, x64, monkeypatch):
    check(names, monkeypatch)


@pytest.mark.parametrize(
    "names", long_except_every(4, [names for n, names in enumerate(PAIRWISE_RULES) if n % 25]), ids="; ".join
)
def test_every_combination_of_two_parts(names, x64, monkeypatch):
    check(names, monkeypatch)


@pytest.mark.parametrize("names", slow(CHEAP_RULE, *PAIRWISE_RULES[6::62]), ids="; ".join)
def test_statistics_of_a_sample(names, x64, monkeypatch):
    monkeypatch.setattr(row_blocks, "MAX_SCORES_PER_BLOCK", 3 * S)
    trial = trial_of(rule_of(names))
    tangents = jax.tree.map(jnp.cos, trial.operands)

    def results(implementation):
        def run(*operands):
            """Output and statistics, with 0 for the -inf of empty rows, which has no derivative."""
            output = attend_with_stats_heads(*operands, **trial.rule, implementation=implementation)
            return jax.tree.map(lambda x: jnp.where(jnp.isfinite(x), x, 0), tuple(output))

        gradients = jax.grad(lambda *x: sum(jnp.sum(jnp.sin(y)) for y in run(*x)), (0, 1, 2))
        return jax.jit(lambda *x: (jax.jvp(run, x, tangents), gradients(*x)))(*trial.operands)

    check_close(*map(results, IMPLEMENTATIONS.values()), 1e-10)


@pytest.mark.parametrize(
    "names", slow(*[names for names in PAIRWISE_RULES if "plain" not in names][4::58]), ids="; ".join
)
def test_a_sample_in_float32(names, x64, monkeypatch):
    """Both sum in float32 in different orders.

    First derivatives of each are within `GRADIENT` of the exact number, second derivatives within twice that.
    """
    check_derivatives(trial_of(rule_of(names), "float32"), 4 * GRADIENT["float32"])


def causal_alibi() -> Trial:
    return trial_of({"mask": masks.causal(), "mods": (mods.alibi(normal(9, N)),)})


def test_dropout_has_the_same_bits_forward_and_backward(x64):
    check_value_and_gradients(causal_alibi(), dropout=Dropout(jax.random.key(3), 0.4))


@pytest.mark.slow
@pytest.mark.parametrize("shared", [False, True])
def test_dropout_has_the_same_bits(shared, x64):
    check_derivatives(causal_alibi(), dropout=Dropout(jax.random.key(3), 0.4, shared))


@pytest.mark.parametrize(("rows_", "columns"), [(1, 1), (8, 6), (7, 1), (1, 7), (0, 3), (3, 0)])
def test_any_shape(rows_, columns, x64):
    arguments = normal(0, rows_, H), normal(1, columns, H), normal(2, columns, E)

    @jax.jit
    def run(*x):
        return [
            [attend(*x, mask=mask, implementation=implementation) for implementation in IMPLEMENTATIONS.values()]
            for mask in (None, masks.causal())
        ]

    for actual, expected in run(*arguments):
        assert actual.shape == (rows_, E)
        assert difference(actual, expected) <= 1e-12


AT_RUN_TIME = {"query_positions": [[3, 4, 9, 1, 0, 6, 7]], "key_positions": [[0, 5, 2, 3, 9]]}


@pytest.mark.parametrize("compare", [check_value_and_gradients, *slow(check_derivatives)])
def test_positions_at_run_time(compare, x64):
    options = {name: jnp.array(positions) for name, positions in AT_RUN_TIME.items()}
    compare(trial_of({"mask": masks.causal() & masks.sliding_window(3)}), **options)


@pytest.mark.parametrize("implementation", [*slow("reference"), "blockwise"])
def test_nan_in_padding_reaches_no_derivative(implementation, x64):
    """NaN and infinity stand in the padding of the operands, which the rule hides."""
    lengths = masks.lengths(jnp.array([[3], [4]]), jnp.array([[5], [6]]))
    trial = trial_of({"mask": lengths, "score": scores.general(normal(1, N, H, H))})
    point = {name: np.array(x) for name, x in trial.point.items()}
    point["query"][0, 5:], point["query"][1, 6:] = np.nan, np.inf
    point["key"][0, 3:], point["key"][1, 4:] = np.nan, np.nan
    point["value"][0, 3:], point["value"][1, 4:] = np.inf, np.nan
    run = derivatives(trial, implementation=IMPLEMENTATIONS[implementation])
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(run(point, trial.direction())))
