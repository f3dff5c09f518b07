"""Results have the query's dtype; half precision computes in float32, float64 stays float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jax_attention import Dropout, attend, attend_with_stats, attention_weights, masks
from tests.support import cases, oracle
from tests.support.arrays import query_key_value
from tests.support.jaxprs import equations
from tests.support.tiers import slow
from tests.support.tolerances import FORWARD

HALF = ("bfloat16", "float16")


def dtypes(equation) -> set[str]:
    """The names of the dtypes that come out of an equation."""
    return {x.aval.dtype.name for x in equation.outvars if hasattr(x.aval, "dtype")}


@pytest.mark.parametrize("dtype", [*HALF, "float32", "float64"])
@pytest.mark.parametrize("rule", [{}, {"mask": masks.causal()}, {"dropout": Dropout(jax.random.key(0), 0.5)}], ids=str)
def test_output_has_the_dtype_of_the_query_and_statistics_at_least_float32(dtype, rule):
    with jax.enable_x64(dtype == "float64"):
        q, k, v = query_key_value(dtype=dtype)
        wide = "float64" if dtype == "float64" else "float32"
        every = jax.eval_shape(lambda: [f(q, k, v, **rule) for f in (attend, attention_weights, attend_with_stats)])
        alone, weights, (output, *statistics) = every
        assert alone.dtype == weights.dtype == output.dtype == dtype
        assert {x.dtype.name for x in statistics} == {wide}


def test_mixed_dtypes_follow_the_query():
    q, k, v = query_key_value(dtype="bfloat16")
    assert attend(q, k.astype("float32"), v).dtype == jnp.bfloat16
    assert attend(q.astype("float32"), k, v).dtype == jnp.float32


@pytest.mark.parametrize("dtype", ["bfloat16", *slow("float16")])
@pytest.mark.parametrize(("part", "case"), cases.named_parts())
def test_half_precision_computes_in_float32(dtype, part, case):
    """No product, exponential or sum is taken in half precision (maxtext#1225), forward or backward, by any array."""
    d = cases.Draw(np.random.default_rng(0), cases.Shape(3, 4), dtype=dtype)
    ours = case.build(d)[0]
    operands = [x.jax for x in cases.operands(d, ours if part == "score" else None)]
    leaves, structure = jax.tree.flatten(ours if case.name != "plain" else None)
    leaves = [jnp.asarray(x) for x in leaves]
    real = [x for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]

    def loss(q, k, v, *params):
        given = iter(params)
        held = [next(given) if jnp.issubdtype(x.dtype, jnp.floating) else x for x in leaves]
        value = ours if case.name == "plain" else jax.tree.unflatten(structure, held)
        return jnp.sum(attend(q, k, v, **cases.rule_arguments(part, value)).astype("float32"))

    moved = {"convert_element_type", "transpose", "reshape", "broadcast_in_dim", "slice", "concatenate", "copy", "jit"}
    gradient = jax.grad(loss, tuple(range(3 + len(real))))
    for equation in equations(gradient, *operands, *real):
        if equation.primitive.name not in moved:
            assert dtype not in dtypes(equation), equation


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("causal", [False, True])
def test_half_precision_error_is_no_worse_than_torch(dtype, causal):
    """Both against float64, on the same rounded inputs; at most 1.5 times PyTorch's own error (flax#982)."""
    ours, theirs = [], []
    for seed in range(5):
        arrays = [np.random.default_rng((seed, i)).normal(size=(1, 2, 32, 16)) for i in range(3)]
        tensors = [torch.tensor(x).to(getattr(torch, dtype)) for x in arrays]
        exact = [x.double().numpy() for x in tensors]
        expected = np.stack([loops(*(x[0, n] for x in exact), causal) for n in range(2)])
        peer = torch.nn.functional.scaled_dot_product_attention(*tensors, is_causal=causal)[0].double().numpy()
        mask = masks.causal() if causal else None
        got = attend(*(jnp.asarray(x, dtype) for x in exact), mask=mask)[0].astype("float32")
        ours.append(np.abs(got - expected))
        theirs.append(np.abs(peer - expected))
    for measure in (np.max, np.mean):
        assert measure(ours) <= 1.5 * measure(theirs)


def loops(q, k, v, causal: bool) -> np.ndarray:
    return oracle.attend(q, k, v, score=oracle.scaled_dot(), mask=oracle.causal() if causal else None).output


def test_float64_is_true_float64(x64):
    """Never cast down on the way (jax#34114)."""
    q, k, v = query_key_value(dtype="float64")
    found = set().union(*(dtypes(e) for e in equations(attend, q, k, v)))
    assert "float64" in found
    assert "float32" not in found
    np.testing.assert_allclose(attend(q, k, v), loops(q, k, v, False), rtol=FORWARD["float64"])
