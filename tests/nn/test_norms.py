"""Layer norm and RMS norm: PyTorch's numbers and gradients, statistics in float32, derivatives of second order."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from jax.test_util import check_grads

from jax_attention.nn.norms import LayerNorm, RMSNorm
from tests.support.tolerances import FORWARD, GRADIENT

D, EPSILON = 7, 1e-5
KINDS = {"layer norm": (LayerNorm, torch.nn.LayerNorm), "RMS norm": (RMSNorm, torch.nn.RMSNorm)}
X = 3 + 2 * np.random.default_rng(0).standard_normal((2, 3, D))
SCALE, BIAS = 1 + np.arange(D) / D, np.arange(D) / 5


def make_norm(kind, dtype="float32", **options):
    """A norm whose scale is not 1 and whose bias is not 0."""
    norm = kind(D, epsilon=EPSILON, param_dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0), **options)
    norm.scale[...] = jnp.asarray(SCALE, dtype)
    if getattr(norm, "bias", None) is not None:
        norm.bias[...] = jnp.asarray(BIAS, dtype)
    return norm


def torch_norm(name):
    """PyTorch's module with the same scale and bias, in float64."""
    module = KINDS[name][1](D, eps=EPSILON, dtype=torch.float64)
    module.weight.data[:] = torch.tensor(SCALE)
    if name == "layer norm":
        module.bias.data[:] = torch.tensor(BIAS)
    return module


@pytest.mark.parametrize("name", KINDS)
def test_numbers_and_gradients_are_pytorchs(name):
    norm, module = make_norm(KINDS[name][0]), torch_norm(name)
    torch_x = torch.tensor(X, requires_grad=True)
    out = module(torch_x)
    torch.sin(out).sum().backward()
    x = jnp.asarray(X, jnp.float32)

    def loss(norm, x):
        y = norm(x)
        return jnp.sin(y).sum(), y

    (_, found), gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(norm, x)
    np.testing.assert_allclose(found, out.detach(), rtol=FORWARD["float32"], atol=FORWARD["float32"])
    tolerance = {"rtol": GRADIENT["float32"], "atol": GRADIENT["float32"]}
    np.testing.assert_allclose(gradients[0].scale[...], module.weight.grad, **tolerance)
    np.testing.assert_allclose(gradients[1], torch_x.grad, **tolerance)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_statistics_of_narrow_rows_are_those_of_float32(name, dtype):
    """Results are rounded once, at the end: large rows would overflow float16, and lose their mean in bfloat16."""
    norm = make_norm(KINDS[name][0], dtype)
    x = (200 * X).astype(dtype)
    wide = make_norm(KINDS[name][0])
    for param in ("scale", "bias"):
        if getattr(norm, param, None) is not None:
            getattr(wide, param)[...] = jnp.asarray(np.float32(getattr(norm, param)[...]))
    found, exact = jax.jit(lambda x: (norm(x), wide(x.astype(jnp.float32)).astype(dtype)))(x)
    assert found.dtype == dtype
    np.testing.assert_array_equal(np.float32(found), np.float32(exact))


@pytest.mark.parametrize("name", KINDS)
def test_second_derivatives_are_pytorchs_in_both_modes(name):
    norm, module = make_norm(KINDS[name][0]), torch_norm(name)
    x = X[0, 0]
    expected = torch.autograd.functional.hessian(lambda x: torch.sin(module(x)).sum(), torch.tensor(x))

    @jax.jit
    def run(x):
        loss = lambda x: jnp.sin(norm(x)).sum()  # noqa: E731
        return jax.jacfwd(jax.jacrev(loss))(x), jax.jacrev(jax.jacfwd(loss))(x)

    for found in run(np.float32(x)):
        np.testing.assert_allclose(found, expected, rtol=GRADIENT["float32"], atol=GRADIENT["float32"])


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_derivatives_of_second_order_in_both_modes(name):
    norm = make_norm(KINDS[name][0])
    x = jnp.asarray(X[0], jnp.float32)
    check_grads(jax.jit(lambda x: jnp.sin(norm(x))), (x,), order=2, modes=("fwd", "rev"), rtol=2e-2, atol=2e-2)
