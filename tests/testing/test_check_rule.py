"""`testing.check_rule`: right rules pass, each kind of wrong rule fails the check that is meant for it.

Users publish rules that are right in one shape, one dtype or one mode only: a soft cap forgotten in the backward pass,
a window built from the wrong axis where T != S, sinks counted once per chunk (field reports of fused kernels in pure
JAX), NaN gradients of masked rows (jax#17117), the mask of batch element 0 used for all.
"""

from __future__ import annotations

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import masks, mods, normalizers, testing
from jax_attention.parts import (
    Mask,
    Mod,
    Normalizer,
    Score,
    array_field,
    finite_or_zero,
    per_tile,
    row_max,
    struct,
)
from jax_attention.testing.check_rule import CHECKS
from tests.support import cases
from tests.support.tiers import slow_except, slow_except_every

SKIPPED = {
    "normalize-hard": ("finite differences",),  # its derivative is that of the softmax, on purpose
    "score-features(hedgehog)": ("large scores",),  # exp of exp
}


@pytest.mark.parametrize(
    ("part", "case"),
    slow_except(("mod-alibi", "normalize-softmax(sinks)"), cases.named_parts()),
)
def test_every_part_of_the_library_passes(part, case):
    choice = case.build(cases.Draw(np.random.default_rng(0), cases.Shape(5, 7), (2, 4)))[0]
    skip = SKIPPED.get(f"{part}-{case.name}", ())
    head_size = cases.HEAD if (part, case.name) == ("score", "plain") else None  # the kit cannot look into a function
    report = testing.check_rule(**cases.rule_arguments(part, choice), skip=skip, head_size=head_size)
    report.assert_ok()
    not_run = {result.name for result in report.results if result.status == "not run"}
    assert not_run == {*skip, *(["block coverage"] if part != "mask" else [])}


# --- Wrong rules -----------------------------------------------------------------------------------------------------


@struct
class Decay(Mod):
    rate: jax.Array = array_field()
    spread: bool = True
    stops: bool = False

    def __call__(self, z, q_pos, k_pos):
        rate = jax.lax.stop_gradient(self.rate) if self.stops else self.rate
        return z - (per_tile(rate) if self.spread else rate) * jnp.abs(q_pos - k_pos)


@struct
class HeadSlopes(Mod):
    """Slopes by head, as if the axis before the queries always had all heads."""

    def __call__(self, z, q_pos, k_pos):
        return z - per_tile(2.0 ** -jnp.arange(z.shape[-3])) * jnp.abs(q_pos - k_pos)


@struct
class Band(Mask):
    """A band of one, whose coverage may claim too much."""

    low: int = 1
    high: int = 1

    def __call__(self, q_pos, k_pos):
        return abs(q_pos - k_pos) <= 1

    def block_coverage(self, tiles):
        low, high = tiles.k_low - tiles.q_high, tiles.k_high - tiles.q_low
        return tiles.coverage((low <= self.low) & (high >= -1), (low >= -1) & (high <= self.high))


@struct
class OwnSoftmax(Normalizer):
    """A softmax with one of three mistakes."""

    mistake: str

    def row_max(self, scores, where):
        return None if self.mistake == "no maximum" else row_max(jnp.where(where, scores, -jnp.inf))

    def rescale(self, old, new):
        if self.mistake == "no rescale":
            return 1.0
        return jnp.where(jnp.isneginf(old), 0, jnp.exp(finite_or_zero(old) - finite_or_zero(new)))

    def numerator(self, scores, where, row_max):
        shift = 0 if row_max is None else finite_or_zero(row_max)
        return jnp.where(where, jnp.exp(jnp.where(where, scores - shift, 0)), 0)

    def denominator(self, total, row_max):
        return total if self.mistake == "0 / 0" else jnp.where(total > 0, total, 1)


@struct
class ScaledSoftmax(Normalizer):
    """A softmax with a temperature, whose rescaling stops the gradient."""

    temperature: jax.Array = array_field()

    def row_max(self, scores, where):
        return row_max(jnp.where(where, scores, -jnp.inf))

    def rescale(self, old, new):
        change = (finite_or_zero(old) - finite_or_zero(new)) / per_tile(jax.lax.stop_gradient(self.temperature))
        return jnp.where(jnp.isneginf(old), 0, jnp.exp(change))

    def numerator(self, scores, where, row_max):
        z = jnp.where(where, scores - finite_or_zero(row_max), 0) / per_tile(self.temperature)
        return jnp.where(where, jnp.exp(z), 0)

    def denominator(self, total, row_max):
        return jnp.where(total > 0, total, 1)


@struct
class Cubed(Score):
    """A score that is no product, and says that it is one."""

    is_product = True

    def tile(self, query, key):
        return (query @ jnp.swapaxes(key, -1, -2)) ** 3


