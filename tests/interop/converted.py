"""One check for every converter: equal outputs, equal gradients by their names, the same bits after a round trip."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import torch

from jax_attention import interop
from tests.support.tolerances import FORWARD, GRADIENT, PARITY


def randomized(module, seed: int = 0, scale: float = 0.4):
    """The module with random numbers everywhere: biases and scales start as constants."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * scale)
    return module


def inputs(dtype: str, *shapes, seed: int = 1):
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=shape).astype(dtype) for shape in shapes)


def bits_of(state_dict):
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return {name: (x.dtype, x.view(integers[x.itemsize]).tolist()) for name, x in state_dict.items()}


def check_round_trip(module):
    """Both directions, by dictionary and by module; returns our layer."""
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


def check_equal(module, arrays, theirs, ours, dtype: str = "float32", layer=None):
    """`theirs(module, *tensors)` and `ours(layer, *arrays)`: tuples of outputs, and all gradients.

    Returns the worst differences, of outputs and of gradients.
    """
    layer = interop.from_torch(module) if layer is None else layer
    tensors = [torch.tensor(x, requires_grad=True) for x in arrays]
    expected = theirs(module, *tensors)
    sum(x.sin().sum() for x in expected).backward()

    @jax.jit
    def run(layer, arrays):
        def loss(layer, arrays):
            outputs = ours(layer, *arrays)
            return sum(jnp.sum(jnp.sin(x)) for x in outputs), outputs

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(layer, arrays)

    with jax.default_matmul_precision("highest"):
        (_, outputs), (of_layer, of_inputs) = run(layer, arrays)
    gradients = interop.to_state_dict(of_layer)
    assert gradients.keys() == dict(module.named_parameters()).keys()
    pairs = [(gradients[name], parameter.grad) for name, parameter in module.named_parameters()]
    pairs += zip(of_inputs, [x.grad for x in tensors], strict=True)
    return (
        worst_of(list(zip(outputs, expected, strict=True)), FORWARD["float64"] if dtype == "float64" else PARITY),
        worst_of(pairs, FORWARD["float64"] if dtype == "float64" else GRADIENT["float32"]),
    )


def worst_of(pairs, tolerance: float) -> float:
    pairs = [(np.asarray(a), b.detach().numpy()) for a, b in pairs]
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    return max(interop.difference(*pair).max_abs for pair in pairs)
