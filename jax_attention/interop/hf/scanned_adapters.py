"""LoRA adapters of a model with scanned blocks, to and from those of the same model with unrolled blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from jax_attention.models import LMConfig
from jax_attention.models.blocks import scanned_layers
from jax_attention.nn import Adapters

SCANNED, REST = "blocks.scanned.", "blocks.rest."


def unstack_adapters(adapters: Adapters, config: LMConfig) -> Adapters:
    """Adapters of the unrolled model. Row g of the stack at place i of a period P is layer `g P + i`."""
    count, period = scanned_layers(config), len(config.windows)

    def unstack(arrays: Mapping[str, Any]) -> dict[str, Any]:
        unstacked = {}
        for name, x in arrays.items():
            if name.startswith(SCANNED):
                place, layer = _split_name(name, SCANNED)
                unstacked |= {f"{REST}{g * period + place}.{layer}": x[g] for g in range(x.shape[0])}
            elif name.startswith(REST):
                place, layer = _split_name(name, REST)
                unstacked[f"{REST}{count + place}.{layer}"] = x
            else:
                unstacked[name] = x
        return unstacked

    magnitude, replaced = (None if x is None else unstack(x) for x in (adapters.magnitude, adapters.replaced))
    return Adapters(unstack(adapters.down), unstack(adapters.up), adapters.scale, magnitude, replaced)


def stack_adapters(
    adapters: Adapters,
    shapes: Mapping[str, tuple[int, ...]],
    config: LMConfig,
    fill_magnitude: Callable[[str], Any],
    fill_replaced: Callable[[str], Any],
) -> Adapters:
    """Adapters of the scanned model. A layer without adapters, or with a smaller rank than others of its stack, is
    padded with zeros: they add nothing, and since both factors are zero there, so are their gradients.

    Args:
        adapters: of the unrolled model.
        shapes: of the unrolled model's kernels, by the names of their layers.
        config: of the scanned model.
        fill_magnitude: the magnitude of a layer that has no adapter, by its name.
        fill_replaced: the array of a layer that does not replace it, by its name.
    """

    def stack(arrays: Mapping[str, Any], at: Callable[[str], Any]) -> dict[str, Any]:
        """The arrays of each stack, `at(name)` being that of one layer."""
        stacked = {}
        for name in arrays:
            stack_name, names = _stack_of(name, config)
            if stack_name not in stacked:
                stacked[stack_name] = arrays[name] if names is None else jnp.stack([at(other) for other in names])
        return stacked

    def padded(factors: Mapping[str, Any], axis: int) -> dict[str, Any]:
        def at(name: str) -> Any:
            _, names = _stack_of(name, config)
            ranks = [adapters.down[other].shape[-1] for other in names if other in adapters.down]
            dtype = next(factors[other].dtype for other in names if other in factors)
            missing = jnp.zeros([0 if i == 2 + axis else size for i, size in enumerate(shapes[name])], dtype)
            return _pad(factors.get(name, missing), axis, max(ranks))

        return stack(factors, at)

    def filled(arrays: Mapping[str, Any] | None, fill: Callable[[str], Any]) -> dict[str, Any] | None:
        return None if arrays is None else stack(arrays, lambda name: arrays[name] if name in arrays else fill(name))

    magnitude, replaced = filled(adapters.magnitude, fill_magnitude), filled(adapters.replaced, fill_replaced)
    return Adapters(padded(adapters.down, -1), padded(adapters.up, -2), adapters.scale, magnitude, replaced)


def _stack_of(name: str, config: LMConfig) -> tuple[str, list[str] | None]:
    """The name in the scanned model, and the names of all layers that are stacked there; None if they are not."""
    count, period = scanned_layers(config), len(config.windows)
    if not name.startswith(REST):
        return name, None
    place, layer = _split_name(name, REST)
    if place >= count:
        return f"{REST}{place - count}.{layer}", None
    names = [f"{REST}{other}.{layer}" for other in range(place % period, count, period)]
    return f"{SCANNED}{place % period}.{layer}", names


def _pad(factor: Any, axis: int, rank: int) -> Any:
    """A factor with zeros up to this rank, along its axis of ranks, -1 or -2."""
    widths = [(0, 0), (0, 0)]
    widths[axis] = (0, rank - factor.shape[axis])
    return jnp.pad(factor, widths)


def _split_name(name: str, prefix: str) -> tuple[int, str]:
    """The number and the rest of `blocks.rest.3.attention.out`: (3, "attention.out")."""
    place, _, layer = name.removeprefix(prefix).partition(".")
    return int(place), layer
