"""New numbers never recompile, a new structure does; parts compare by content and pass through jax.tree and jit."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import Dropout, attend, attend_heads, masks, mods, normalizers, scores
from tests.support import cases
from tests.support.tiers import slow_except_every

SHAPE = cases.Shape(3, 4)
X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)), jnp.float32)
PARTS = [p for p in cases.named_parts() if p.values[1].name != "plain"]


class CountedTraces:
    """`attend` under jit with the rule as an argument, and a count of its traces."""

    def __init__(self):
        self.count = 0
        self.call = jax.jit(self._attend)

    def _attend(self, rule):
        self.count += 1
        return attend(X, X, X, **rule)


FRESH = {
    "alibi slope": lambda i: {"mods": (mods.alibi(0.1 * i),)},
    "alibi slopes": lambda i: {"mods": (mods.alibi(jnp.asarray(0.1 * i)),)},
    "temperature": lambda i: {"mods": (mods.temperature(1.0 + i),)},
    "soft cap": lambda i: {"mods": (mods.soft_cap(1.0 + i),)},
    "bias": lambda i: {"mods": (mods.bias(jnp.full((4, 4), 0.1 * i).at[0].set(0.0).at[:, 0].set(1.0)),)},
    "relative": lambda i: {"mods": (mods.relative(jnp.arange(8.0) * i, max_distance=5),)},
    "causal": lambda i: {"mask": masks.causal()},
    "sliding_window": lambda i: {"mask": masks.sliding_window(4)},
    "algebra": lambda i: {"mask": (masks.causal() | masks.prefix(i)) & ~masks.dilated(3)},
    "lengths": lambda i: {"mask": masks.lengths(jnp.asarray(i))},
    "lengths as int": lambda i: {"mask": masks.lengths(i)},
    "segments": lambda i: {"mask": masks.segments(jnp.arange(4) // i)},
    "dense": lambda i: {"mask": masks.dense(jnp.arange(4) < i + jnp.arange(4)[:, None])},
    "scale": lambda i: {"score": scores.scaled_dot(0.1 * i)},
    "general": lambda i: {"score": scores.general(i * jnp.eye(4))},
    "sinks": lambda i: {"normalize": normalizers.softmax(jnp.asarray(0.1 * i))},
    "dropout": lambda i: {"dropout": Dropout(jax.random.key(i), 0.3)},
}
CONSTANT = {"causal", "sliding_window"}


@pytest.mark.parametrize("name", slow_except_every(3, FRESH))
def test_new_parts_of_the_same_structure_are_traced_once(name):
    """One trace serves all, and the output follows the new numbers: jax#3596, flax#5158."""
    counted = CountedTraces()
    outputs = [np.asarray(counted.call(FRESH[name](i))) for i in (1, 2, 3)]
    assert counted.count == 1
    for i, output in zip((1, 2, 3), outputs, strict=True):
        np.testing.assert_allclose(output, attend(X, X, X, **FRESH[name](i)), rtol=1e-5, atol=1e-6)
    assert (name in CONSTANT) == all(np.array_equal(x, outputs[0]) for x in outputs)


CHANGED = {
    "offset": ({"mask": masks.causal()}, {"mask": masks.causal(1)}),
    "window": ({"mask": masks.sliding_window(2)}, {"mask": masks.sliding_window(3)}),
    "bidirectional": tuple({"mods": (mods.relative(jnp.arange(8.0), bidirectional=b),)} for b in (True, False)),
    "power": ({"normalize": normalizers.relu()}, {"normalize": normalizers.relu(2)}),
    "plus_one": ({"normalize": normalizers.softmax()}, {"normalize": normalizers.softmax(plus_one=True)}),
    "block size": tuple({"mask": masks.block_sparse(jnp.eye(4, dtype=bool), n)} for n in (1, 2)),
    "rate": tuple({"dropout": Dropout(jax.random.key(0), rate)} for rate in (0.2, 0.7)),
    "order of mods": tuple({"mods": (mods.alibi(0.5), mods.soft_cap(0.5))[::step]} for step in (1, -1)),
    "kind": ({"mask": masks.causal()}, {"mask": masks.chunked(2)}),
    "algebra": ({"mask": masks.causal() & masks.prefix(2)}, {"mask": masks.causal() | masks.prefix(2)}),
}


@pytest.mark.parametrize("name", CHANGED)
def test_another_structure_is_another_program(name):
    counted = CountedTraces()
    first, second = (np.asarray(counted.call(rule)) for rule in CHANGED[name])
    assert counted.count == 2
    assert not np.array_equal(first, second)


