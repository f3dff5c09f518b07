"""Results have the dtype of the query; half precision computes in float32, float64 stays float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jax_attention import Dropout, attend, attend_with_stats, attention_weights, masks
from jax_attention.testing.jaxprs import equations
from tests.support import cases, oracle
from tests.support.arrays import query_key_value
from tests.support.tiers import slow
from tests.support.tolerances import FORWARD

HALF = ("bfloat16", "float16")


def dtypes(equation) -> set[str]:
    """Names of the dtypes of the results of an equation."""
    return {x.aval.dtype.name for x in equation.outvars if hasattr(x.aval, "dtype")}


@pytest.mark.parametrize("dtype", [*HALF, "float32", "float64"])
@pytest.mark.parametrize("rule", [{}, {"mask": masks.causal()}, {"dropout": Dropout(jax.random.key(0), 0.5)}], ids=str)
def test_output_has_the_dtype_of_the_query_and_statistics_at_least_float32(dtype, rule):
    with jax.enable_x64(dtype == "float64"):
        q, k, v = query_key_value(dtype=dtype)
        wide = "float64" if dtype == "float64" else "float32"
        every = jax.eval_shape(lambda: [f(q, k, v, **rule) for f in (attend, attention_weights, attend_with_stats)])
        output_alone, weights, (output, *statistics) = every
        assert output_alone.dtype == weights.dtype == output.dtype == dtype
        assert {x.dtype.name for x in statistics} == {wide}


def test_mixed_dtypes_follow_the_query():
    q, k, v = query_key_value(dtype="bfloat16")
    assert attend(q, k.astype("float32"), v).dtype == jnp.bfloat16
    assert attend(q.astype("float32"), k, v).dtype == jnp.float32


@pytest.mark.parametrize("dtype", ["bfloat16", *slow("float16")])
@pytest.mark.parametrize(("part", "case"), cases.named_parts())
def test_half_precision_computes_in_float32(dtype, part, case):
    """No product, exponential or sum is in half precision (maxtext#1225), forward or backward, for any array."""
    d = cases.Draw(np.random.default_rng(0), cases.Shape(3, 4), dtype=dtype)
    choice = case.build(d)[0]
    operands = [x.jax for x in cases.operands(d, choice if part == "score" else None)]
    leaves, structure = jax.tree.flatten(choice if case.name != "plain" else None)
    leaves = [jnp.asarray(x) for x in leaves]
    real = [x for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]

    def loss(q, k, v, *params):
        params_left = iter(params)
        new_leaves = [next(params_left) if jnp.issubdtype(x.dtype, jnp.floating) else x for x in leaves]
        new_choice = choice if case.name == "plain" else jax.tree.unflatten(structure, new_leaves)
        return jnp.sum(attend(q, k, v, **cases.rule_arguments(part, new_choice)).astype("float32"))

    copies = {"convert_element_type", "transpose", "reshape", "broadcast_in_dim", "slice", "concatenate", "copy", "jit"}
    gradient = jax.grad(loss, tuple(range(3 + len(real))))
    for equation in equations(gradient, *operands, *real):
        if equation.primitive.name not in copies:
            assert dtype not in dtypes(equation), equation


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("causal", [False, True])
def test_half_precision_error_is_no_worse_than_torch(dtype, causal):
    """Errors against float64, for the same rounded inputs, are at most 1.5 times those of PyTorch (flax#982)."""
    jax_errors, torch_errors = [], []
    for seed in range(5):
        arrays = [np.random.default_rng((seed, i)).normal(size=(1, 2, 32, 16)) for i in range(3)]
        tensors = [torch.tensor(x).to(getattr(torch, dtype)) for x in arrays]
        exact = [x.double().numpy() for x in tensors]
        expected = np.stack([loops(*(x[0, n] for x in exact), causal) for n in range(2)])
        torch_output = torch.nn.functional.scaled_dot_product_attention(*tensors, is_causal=causal)[0].double().numpy()
        mask = masks.causal() if causal else None
        jax_output = attend(*(jnp.asarray(x, dtype) for x in exact), mask=mask)[0].astype("float32")
        jax_errors.append(np.abs(jax_output - expected))
        torch_errors.append(np.abs(torch_output - expected))
    for measure in (np.max, np.mean):
        assert measure(jax_errors) <= 1.5 * measure(torch_errors)


def loops(q, k, v, causal: bool) -> np.ndarray:
    return oracle.attend(q, k, v, score=oracle.scaled_dot(), mask=oracle.causal() if causal else None).output


def test_float64_is_true_float64(x64):
    """No equation casts it down (jax#34114)."""
    q, k, v = query_key_value(dtype="float64")
    dtypes_of_attend = set().union(*(dtypes(e) for e in equations(attend, q, k, v)))
    assert "float64" in dtypes_of_attend
    assert "float32" not in dtypes_of_attend
    np.testing.assert_allclose(attend(q, k, v), loops(q, k, v, False), rtol=FORWARD["float64"])