@struct
class Forbids(Mod):
    """A mod that forbids pairs, and says that it never does."""

    may_forbid_pairs = False

    def __call__(self, z, q_pos, k_pos):
        return jnp.where(k_pos > q_pos, -jnp.inf, z)


@struct
class Centred(Score):
    """A score whose projection mixes queries."""

    def project(self, query, key):
        return query - query.mean(-2, keepdims=True), key

    def tile(self, query, key):
        return query @ jnp.swapaxes(key, -1, -2)


@jax.custom_jvp
def wrong_slope(z):
    return jnp.sin(z)


@wrong_slope.defjvp
def wrong_slope_jvp(primals, tangents):
    return wrong_slope(*primals), 1.01 * jnp.cos(primals[0]) * tangents[0]


@jax.custom_vjp
def reverse_only(z):
    return jnp.sin(z)


reverse_only.defvjp(lambda z: (jnp.sin(z), z), lambda z, dz: (jnp.cos(z) * dz,))


@jax.custom_batching.custom_vmap
def wrong_batch(z):
    return 2 * z


@wrong_batch.def_vmap
def wrong_batch_rule(size, mapped, z):
    return z, True


COUNTER = itertools.count()
RATE = jnp.arange(1.0, 5.0) / 10
WRONG = {
    "a mod that looks at a whole row": (
        "tiles = dense",
        {"mods": (lambda z, q, k: z / jnp.abs(z).max(-1, keepdims=True),)},
        r"in the output, allowed .*treat each pair by itself",
    ),
    "the same under a normalizer of whole rows": (
        "tiles = dense",
        {"mods": (lambda z, q, k: z / jnp.abs(z).max(-1, keepdims=True),), "normalize": normalizers.sparsemax()},
        r"parts mods\[0\] <lambda> cure",
    ),
    "a mod that counts columns": (
        "tiles = dense",
        {"mods": (lambda z, q, k: z - 0.1 * jnp.arange(z.shape[-1]),)},
        r"tiles of 2 x 3",
    ),
    "a normalizer that ignores where": (
        "forbidden keys removed",
        {"normalize": lambda z, where: jax.nn.softmax(z), "mask": masks.causal()},
        r"keys \[3, 6\] forbidden.*`where` is False",
    ),
    "a coverage that calls tiles full": (
        "block coverage",
        {"mask": Band(high=2)},
        r"calls full, has a forbidden pair",
    ),
    "a coverage that calls tiles empty": (
        "block coverage",
        {"mask": Band(low=0)},
        r"calls empty, has an allowed pair",
    ),
    "a wrong derivative": (
        "finite differences",
        {"mods": (lambda z, q, k: wrong_slope(z),)},
        r"in the derivative of the loss \(jvp\), allowed",
    ),
    "an array without a gradient": (
        "finite differences",
        {"mods": (Decay(RATE, stops=True),)},
        r"direction mods\[0\]\.rate",
    ),
    "one mode only": (
        "finite differences",
        {"mods": (lambda z, q, k: reverse_only(z),)},
        r"TypeError: .*forward-mode",
    ),
    "a softmax without a maximum": ("large scores", {"normalize": OwnSoftmax("no maximum")}, r"NaN in the output"),
    "a softmax without rescaling": ("tiles = dense", {"normalize": OwnSoftmax("no rescale")}, r"row_max needs rescale"),
    "a rescale without a gradient": (
        "derivatives in tiles",
        {"normalize": ScaledSoftmax(1 + RATE)},
        r"make rescale\s+differentiable",
    ),
    "a score that says it is a product": ("class attributes", {"score": Cubed()}, r"in the score, .*is_product"),
    "a mod that says it forbids nothing": ("class attributes", {"mods": (Forbids(),)}, r"may_forbid_pairs = False"),
    "0 / 0 in an empty row": ("empty rows", {"normalize": OwnSoftmax("0 / 0")}, r"NaN in .*total > 0"),
    "a projection that mixes queries": ("one query at a time", {"score": Centred()}, r"in the output of query 0"),
    "a mod that counts rows": (
        "one query at a time",
        {"mods": (lambda z, q, k: z * jnp.arange(z.shape[-2])[:, None],)},
        r"do not count rows",
    ),
    "a mod that mixes the batch": ("batch elements", {"mods": (lambda z, q, k: z - z.mean(0),)}, r"batch dimensions"),
    "a rule of its own for vmap": ("vmap = batch", {"mods": (lambda z, q, k: wrong_batch(z),)}, r"vmap over two calls"),
    "random numbers": (
        "jit = eager",
        {"mods": (lambda z, q, k: z * next(COUNTER),)},
        r"in a second call, allowed 0",
    ),
    "half precision inside": (
        "dtypes",
        {"score": lambda q, k: (q.astype("bfloat16") @ jnp.swapaxes(k, -1, -2).astype("bfloat16")).astype(q.dtype)},
        r"float32.*never in a narrower one",
    ),
    "an array that is not spread": (
        "every shape",
        {"mods": (Decay(RATE, spread=False),)},
        r"mods: expected decay.*per_tile",
    ),
    "axes that vanish at size 1": (
        "every shape",
        {"mods": (lambda z, q, k: z + jnp.squeeze(q)[:, None] * 0.1 + jnp.squeeze(k) * 0.1,)},
        r"Error",
    ),
    "slopes made from the size of an axis": ("grouped heads", {"mods": (HeadSlopes(),)}, r"N = 4, K = 2"),
}


