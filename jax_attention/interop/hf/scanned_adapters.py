"""Adapters of a model whose blocks are scanned, from and to those of the same model layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from jax_attention.models import LMConfig
from jax_attention.models.blocks import scanned_layers
from jax_attention.nn import Adapters

SCANNED, REST = "blocks.scanned.", "blocks.rest."


def unstacked(adapters: Adapters, config: LMConfig) -> Adapters:
    """From the layout of a scanned model: entry g of the stack at place i is layer `g P + i`."""
    count, period = scanned_layers(config), len(config.windows)

    def each(factors: Mapping[str, Any]) -> dict[str, Any]:
        found = {}
        for name, x in factors.items():
            if name.startswith(SCANNED):
                place, layer = _parts(name, SCANNED)
                found |= {f"{REST}{g * period + place}.{layer}": x[g] for g in range(x.shape[0])}
            elif name.startswith(REST):
                place, layer = _parts(name, REST)
                found[f"{REST}{count + place}.{layer}"] = x
            else:
                found[name] = x
        return found

    return Adapters(each(adapters.down), each(adapters.up), adapters.scale)


def stacked(adapters: Adapters, shapes: Mapping[str, tuple[int, ...]], config: LMConfig) -> Adapters:
    """Into the layout of a scanned model. A layer without adapters, or with a smaller rank than its neighbours in the
    stack, is filled up with zeros, which add nothing and stay zeros when they are trained.

    Args:
        adapters: of the unrolled model.
        shapes: of the unrolled model's kernels, by the names of their layers.
        config: of the scanned model.
    """
    count, period = scanned_layers(config), len(config.windows)
    down, up = {}, {}
    for name, first in adapters.down.items():
        if not name.startswith(REST):
            down[name], up[name] = first, adapters.up[name]
            continue
        place, layer = _parts(name, REST)
        if place >= count:
            own = f"{REST}{place - count}.{layer}"
            down[own], up[own] = first, adapters.up[name]
            continue
        own = f"{SCANNED}{place % period}.{layer}"
        if own not in down:
            names = [f"{REST}{other}.{layer}" for other in range(place % period, count, period)]
            rank = max(adapters.down[x].shape[-1] for x in names if x in adapters.down)
            pairs = [_filled_up(adapters, x, rank, shapes[name], first.dtype) for x in names]
            down[own], up[own] = (jnp.stack(factors) for factors in zip(*pairs, strict=True))
    return Adapters(down, up, adapters.scale)


def _filled_up(adapters: Adapters, name: str, rank: int, shape: tuple[int, ...], dtype: Any) -> tuple[Any, Any]:
    """Both factors of one layer with this rank."""
    if name not in adapters.down:
        return jnp.zeros((shape[0], rank), dtype), jnp.zeros((rank, shape[1]), dtype)
    more = rank - adapters.down[name].shape[-1]
    return jnp.pad(adapters.down[name], ((0, 0), (0, more))), jnp.pad(adapters.up[name], ((0, more), (0, 0)))


def _parts(name: str, prefix: str) -> tuple[int, str]:
    """The number and the rest of `blocks.rest.3.attention.out`."""
    place, _, layer = name.removeprefix(prefix).partition(".")
    return int(place), layer
