"""The factors and magnitudes of low-rank changes, between PEFT's layers and the kernels of this library.

One kernel may be several layers in Hugging Face (query, key and value in one) or the other way round. Both directions
are exact: combined factors are block-diagonal, so ranks add up, unless the layers share their first factor. A mapping
of the family's table only moves output features, so the second factor `[F, r]` goes through it like a kernel `[F, D]`,
and so do the magnitudes of DoRA, one for each output feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jax_attention.core.checks import describe_array, fail_unless
from jax_attention.interop.weight_mapping import Arrays, WeightMapping

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
    widths = _torch_widths(mapping, shapes)
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
    return first.T, _to_jax(mapping, seconds)


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


def to_jax_magnitudes(mapping: WeightMapping, peft_magnitudes: Sequence[np.ndarray | None], kernels: Arrays) -> Arrays:
    """The magnitudes `[F]` of each kernel.

    Args:
        mapping: of the kernels.
        peft_magnitudes: `[F]` of each Hugging Face layer, or None for a layer without an adapter.
        kernels: `[D, F]` without the adapters: the lengths of their columns are the magnitudes of layers without any.
    """
    lengths = [x[:, 0] for x in _to_torch(mapping, [column_lengths(x)[None] for x in kernels])]
    for name, x, length in zip(mapping.torch_names, peft_magnitudes, lengths, strict=True):
        fail_unless(
            x is None or x.shape == length.shape,
            f"path: expected a magnitude for each of {len(length)} features of {name}, got {describe_array(x)}. They "
            "are for another model.",
        )
    rows = [length if x is None else x for x, length in zip(peft_magnitudes, lengths, strict=True)]
    return [x[0] for x in _to_jax(mapping, [x[:, None] for x in rows])]


def to_peft_magnitudes(mapping: WeightMapping, jax_magnitudes: Sequence[Any | None], kernels: Arrays) -> Arrays:
    """The magnitudes `[F]` of each Hugging Face layer, from those of each kernel, or None for one without adapter."""
    rows = [column_lengths(kernel) if x is None else x for x, kernel in zip(jax_magnitudes, kernels, strict=True)]
    return [x[:, 0] for x in _to_torch(mapping, [np.asarray(x)[None] for x in rows])]


def column_lengths(kernel: Any) -> np.ndarray:
    """Lengths `[F]` of the columns of a kernel `[D, F]`, in at least float32."""
    kernel = np.asarray(kernel)
    return np.linalg.norm(kernel.astype(np.result_type(kernel.dtype, np.float32)), axis=0)


def _torch_widths(mapping: WeightMapping, shapes: Sequence[tuple[int, ...]]) -> list[int]:
    """Output features of each Hugging Face layer."""
    return [x.shape[0] for x in _to_torch(mapping, [np.zeros((1, shape[-1]), np.float32) for shape in shapes])]


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


def _to_jax(mapping: WeightMapping, factors: Arrays) -> Arrays:
    """`[r, F]` of each kernel from `[F, r]` of each Hugging Face layer; a Conv1D is not transposed by its mapping."""
    return [x.T for x in factors] if mapping.is_conv1d else mapping.to_jax(factors)


def _to_torch(mapping: WeightMapping, factors: Arrays) -> Arrays:
    """`[F, r]` of each Hugging Face layer from `[r, F]` of each kernel, the inverse of `_to_jax`."""
    converted = mapping.to_torch(factors)
    return [x.T for x in converted] if mapping.is_conv1d else converted
