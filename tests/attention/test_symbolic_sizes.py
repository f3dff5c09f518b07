"""Attention with symbolic batch sizes and lengths: `jax.export` makes one program for all of them.

Reports: onnx (jax2onnx#50), Keras (keras#19048) and PyTorch (pytorch#120075) users could not export attention with a
batch or length that is open; jax.nn.dot_product_attention can be exported.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jax_attention
from jax_attention import (
    Blockwise,
    Cudnn,
    Dropout,
    LinearAttention,
    attend,
    attend_heads,
    attend_step,
    attend_with_stats,
    attention_weights,
    dot_product_attention,
    explain,
    masks,
    normalizers,
    scores,
)
from jax_attention.core.struct import map_arrays
from jax_attention.implementations.cudnn import eligible
from tests.support import cases
from tests.support.arrays import normal, normal_arrays
from tests.support.exporting import SIZES, SYMBOLIC, check_exported, spec, symbolic_sizes
from tests.support.tiers import slow_except
from tests.support.tolerances import FORWARD

LINEAR_RULE = {"score": scores.features("relu"), "normalize": normalizers.proportional()}
RULES: dict[str, dict[str, Any]] = {
    "reference": {"implementation": "reference"},
    "blockwise": {"implementation": Blockwise(tile=(4, 4))},
    "linear_attention": {"implementation": LinearAttention(chunk=4), **LINEAR_RULE},
    "chosen": {},
}
"""Implementations by name, each with a rule that it computes; "chosen" leaves the choice to the library."""
ENTRIES: dict[str, Callable] = {
    name: partial(getattr(jax_attention, name), mask=masks.causal())
    for name in (
        "attend",
        "attend_heads",
        "attention_weights",
        "attention_weights_heads",
        "attend_with_stats",
        "attend_with_stats_heads",
    )
} | {"dot_product_attention": partial(dot_product_attention, is_causal=True)}
REFUSED = dict.fromkeys(
    [
        ("attention_weights", "linear_attention"),
        ("attention_weights_heads", "linear_attention"),
        ("attend_with_stats", "linear_attention"),
        ("attend_with_stats_heads", "linear_attention"),
    ],
    "weights and statistics: linear_attention forms none",
) | {("dot_product_attention", "linear_attention"): "score: under softmax"}
"""What is refused for every size, symbolic or not, and the reason."""
QUICK = [
    "attend_heads-blockwise-both",
    "attend-linear_attention-both",
    "attention_weights_heads-chosen-both",
]
TABLE = [
    pytest.param(entry, rule, kind, id=f"{entry}-{rule}-{kind}")
    for entry in ENTRIES
    for rule in RULES
    for kind in SYMBOLIC
    if (entry, rule) not in REFUSED
]


def shapes(entry: str, batch: Any, length: Any) -> tuple[tuple, ...]:
    """Shapes of query, key and value; two key heads for four query heads."""
    heads = entry.endswith("heads") or entry == "dot_product_attention"
    query, rest = ((4,), (2,)) if heads else ((), ())
    return (batch, length, *query, 4), (batch, length, *rest, 4), (batch, length, *rest, 3)


def options(entry: str, rule: str) -> dict[str, Any]:
    if entry == "dot_product_attention":
        return {"implementation": RULES[rule].get("implementation")}
    return RULES[rule]


@pytest.mark.parametrize(("entry", "rule", "kind"), slow_except(QUICK, TABLE))
def test_one_exported_program_is_right_at_every_size(entry, rule, kind):
    specs = tuple(spec(*shape) for shape in shapes(entry, *symbolic_sizes(kind)))
    arguments = [normal_arrays(length, *shapes(entry, batch, length)) for batch, length in SIZES[kind]]
    check_exported(partial(ENTRIES[entry], **options(entry, rule)), specs, arguments, (0, 1, 2))


@pytest.mark.parametrize(("entry", "rule"), REFUSED)
def test_what_is_refused_for_numbers_is_refused_for_symbols(entry, rule):
    with pytest.raises(ValueError, match=REFUSED[entry, rule]):
        jax.eval_shape(
            partial(ENTRIES[entry], **options(entry, rule)),
            *(spec(*shape) for shape in shapes(entry, *symbolic_sizes("both"))),
        )


CATALOGUE = [
    pytest.param(part, case, implementation, id=f"{part}-{case.name}-{implementation}")
    for part, cases_of_part in cases.PARTS.items()
    for case in cases_of_part
    for implementation in ("reference", "blockwise", "chosen")
]


@pytest.mark.parametrize(
    ("part", "case", "implementation"),
    slow_except(["mask-segments-blockwise", "normalize-entmax15-blockwise", "mod-plain-blockwise"], CATALOGUE),
)
def test_every_part_takes_symbolic_numbers_of_queries_and_keys(part, case, implementation):
    """T and S are two symbols, also in the arrays of the part; the direct call is the dense formula."""
    chosen = {"reference": "reference", "blockwise": Blockwise(tile=(2, 3)), "chosen": None}[implementation]
    fixed = case.name in ("location", "causal(bottom right)")  # S, or S - T, is a number of the rule itself
    sizes = [(5, 7), (1, 3 if not fixed else 7)][: 1 if case.name == "causal(bottom right)" else 2]
    t, s = export.symbolic_shape("t, s")
    symbols = {"T": t, "S": 7 if case.name == "location" else s}

    def build(rows: int, columns: int, seed: int) -> tuple[Any, list[jax.Array]]:
        draw = cases.Draw(np.random.default_rng(seed), cases.Shape(rows, columns), (2,))
        choice, _ = case.build(draw)
        return choice, [x.jax for x in cases.operands(draw, choice if part == "score" else None)]

    choice, operands = build(*sizes[0], seed=0)
    is_plain = not hasattr(choice, "part")

    def symbolic(entry: Any) -> Any:
        shape, first = list(entry.array.shape), entry.array.ndim - len(entry.axes)
        for axis, name in enumerate(entry.axes, first):
            shape[axis] = symbols.get(name, shape[axis])
        return spec(*shape, dtype=entry.array.dtype)

    def run(implementation: Any, choice_: Any, *operands: jax.Array) -> jax.Array:
        rule = cases.rule_arguments(part, choice if is_plain else choice_)
        return attend(*operands, **rule, implementation=implementation)

    rows = [t, t if getattr(choice, "key_per_query", False) else symbols["S"], symbols["S"]]
    specs = [spec(2, size, x.shape[-1]) for size, x in zip(rows, operands, strict=True)]
    parts = [build(*size, seed=1) for size in sizes]
    arguments = [(None if is_plain else part, *operands) for part, operands in parts]
    check_exported(
        partial(run, chosen),
        (None if is_plain else map_arrays(symbolic, choice), *specs),
        arguments,
        (1, 2, 3),
        direct=partial(run, "reference"),
    )


@pytest.mark.parametrize("implementation", slow_except(["blockwise"], ["reference", "blockwise"]))
def test_dropout_keeps_the_same_pairs(implementation):
    """The bits belong to pairs of positions, also where these are not known when the program is made."""
    rng = jax.random.key(3)

    def run(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        rule = {"mask": masks.causal(), "dropout": Dropout(rng, 0.4)}
        return attend_heads(q, k, v, **rule, implementation=RULES[implementation]["implementation"])

    specs = tuple(spec(*shape) for shape in shapes("attend_heads", *symbolic_sizes("both")))
    arguments = [normal_arrays(0, *shapes("attend_heads", 2, 9))]
    check_exported(run, specs, arguments, (0, 1, 2))


def test_a_causal_offset_of_linear_attention_may_exceed_the_symbolic_length():
    """`causal(4)` over 3 keys sees all of them, over 11 it does not."""
    run = partial(attend, mask=masks.causal(4), **RULES["linear_attention"])
    specs = tuple(spec(*shape) for shape in shapes("attend", *symbolic_sizes("length")))
    check_exported(run, specs, [normal_arrays(0, *shapes("attend", 3, t)) for t in (3, 11)], (0, 1, 2))


def test_a_program_keeps_its_gradient_through_serialisation():
    """`jax.grad` of the program that was read back, as a service calls it."""
    attention = jax.jit(partial(attend, mask=masks.causal(), implementation=Blockwise(tile=(4, 4))))
    specs = [spec(*shape) for shape in shapes("attend", *symbolic_sizes("length"))]
    program = export.deserialize(export.export(attention)(*specs).serialize(vjp_order=1))
    operands = normal_arrays(0, *shapes("attend", 3, 6))

    def gradient(function: Callable) -> list[jax.Array]:
        return jax.jit(jax.grad(lambda *x: jnp.sum(jnp.sin(function(*x))), (0, 1, 2)))(*operands)

    for actual, expected in zip(gradient(program.call), gradient(attention), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=FORWARD["float32"], atol=FORWARD["float32"])


def test_steps_of_linear_attention_take_a_symbolic_number_of_rows():
    def run(x: jax.Array) -> Any:
        first, state = attend_step(None, x, x, x, **LINEAR_RULE)
        return first, attend_step(state, x, x, x, **LINEAR_RULE)[0]

    b, t = symbolic_sizes("both")
    check_exported(run, (spec(b, t, 4),), [(normal(0, 2, 5, 4, dtype="float32"),)], (0,))


def explanation(sizes: str, *constraints: str, **rule: Any) -> Any:
    """What `explain` says inside of a program with operands `[*sizes, 64]`."""
    found = []

    def trace(x: jax.Array) -> jax.Array:
        found.append(explain(x, x, x, **rule))
        return x

    jax.eval_shape(trace, spec(*export.symbolic_shape(sizes, constraints=constraints), 64))
    return found[0]


def test_the_choice_takes_a_symbolic_size_for_a_large_one():
    """Dense only where the scores are known to be few; else linear attention if the rule has it; else blockwise."""
    assert explanation("b, 128").chosen == "reference"
    assert explanation("b, t", "t <= 128").chosen == "reference"
    assert explanation("b, 512").chosen == "blockwise"
    assert explanation("b, 512", "b <= 4").chosen == "reference"
    assert explanation("3, t").chosen == "blockwise"
    assert explanation("b, t", **LINEAR_RULE, mask=masks.causal()).chosen == "linear_attention"
    text = str(explanation("b, t"))
    assert "not reference: b x t x t scores are computed tile by tile" in text
    assert "query:     float32[b,t,64]" in text
    assert "scores:    float32[b,t,t], 4*b*t^2 bytes" in text


def refused_calls() -> dict[str, tuple[Callable, type[Exception], str]]:
    """Calls that no symbolic size can make right, with their error."""
    b, t, s = export.symbolic_shape("b, t, s")
    x, other = spec(b, t, 4), spec(b, s, 4)
    offset = lambda q, k: attend(q, k, k, mask=masks.causal(k.shape[-2] - q.shape[-2]))  # noqa: E731
    cudnn = partial(attend_heads, implementation=Cudnn())
    heads = spec(b, t, 2, 8, dtype=jnp.bfloat16)
    return {
        "keys and values": (
            lambda: jax.eval_shape(attend, x, x, other),
            ValueError,
            "value: expected t rows, as many as there are keys, got s",
        ),
        "batch": (
            lambda: jax.eval_shape(attend, x, spec(t, s, 4), spec(t, s, 4)),
            ValueError,
            r"query, key, value: expected batch dimensions that broadcast together, got query \(b,\)",
        ),
        "offset": (
            lambda: jax.eval_shape(offset, x, other),
            TypeError,
            "offset: expected a Python int .*For an offset known only at run time pass query_positions= to attend",
        ),
        "cudnn": (
            lambda: jax.eval_shape(cudnn, heads, heads, heads),
            ValueError,
            r"the cuDNN kernel needs known sizes, got scores \(b, 2, t, t\); implementation='blockwise'",
        ),
        "location": (
            lambda: jax.eval_shape(
                partial(attend, score=scores.location(jnp.ones((8, 6)), jnp.ones(6))), x, x, spec(b, s, 3)
            ),
            ValueError,
            "value: expected 6 rows",
        ),
    }


@pytest.mark.parametrize("name", refused_calls())
def test_what_cannot_be_exported_says_why(name, monkeypatch):
    monkeypatch.setattr(eligible, "compute_capability", lambda: (9, 0))
    call, error, message = refused_calls()[name]
    with pytest.raises(error, match=message):
        call()


def test_the_errors_of_numbers_do_not_depend_on_symbols():
    """A trace with symbols leaves the checks of numbers as they are."""
    x = spec(2, 5, 4)
    with pytest.raises(ValueError, match="value: expected 5 rows"):
        jax.eval_shape(attend_with_stats, x, x, spec(2, 6, 4))
    with pytest.raises(ValueError, match="value: expected 5 rows"):
        jax.eval_shape(attention_weights, x, x, spec(2, 6, 4))
