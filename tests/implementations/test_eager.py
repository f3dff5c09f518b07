"""Outside of `jit` equal calls share one program, different calls do not, and state that functions read may change."""

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


def check_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=FORWARD["float32"], atol=FORWARD["float32"])


def test_equal_calls_share_one_program(monkeypatch):
    original, traces = Blockwise.attend, []
    monkeypatch.setattr(Blockwise, "attend", lambda self, call: traces.append(1) or original(self, call))
    rule = lambda slope: {"mask": masks.causal(), "mods": (mods.alibi(slope),), "implementation": "blockwise"}  # noqa: E731
    for slope in (0.1, 0.2):
        actual = attend(X, X, X, **rule(jnp.array(slope)))
        check_close(actual, attend(X, X, X, **{**rule(jnp.array(slope)), "implementation": "reference"}))
    assert len(traces) == 1


@pytest.mark.parametrize(
    "transformation",
    [
        jax.grad,
        *slow(lambda f: lambda x: jax.jvp(jax.grad(f), (x,), (x,))[1]),
        *slow(lambda f: lambda x: jax.vmap(jax.grad(f))(jnp.stack([x, x]))[1]),
        *slow(lambda f: jax.grad(jax.checkpoint(f))),
    ],
    ids=["grad", "hvp", "vmap of grad", "grad of checkpoint"],
)
def test_equal_calls_share_one_program_under_bare_transformations(transformation, caplog):
    def run(x, implementation):
        return jnp.sum(jnp.sin(attend(x, x, x, mask=masks.causal(), implementation=implementation)))

    compiled = []
    for x in (X, X / 2, X / 4):
        caplog.clear()
        with jax.log_compiles():
            actual = transformation(lambda x: run(x, "blockwise"))(x)
        compiled.append(sum("Compiling" in record.getMessage() for record in caplog.records))
        check_close(actual, transformation(lambda x: run(x, "reference"))(x))
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
    "change",
    [
        {"mask": masks.causal(1)},
        {"query_positions": np.arange(11) + 2},
        *slow({"normalize": normalizers.softmax(plus_one=True)}, {"score": scores.scaled_dot(0.7)}),
        {"precision": "highest"},
    ],
    ids=str,
)
def test_different_calls_share_no_program(change):
    first = {"mask": masks.causal(), "implementation": "blockwise"}
    attend(X, X, X, **first)
    check_close(
        attend(X, X, X, **{**first, **change}), attend(X, X, X, **{**first, **change, "implementation": "reference"})
    )


@pytest.mark.parametrize("make", [masks.dense, lambda x: masks.block_sparse(x, 1)], ids=["dense", "block_sparse"])
def test_masks_of_numpy_differ_by_their_entries(make):
    for allowed in (np.tri(11, dtype=bool), np.tri(11, dtype=bool).T):
        actual = attend(X, X, X, mask=make(allowed), implementation="blockwise")
        check_close(actual, attend(X, X, X, mask=make(allowed), implementation="reference"))


def test_arrays_of_numpy_share_one_program(monkeypatch):
    original, traces = Blockwise.attend, []
    monkeypatch.setattr(Blockwise, "attend", lambda self, call: traces.append(1) or original(self, call))
    for factor in (1, 2):
        rule = {
            "mods": (mods.bias(factor * np.eye(11, dtype=np.float32)), mods.temperature(np.float32(factor))),
            "mask": masks.segments(np.arange(11) // factor) | masks.lengths(np.int32(factor)),
        }
        actual = attend(X, X, X, **rule, implementation="blockwise")
        check_close(actual, attend(X, X, X, **rule, implementation="reference"))
    assert len(traces) == 1


def test_a_block_layout_of_numpy_is_static(monkeypatch):
    """The program leaves out empty blocks; a dense array is an argument of the program."""
    original, leaf_types = Blockwise.attend, []

    def record_leaf_type(self, call):
        leaf_types.append(type(jax.tree.leaves(call.mask)[0]))
        return original(self, call)

    monkeypatch.setattr(Blockwise, "attend", record_leaf_type)
    for mask in (masks.block_sparse(np.eye(11, dtype=bool), 1), masks.dense(np.eye(11, dtype=bool))):
        attend(X, X, X, mask=mask, implementation="blockwise")
    assert leaf_types[0] is np.ndarray
    assert issubclass(leaf_types[1], jax.core.Tracer)


def test_state_that_a_function_reads_may_change():
    state = {"factor": 1.0}
    parts = (
        {"mods": (lambda z, s, t: z * state["factor"],)},
        {"score": scores.features(lambda x: x * state["factor"])},
        {"mask": masks.causal() & (lambda s, t: t < 5 * state["factor"])},
    )
    for part in parts:
        for state["factor"] in (1.0, 2.0):
            actual = attend(X, X, X, **part, implementation="blockwise")
            check_close(actual, attend(X, X, X, **part, implementation="reference"))


def test_precision_is_that_of_the_call():
    weights = lambda: attention_weights(X, X, X, implementation="blockwise")  # noqa: E731
    with jax.default_matmul_precision("bfloat16"):
        low_precision = weights()
    check_close(weights(), attention_weights(X, X, X, implementation="reference"))
    assert low_precision.shape == (11, 11)