def test_parts_of_different_types_have_different_structures():
    """With JAX's registration of dataclasses they are equal, and `jit` runs the program of the wrong part.

    `core/struct.py` has the details.
    """
    parts = [build(p.values[1]) for p in PARTS]
    by_type = {type(part): part for part in parts}
    by_type |= {Dropout: Dropout(jax.random.key(0), 0.5)}
    assert len(by_type) > 25
    structures = [jax.tree.structure(part) for part in by_type.values()]
    equal = [(a, b) for a, b in itertools.combinations(zip(by_type, structures, strict=True), 2) if a[1] == b[1]]
    assert equal == []
    assert jax.tree.structure((mods.alibi(1.0), mods.soft_cap(1.0))) != jax.tree.structure(
        (mods.soft_cap(1.0), mods.alibi(1.0))
    )


def test_heads_are_traced_once_for_new_slopes_and_lengths():
    count = 0

    @jax.jit
    def step(x, slopes, mask):
        nonlocal count
        count += 1
        return attend_heads(x, x[:, :, :2], x[:, :, :2], mods=(mods.alibi(slopes),), mask=mask)

    x = jnp.ones((2, 3, 4, 2))
    for i in range(1, 4):
        step(x, jnp.full(4, 0.1 * i), masks.causal() & masks.lengths(jnp.full((2, 1), i)))
    assert count == 1


def build(case, seed: int = 0):
    return case.build(cases.Draw(np.random.default_rng(seed), SHAPE))[0]


@pytest.mark.parametrize(("part", "case"), PARTS)
def test_parts_are_equal_by_content(part, case):
    """Equal content gives equality, one hash and one text; other numbers give inequality, but the same structure."""
    struct, same, other = build(case), build(case), build(case, 1)
    assert struct == same
    assert hash(struct) == hash(same)
    assert repr(struct) == repr(same)
    assert struct != "something else"
    assert (struct == other) == (not jax.tree.leaves(struct))
    assert jax.tree.structure(struct) == jax.tree.structure(other)


@pytest.mark.parametrize(("part", "case"), PARTS)
def test_parts_pass_through_tree_functions_and_jit(part, case):
    struct = build(case)
    leaves, structure = jax.tree.flatten(struct)
    assert jax.tree.unflatten(structure, leaves) == struct
    assert jax.tree.map(lambda x: x, struct) == struct
    assert jax.jit(lambda x: x)(struct) == struct
    assert repr(jax.tree.unflatten(structure, leaves)) == repr(struct)
    assert all(isinstance(x, (jax.Array, np.ndarray, float, int)) for x in leaves)


@pytest.mark.parametrize(("part", "case"), PARTS)
def test_the_text_of_a_part_begins_with_the_name_of_its_factory(part, case):
    if case.name != "algebra":
        assert repr(build(case)).startswith(case.factory.__name__ + "(")


TEXTS = [
    (masks.causal(), "causal()"),
    (masks.causal(-2), "causal(offset=-2)"),
    (masks.sliding_window(4), "sliding_window(left=4)"),
    (masks.sliding_window(None, None), "sliding_window(left=None, right=None)"),
    (mods.alibi(0.5), "alibi(slopes=0.5)"),
    (normalizers.softmax(plus_one=True), "softmax(plus_one=True)"),
    (scores.scaled_dot(), "scaled_dot()"),
    (masks.causal() & ~masks.prefix(2), "(causal() & ~prefix(length=2))"),
    (mods.bias(np.zeros((2, 3), np.float32)), "bias(array=float32[2,3])"),
]


@pytest.mark.parametrize(("part", "text"), TEXTS, ids=[text for _, text in TEXTS])
def test_texts(part, text):
    assert repr(part) == text


def test_unequal_parts():
    """Another number, structure, dtype, shape or type makes another part."""
    zeros = np.zeros((2, 2), np.float32)
    different = [
        masks.causal(),
        masks.causal(1),
        masks.chunked(1),
        masks.dilated(1),
        mods.alibi(0.5),
        mods.alibi(0.25),
        mods.temperature(0.5),
        mods.soft_cap(0.5),
        mods.bias(zeros),
        mods.bias(zeros.astype(np.float16)),
        mods.bias(zeros[:1]),
        masks.causal() & masks.dilated(2),
        masks.causal() | masks.dilated(2),
        masks.dilated(2) & masks.causal(),
    ]
    for i, a in enumerate(different):
        assert [j for j, b in enumerate(different) if a == b] == [i]


def test_parts_are_frozen_and_usable_as_keys():
    table = {masks.causal(): 1, masks.sliding_window(4): 2, mods.alibi(0.5): 3}
    assert table[masks.causal()] == 1
    assert table[masks.sliding_window(4)] == 2
    assert table[mods.alibi(0.5)] == 3
    with pytest.raises(AttributeError):
        masks.causal().offset = 1
