"""LoRA adapters of a model with scanned blocks, to and from those of the same model with unrolled blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from jax_attention.models import LMConfig
from jax_attention.models.blocks import scanned_layers
from jax_attention.nn import Adapters

SCANNED, REST = "blocks.scanned.", "blocks.rest."


def unstack_adapters(adapters: Adapters, config: LMConfig) -> Adapters:
    """Adapters of the unrolled model. Row g of the stack at place i of a period P is layer `g P + i`."""
    count, period = scanned_layers(config), len(config.windows)

    def unstack(factors: Mapping[str, Any]) -> dict[str, Any]:
        unstacked = {}
        for name, x in factors.items():
            if name.startswith(SCANNED):
                place, layer = _split_name(name, SCANNED)
                unstacked |= {f"{REST}{g * period + place}.{layer}": x[g] for g in range(x.shape[0])}
            elif name.startswith(REST):
                place, layer = _split_name(name, REST)
                unstacked[f"{REST}{count + place}.{layer}"] = x
            else:
                unstacked[name] = x
        return unstacked

    return Adapters(unstack(adapters.down), unstack(adapters.up), adapters.scale)


def stack_adapters(adapters: Adapters, shapes: Mapping[str, tuple[int, ...]], config: LMConfig) -> Adapters:
    """Adapters of the scanned model. A layer without adapters, or with a smaller rank than others of its stack, is
    padded with zeros: they add nothing, and since both factors are zero there, so are their gradients.

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
        place, layer = _split_name(name, REST)
        if place >= count:
            unscanned = f"{REST}{place - count}.{layer}"
            down[unscanned], up[unscanned] = first, adapters.up[name]
            continue
        stack = f"{SCANNED}{place % period}.{layer}"
        if stack not in down:
            names = [f"{REST}{other}.{layer}" for other in range(place % period, count, period)]
            rank = max(adapters.down[x].shape[-1] for x in names if x in adapters.down)
            pairs = [_pad_rank(adapters, x, rank, shapes[name], first.dtype) for x in names]
            down[stack], up[stack] = (jnp.stack(factors) for factors in zip(*pairs, strict=True))
    return Adapters(down, up, adapters.scale)


def _pad_rank(adapters: Adapters, name: str, rank: int, shape: tuple[int, ...], dtype: Any) -> tuple[Any, Any]:
    """Both factors of one layer, with zeros up to this rank."""
    if name not in adapters.down:
        return jnp.zeros((shape[0], rank), dtype), jnp.zeros((rank, shape[1]), dtype)
    more = rank - adapters.down[name].shape[-1]
    return jnp.pad(adapters.down[name], ((0, 0), (0, more))), jnp.pad(adapters.up[name], ((0, more), (0, 0)))


def _split_name(name: str, prefix: str) -> tuple[int, str]:
    """The number and the rest of `blocks.rest.3.attention.out`: (3, "attention.out")."""
    place, _, layer = name.removeprefix(prefix).partition(".")
    return int(place), layer
