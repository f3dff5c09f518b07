"""The two factors of a low-rank change, between PEFT's layers and the kernels of this library.

One kernel may be several layers in Hugging Face (query, key and value in one) or the other way round. Both directions
are exact: combined factors are block-diagonal, so ranks add up, unless the layers share their first factor. A mapping
of the family's table only moves output features, so the second factor `[F, r]` goes through it like a kernel `[F, D]`.
Adapters of scanned blocks are stacked from, and unstacked to, those of unrolled blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jax_attention.core.checks import describe_array, fail_unless
from jax_attention.interop.weight_mapping import Arrays, WeightMapping
from jax_attention.models import LMConfig
from jax_attention.models.blocks import scanned_layers
from jax_attention.nn import Adapters

Factors = tuple[Any, Any]


def to_jax_factors(
    mapping: WeightMapping, peft_factors: Sequence[Factors | None], shapes: Sequence[tuple[int, ...]]
) -> tuple[np.ndarray, Arrays]:
    """The first factor `[D, r]` that all kernels of a mapping share, and the second, `[r, F]`, of each.

    Args:
        mapping: of the kernels.
        peft_factors: `A [r, D]` and `B [F, r]` of each Hugging Face layer, or None for a layer without an adapter.
        shapes: `(D, F)` of each kernel.
    """
    widths = [x.shape[0] for x in _to_torch(mapping, [np.zeros((1, shape[-1]), np.float32) for shape in shapes])]
    for name, x, width in zip(mapping.torch_names, peft_factors, widths, strict=True):
        fits = x is None or (x[0].shape[1:] == shapes[0][:1] and x[1].shape == (width, x[0].shape[0]))
        fail_unless(
            fits,
            f"path: expected factors [r, {shapes[0][0]}] and [{width}, r] for {name}, got "
            f"{', '.join(describe_array(y) for y in x or ())}. They are for another model.",
        )
    present = [x for x in peft_factors if x is not None]
    has_one_first = len(present) == len(peft_factors) and all(np.array_equal(x[0], present[0][0]) for x in present)
    if has_one_first:
        first, seconds = present[0][0], [x[1] for x in present]
    else:
        first, seconds = (
            np.concatenate([x[0] for x in present]),
            _block_rows([x and x[1].T for x in peft_factors], widths),
        )
        seconds = [x.T for x in seconds]
    return first.T, [x.T for x in seconds] if mapping.is_conv1d else mapping.to_jax(seconds)


def to_peft_factors(
    mapping: WeightMapping, jax_factors: Sequence[Factors | None], shapes: Sequence[tuple[int, ...]]
) -> tuple[np.ndarray, Arrays]:
    """The first factor `[D, r]` that all Hugging Face layers of a mapping share, and the second, `[F, r]`, of each.

    Args:
        mapping: of the kernels.
        jax_factors: `A [D, r]` and `B [r, F]` of each kernel, or None for a kernel without an adapter.
        shapes: `(D, F)` of each kernel.
    """
    first = np.concatenate([np.asarray(x[0]) for x in jax_factors if x is not None], axis=-1)
    rows = _block_rows([x and np.asarray(x[1]) for x in jax_factors], [shape[-1] for shape in shapes])
    return first, _to_torch(mapping, rows)


def _block_rows(factors: Sequence[np.ndarray | None], widths: Sequence[int]) -> list[np.ndarray]:
    """`[R, F]` for each factor `[r, F]`, R being the sum of all ranks: its rows at its place, zeros elsewhere."""
    present = [x for x in factors if x is not None]
    rank, start, blocks = sum(x.shape[0] for x in present), 0, []
    for x, width in zip(factors, widths, strict=True):
        block = np.zeros((rank, width), present[0].dtype)
        if x is not None:
            block[start : start + x.shape[0]] = x
            start += x.shape[0]
        blocks.append(block)
    return blocks


def _to_torch(mapping: WeightMapping, factors: Arrays) -> Arrays:
    """`[F, r]` of each Hugging Face layer from `[r, F]` of each kernel; a Conv1D is not transposed by its mapping."""
    converted = mapping.to_torch(factors)
    return [x.T for x in converted] if mapping.is_conv1d else converted


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
