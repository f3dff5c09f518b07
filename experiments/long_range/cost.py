"""Time and memory of one layer, forward and backward, by length: a GRU, and self-attention run in two ways.

Self-attention is the same layer twice: `attend_heads` as the library chooses it, which keeps no scores beyond a tile,
and `implementation="reference"`, which writes all T x T scores out. Memory is XLA's own figure and runs nothing; times
are medians of rounds that call every layer once.
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


class Attending(nnx.Module):
    """`attend_heads` between two linear layers, causal, by the implementation of this name."""

    def __init__(self, config: CostConfig, implementation: str | None) -> None:
        rngs = nnx.Rngs(0)
        self.project = nn.Linear(config.width, 3 * config.width, rngs=rngs)
        self.out = nn.Linear(config.width, config.width, rngs=rngs)
        self.heads, self.implementation = config.heads, implementation

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[T, D] -> [T, D]`."""
        rows = self.project(x).reshape(len(x), 3, self.heads, -1)
        found = attend_heads(
            rows[:, 0], rows[:, 1], rows[:, 2], mask=masks.causal(), implementation=self.implementation
        )
        return self.out(found.reshape(x.shape))


class Recurrent(nnx.Module):
    """The outputs of `nn.GRU`."""

    def __init__(self, config: CostConfig) -> None:
        self.rnn = nn.GRU(config.width, config.width, rngs=nnx.Rngs(0))

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[T, D] -> [T, D]`."""
        return self.rnn(x)[0]


def layers(config: CostConfig) -> dict[str, Any]:
    """The three of the figure."""
    return jax.jit(  # one program draws all parameters
        lambda: {
            GRU: Recurrent(config),
            CHOSEN: Attending(config, None),
            DENSE: Attending(config, "reference"),
        }
    )()


@jax.jit
def gradient(layer: Any, x: jax.Array) -> Any:
    """Of sum(sin(output)), to the parameters and the input."""
    return jax.grad(lambda both: jnp.sum(jnp.sin(both[0](both[1]))))((layer, x))


def seconds(config: CostConfig) -> dict[str, np.ndarray]:
    """Medians `[lengths]`."""
    calls = {}
    made = layers(config)
    for length in config.lengths:
        x = jax.random.normal(jax.random.key(0), (length, config.width))
        for name, layer in made.items():
            calls[name, length] = lambda layer=layer, x=x: gradient(layer, x)
    times = measure.interleaved(calls, config.rounds)
    return {name: np.array([np.median(times[name, length]) for length in config.lengths]) for name in LAYERS}


def memory(config: CostConfig) -> dict[str, np.ndarray]:
    """Temporary MiB `[memory_lengths]`."""
    found: dict[str, list[float]] = {name: [] for name in LAYERS}
    for length in config.memory_lengths:
        x = jax.ShapeDtypeStruct((length, config.width), jnp.float32)
        for name, layer in layers(config).items():
            found[name].append(measure.temporary(gradient, layer, x))
    return {name: np.array(sizes) for name, sizes in found.items()}


def growth(lengths: tuple[int, ...], values: np.ndarray, last: int = 3) -> float:
    """The slope over the last lengths on logarithmic axes: 1 is linear, 2 quadratic."""
    x, y = np.log(np.array(lengths[-last:], float)), np.log(values[-last:])
    return float(np.polyfit(x, y, 1)[0])
