"""Outside of `jit`: equal calls share one program, others do not; what functions look up is never remembered."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import attend, attention_weights, masks, mods, normalizers, scores
from jax_attention.implementations.blockwise import Blockwise, blockwise
from tests.support.arrays import normal
from tests.support.tiers import slow
from tests.support.tolerances import FORWARD

X = normal(0, 11, 3)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=FORWARD["float32"], atol=FORWARD["float32"])


def test_equal_calls_share_one_program(monkeypatch):
    original, traces = Blockwise.attend, []
    monkeypatch.setattr(Blockwise, "attend", lambda self, call: traces.append(1) or original(self, call))
    rule = lambda slope: {"mask": masks.causal(), "mods": (mods.alibi(slope),), "implementation": "blockwise"}  # noqa: E731
    for slope in (0.1, 0.2):
        found = attend(X, X, X, **rule(jnp.array(slope)))
        close(found, attend(X, X, X, **{**rule(jnp.array(slope)), "implementation": "reference"}))
    assert len(traces) == 1


@pytest.mark.parametrize(
    "around",
    [
        jax.grad,
        *slow(lambda f: lambda x: jax.jvp(jax.grad(f), (x,), (x,))[1]),
        *slow(lambda f: lambda x: jax.vmap(jax.grad(f))(jnp.stack([x, x]))[1]),
        *slow(lambda f: jax.grad(jax.checkpoint(f))),
    ],
    ids=["grad", "hvp", "vmap of grad", "grad of checkpoint"],
)
def test_equal_calls_share_one_program_under_bare_transformations(around, caplog):
    def run(x, own):
        return jnp.sum(jnp.sin(attend(x, x, x, mask=masks.causal(), implementation=own)))

    compiled = []
    for x in (X, X / 2, X / 4):
        caplog.clear()
        with jax.log_compiles():
            found = around(lambda x: run(x, "blockwise"))(x)
        compiled.append(sum("Compiling" in record.getMessage() for record in caplog.records))
        close(found, around(lambda x: run(x, "reference"))(x))
    assert compiled[0] > 0
    assert compiled[1:] == [0, 0]


def test_equal_layers_share_one_trace(monkeypatch):
    original, traces = blockwise.make_tile_grid, []
    monkeypatch.setattr(blockwise, "make_tile_grid", lambda *x, **y: traces.append(1) or original(*x, **y))

    def deep(x):
        for _ in range(5):
            x = attend(x, x, x, mask=masks.causal(2), implementation="blockwise")
        return jnp.sum(x)

    jax.jit(jax.grad(deep)).lower(X)
    assert len(traces) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"mask": masks.causal(1)},
        {"query_positions": np.arange(11) + 2},
        *slow({"normalize": normalizers.softmax(plus_one=True)}, {"score": scores.scaled_dot(0.7)}),
        {"precision": "highest"},
    ],
    ids=str,
)
def test_different_calls_do_not(other):
    first = {"mask": masks.causal(), "implementation": "blockwise"}
    attend(X, X, X, **first)
    close(attend(X, X, X, **{**first, **other}), attend(X, X, X, **{**first, **other, "implementation": "reference"}))


@pytest.mark.parametrize("make", [masks.dense, lambda x: masks.block_sparse(x, 1)], ids=["dense", "block_sparse"])
def test_masks_of_numpy_differ_by_their_entries(make):
    for allowed in (np.tri(11, dtype=bool), np.tri(11, dtype=bool).T):
        found = attend(X, X, X, mask=make(allowed), implementation="blockwise")
        close(found, attend(X, X, X, mask=make(allowed), implementation="reference"))


def test_arrays_of_numpy_share_one_program(monkeypatch):
    original, traces = Blockwise.attend, []
    monkeypatch.setattr(Blockwise, "attend", lambda self, call: traces.append(1) or original(self, call))
    for factor in (1, 2):
        rule = {
            "mods": (mods.bias(factor * np.eye(11, dtype=np.float32)), mods.temperature(np.float32(factor))),
            "mask": masks.segments(np.arange(11) // factor) | masks.lengths(np.int32(factor)),
        }
        found = attend(X, X, X, **rule, implementation="blockwise")
        close(found, attend(X, X, X, **rule, implementation="reference"))
    assert len(traces) == 1


def test_a_layout_of_numpy_is_known_when_traced(monkeypatch):
    """So empty blocks are never part of the program; a dense array is an argument of it."""
    original, kinds = Blockwise.attend, []

    def note_kind(self, call):
        kinds.append(type(jax.tree.leaves(call.mask)[0]))
        return original(self, call)

    monkeypatch.setattr(Blockwise, "attend", note_kind)
    for mask in (masks.block_sparse(np.eye(11, dtype=bool), 1), masks.dense(np.eye(11, dtype=bool))):
        attend(X, X, X, mask=mask, implementation="blockwise")
    assert kinds[0] is np.ndarray
    assert issubclass(kinds[1], jax.core.Tracer)


def test_what_a_function_looks_up_may_change():
    state = {"factor": 1.0}
    parts = (
        {"mods": (lambda z, s, t: z * state["factor"],)},
        {"score": scores.features(lambda x: x * state["factor"])},
        {"mask": masks.causal() & (lambda s, t: t < 5 * state["factor"])},
    )
    for part in parts:
        for state["factor"] in (1.0, 2.0):
            found = attend(X, X, X, **part, implementation="blockwise")
            close(found, attend(X, X, X, **part, implementation="reference"))


def test_precision_is_that_of_the_call():
    ask = lambda: attention_weights(X, X, X, implementation="blockwise")  # noqa: E731
    with jax.default_matmul_precision("bfloat16"):
        rough = ask()
    close(ask(), attention_weights(X, X, X, implementation="reference"))
    assert rough.shape == (11, 11)