@pytest.mark.parametrize("name", slow_except_every(2, WRONG))
def test_wrong_rules_fail_the_check_that_is_meant_for_them(name):
    check, rule, message = WRONG[name]
    report = testing.check_rule(**rule, skip=tuple(set(CHECKS) - {check}))
    assert [result.name for result in report.failed] == [check]
    assert re.search(message, " ".join(str(report).split())), str(report)


# --- Reports ---------------------------------------------------------------------------------------------------------

CHEAP = tuple(set(CHECKS) - {"grouped heads", "forbidden keys removed", "class attributes"})


def careless(scores, where):
    return jax.nn.softmax(scores)


def test_a_report_is_a_table_and_an_error():
    rule = {"mods": (mods.soft_cap(3.0),), "mask": masks.causal(), "normalize": careless}
    report = testing.check_rule(**rule, skip=CHEAP)
    lines = str(report).splitlines()
    assert lines[0] == "rule: mods=(soft_cap(cap=3.0),), mask=causal(), normalize=careless"
    assert [line.split("  ")[0] for line in lines[1:-1] if not line.startswith(" ")] == ["float64", *CHECKS]
    assert lines[-1] == "3 ok, 1 FAILED, 12 not run"
    start = next(i for i, line in enumerate(lines) if line.startswith("forbidden keys removed    FAILED"))
    assert [line.split()[0] for line in lines[start + 1 : start + 5]] == ["input", "difference", "parts", "cure"]
    assert lines[start + 3].split() == ["parts", "normalize", "careless"]
    assert not report.ok
    with pytest.raises(AssertionError, match=r"(?s)rule: mods=.*forbidden keys removed +FAILED.*cure"):
        report.assert_ok()


def test_sizes_are_those_that_the_arrays_declare():
    draw = cases.Draw(np.random.default_rng(0), cases.Shape(3, 8), (6,))
    rule = {
        "score": cases.find("score", "location").build(draw)[0],
        "mods": (mods.bias(jnp.zeros((5, 1, 3, 8))), mods.alibi(jnp.ones(6))),
    }
    report = testing.check_rule(**rule, skip=tuple({*CHEAP} - {"every shape"}))
    notes = {result.name: result.note for result in report.results}
    report.assert_ok()
    assert notes["grouped heads"] == "N = 6, K = 3"
    assert notes["every shape"] == "3 x 8"


def test_functions_with_arrays_of_heads_and_features():
    slopes, weight = jnp.ones((6, 1, 1)), jnp.ones((5, 5))
    rule = {"score": lambda q, k: q @ weight @ jnp.swapaxes(k, -1, -2), "mods": (lambda z, q, k: z * slopes,)}
    testing.check_rule(**rule, heads=6, head_size=5, skip=CHEAP).assert_ok()


@pytest.mark.parametrize("x64", [False, True])
def test_a_cast_to_float32_is_wrong_only_where_float64_is_used(x64):
    """Without float64 there are no difference quotients, and the report says so."""
    rule = {"mods": (lambda z, q, k: z.astype(jnp.float32).astype(z.dtype),)}
    with jax.enable_x64(x64):
        report = testing.check_rule(**rule, skip=tuple({*CHEAP} - {"finite differences"}))
    results = {result.name: result for result in report.results}
    assert [result.name for result in report.failed] == ["float64"] * x64
    assert "casts float64 to float32" in str(results["float64"])
    assert results["finite differences"].note == "needs float64"


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"skip: expected names of checks, every shape, .*got tiles"):
        testing.check_rule(skip=("tiles",))
    with pytest.raises(ValueError, match=r"broadcast together, got mods\[0\]\.slopes \(4,\), mods\[1\]\.slopes \(3,\)"):
        testing.check_rule(mods=(mods.alibi(jnp.ones(4)), mods.alibi(jnp.ones(3))))
    with pytest.raises(TypeError, match="normalize: expected a part, got the factory softmax itself"):
        testing.check_rule(normalize=normalizers.softmax)


def test_parts_that_fail_only_together_are_not_blamed():
    grows = lambda z, q, k: 1e150 * z  # noqa: E731
    report = testing.check_rule(mods=(grows, grows, grows), skip=tuple(set(CHECKS) - {"every shape"}))
    assert report.failed[0].parts == "only together"
