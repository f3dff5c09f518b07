"""Time and memory of one layer, forward and backward, by length: a GRU, and self-attention in two implementations.

Self-attention is the same layer twice: `attend_heads` with the implementation that the library chooses, which holds
the scores of one tile at a time, and with `implementation="reference"`, which holds all T x T scores. Memory is the
figure of XLA, and nothing runs for it; times are medians over rounds that call every layer once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments import measure
from jax_attention import attend_heads, masks, nn

GRU, CHOSEN, DENSE = "GRU", "attention", "attention, all scores at once"
LAYERS = (GRU, CHOSEN, DENSE)


@dataclass(frozen=True)
class CostConfig:
    """Width of every layer, heads of attention, lengths T for time and for memory, rounds of timing."""

    width: int = 64
    heads: int = 2
    lengths: tuple[int, ...] = (128, 256, 512, 1024, 2048, 4096)
    memory_lengths: tuple[int, ...] = (128, 256, 512, 1024, 2048, 4096, 8192)
    rounds: int = 5


class AttentionLayer(nnx.Module):
    """Causal `attend_heads` between two linear layers, by the implementation of this name."""

    def __init__(self, config: CostConfig, implementation: str | None) -> None:
        rngs = nnx.Rngs(0)
        self.project = nn.Linear(config.width, 3 * config.width, rngs=rngs)
        self.out = nn.Linear(config.width, config.width, rngs=rngs)
        self.heads, self.implementation = config.heads, implementation

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the layer, `[T, D] -> [T, D]`."""
        rows = self.project(x).reshape(len(x), 3, self.heads, -1)
        output = attend_heads(
            rows[:, 0], rows[:, 1], rows[:, 2], mask=masks.causal(), implementation=self.implementation
        )
        return self.out(output.reshape(x.shape))


class RecurrentLayer(nnx.Module):
    """The outputs of `nn.GRU`, without its last state."""

    def __init__(self, config: CostConfig) -> None:
        self.rnn = nn.GRU(config.width, config.width, rngs=nnx.Rngs(0))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the layer, `[T, D] -> [T, D]`."""
        return self.rnn(x)[0]


def make_layers(config: CostConfig) -> dict[str, Any]:
    """Layers by name, all with seed 0: both attention layers have the same parameters."""
    return jax.jit(  # one compiled program for all initial parameters
        lambda: {
            GRU: RecurrentLayer(config),
            CHOSEN: AttentionLayer(config, None),
            DENSE: AttentionLayer(config, "reference"),
        }
    )()


@jax.jit
def gradient(layer: Any, x: jax.Array) -> Any:
    """Gradient of sum(sin(output)) with respect to parameters and input.

    The sine makes the cotangent depend on the output, so that XLA cannot drop the forward pass.
    """
    return jax.grad(lambda operands: jnp.sum(jnp.sin(operands[0](operands[1]))))((layer, x))


def seconds(config: CostConfig) -> dict[str, np.ndarray]:
    """Median seconds of a gradient by layer, `[lengths]`."""
    calls = {}
    layers = make_layers(config)
    for length in config.lengths:
        x = jax.random.normal(jax.random.key(0), (length, config.width))
        for name, layer in layers.items():
            calls[name, length] = lambda layer=layer, x=x: gradient(layer, x)
    times = measure.time_interleaved(calls, config.rounds)
    return {name: np.array([np.median(times[name, length]) for length in config.lengths]) for name in LAYERS}


def memory(config: CostConfig) -> dict[str, np.ndarray]:
    """Temporary MiB of a gradient by layer, `[memory_lengths]`."""
    mib: dict[str, list[float]] = {name: [] for name in LAYERS}
    layers = make_layers(config)
    for length in config.memory_lengths:
        x = jax.ShapeDtypeStruct((length, config.width), jnp.float32)
        for name, layer in layers.items():
            mib[name].append(measure.temporary_mib(gradient, layer, x))
    return {name: np.array(sizes) for name, sizes in mib.items()}


def growth_exponent(lengths: tuple[int, ...], costs: np.ndarray, last: int = 3) -> float:
    """Slope over the last lengths on logarithmic axes: 1 is linear growth, 2 quadratic."""
    x, y = np.log(np.array(lengths[-last:], float)), np.log(costs[-last:])
    return float(np.polyfit(x, y, 1)[0])
