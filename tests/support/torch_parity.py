"""Checks for every converter of torch layers: equal outputs and gradients, the same bits after a round trip."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import torch

from jax_attention import interop
from tests.support.tolerances import FORWARD, GRADIENT, PARITY


def randomized(module, seed: int = 0, scale: float = 0.4):
    """The module with random parameters, also where it starts with constants (biases, norm scales)."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * scale)
    return module


def inputs(dtype: str, *shapes, seed: int = 1):
    """Random arrays of these shapes."""
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=shape).astype(dtype) for shape in shapes)


def bits_of(state_dict):
    """Dtype and bit pattern of every tensor, which compare equal also for NaN."""
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return {name: (x.dtype, x.view(integers[x.itemsize]).tolist()) for name, x in state_dict.items()}


def check_round_trip(module):
    """Convert to JAX and back, by module and by state dictionary, and compare bits. Returns the JAX layer."""
    layer = interop.from_torch(module)
    expected = bits_of(module.state_dict())
    assert bits_of(interop.to_state_dict(layer)) == expected
    assert bits_of(interop.to_torch(layer).state_dict()) == expected
    empty = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), layer)
    again = interop.from_state_dict(empty, interop.to_state_dict(layer))
    assert jax.tree.structure(again) == jax.tree.structure(layer)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(layer), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    return layer


def check_equal(module, arrays, run_torch, run_jax, dtype: str = "float32", layer=None):
    """Check that `run_torch(module, *tensors)` and `run_jax(layer, *arrays)` give equal outputs (tuples) and gradients.

    Returns the largest differences, of outputs and of gradients.
    """
    layer = interop.from_torch(module) if layer is None else layer
    tensors = [torch.tensor(x, requires_grad=True) for x in arrays]
    torch_outputs = run_torch(module, *tensors)
    sum(x.sin().sum() for x in torch_outputs).backward()

    @jax.jit
    def run(layer, arrays):
        def loss(layer, arrays):
            outputs = run_jax(layer, *arrays)
            return sum(jnp.sum(jnp.sin(x)) for x in outputs), outputs

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(layer, arrays)

    with jax.default_matmul_precision("highest"):
        (_, jax_outputs), (layer_gradient, input_gradients) = run(layer, arrays)
    gradients = interop.to_state_dict(layer_gradient)
    assert gradients.keys() == dict(module.named_parameters()).keys()
    pairs = [(gradients[name], parameter.grad) for name, parameter in module.named_parameters()]
    pairs += zip(input_gradients, [x.grad for x in tensors], strict=True)
    outputs = list(zip(jax_outputs, torch_outputs, strict=True))
    return (
        largest_difference(outputs, FORWARD["float64"] if dtype == "float64" else PARITY),
        largest_difference(pairs, FORWARD["float64"] if dtype == "float64" else GRADIENT["float32"]),
    )


def largest_difference(pairs, tolerance: float) -> float:
    """The largest distance of several (JAX, torch) pairs, each checked against the tolerance."""
    pairs = [(np.asarray(a), b.detach().numpy()) for a, b in pairs]
    for jax_array, torch_array in pairs:
        np.testing.assert_allclose(jax_array, torch_array, rtol=tolerance, atol=tolerance)
    return max(interop.difference(*pair).max_abs for pair in pairs)
