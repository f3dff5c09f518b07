"""Which PyTorch arrays hold the numbers of which JAX arrays: a converter is a table of `WeightMapping`s.

A mapping is a pair of inverse functions between a few arrays of PyTorch (`torch.nn` or Hugging Face) and a few of this
library. Linear layers of PyTorch keep `[out, in]`, kernels of this library `[in, out]`, so most mappings transpose;
some also concatenate or split, since query, key and value may be one array or three.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from jax_attention.core.checks import describe_array
from jax_attention.core.text import list_names
from jax_attention.core.tree_paths import list_problems

Arrays = Sequence[np.ndarray]


@dataclass(frozen=True)
class WeightMapping:
    """Some PyTorch arrays and the JAX arrays that hold the same numbers, by name, with the conversion both ways."""

    jax_names: tuple[str, ...]
    torch_names: tuple[str, ...]
    to_jax: Callable[[Arrays], Arrays]
    to_torch: Callable[[Arrays], Arrays]
    is_conv1d: bool = False
    """Whether the PyTorch kernel is `[in, out]` too: the `Conv1D` layers of GPT-2."""


def same(jax_name: str, torch_name: str) -> WeightMapping:
    """One array without any change: biases, embeddings, scales of norms."""
    return WeightMapping((jax_name,), (torch_name,), list, list)


def as_is(jax_name: str, torch_name: str) -> WeightMapping:
    """A kernel `[in, out]` on both sides: the `Conv1D` layers of GPT-2."""
    return WeightMapping((jax_name,), (torch_name,), list, list, is_conv1d=True)


def transposed(jax_name: str, torch_name: str) -> WeightMapping:
    """A kernel: `[in, out]` in JAX, `[out, in]` in PyTorch."""
    return WeightMapping((jax_name,), (torch_name,), _transpose_all, _transpose_all)


def reshaped(jax_name: str, torch_name: str, jax_shape: tuple[int, ...], torch_shape: tuple[int, ...]) -> WeightMapping:
    """The same numbers in the same order in another shape. An array of any other shape passes unchanged, so that the
    check of shapes in `replace_arrays` reports it.
    """
    return WeightMapping(
        (jax_name,),
        (torch_name,),
        lambda x: [x[0].reshape(jax_shape) if x[0].shape == torch_shape else x[0]],
        lambda x: [x[0].reshape(torch_shape)],
    )


def offset(jax_name: str, torch_name: str, by: float) -> WeightMapping:
    """`jax = torch + by`: Gemma stores the scales of its norms minus one."""
    return WeightMapping((jax_name,), (torch_name,), partial(_add, by), partial(_add, -by))


def skip_rows(jax_name: str, torch_name: str, count: int, skipped: int) -> WeightMapping:
    """The last `count` rows of a table whose first `skipped` rows are never read. They are written as zeros."""
    return WeightMapping(
        (jax_name,),
        (torch_name,),
        lambda x: [x[0][-count:] if len(x[0]) == count + skipped else x[0]],
        lambda x: [np.concatenate([np.zeros((skipped, *x[0].shape[1:]), x[0].dtype), x[0]])],
    )


def duplicated(jax_name: str, torch_name: str, copy_name: str) -> WeightMapping:
    """One array that PyTorch stores under two names and reads under the first."""
    return WeightMapping((jax_name,), (torch_name, copy_name), lambda x: [x[0]], lambda x: [x[0], x[0]])


def concatenated(jax_name: str, torch_names: Sequence[str], sizes: Sequence[int]) -> WeightMapping:
    """One JAX kernel that is several PyTorch ones side by side: the last axis of the one, the first of the others."""
    return WeightMapping(
        (jax_name,),
        tuple(torch_names),
        lambda x: [np.concatenate(x, axis=0).T],
        lambda x: np.split(x[0].T, np.cumsum(sizes)[:-1], axis=0),
    )


def split(jax_names: Sequence[str], torch_name: str, sizes: Sequence[int]) -> WeightMapping:
    """Several JAX kernels that PyTorch packs into one array, along its first axis."""
    return WeightMapping(
        tuple(jax_names),
        (torch_name,),
        lambda x: _transpose_all(np.split(x[0], np.cumsum(sizes)[:-1], axis=0)),
        lambda x: [np.concatenate(_transpose_all(x), axis=0)],
    )


def interleaved(jax_name: str, torch_name: str, num_heads: int) -> WeightMapping:
    """GPT-NeoX packs query, key and value head by head (q0 k0 v0 q1 k1 v1 …); the JAX kernel has all queries first."""

    def regroup(x: np.ndarray, outer: int, inner: int) -> np.ndarray:
        return x.reshape(outer, inner, -1, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape)

    return WeightMapping(
        (jax_name,),
        (torch_name,),
        lambda x: [regroup(x[0], num_heads, 3).T],
        lambda x: [regroup(x[0].T, 3, num_heads)],
    )


def _transpose_all(arrays: Arrays) -> Arrays:
    return [x.T for x in arrays]


def _add(number: float, arrays: Arrays) -> Arrays:
    """Sums in at least float32: a bfloat16 scale of 0.01, say, would lose most of its digits next to a one."""
    return [x.astype(np.result_type(x.dtype, np.float32)) + np.float32(number) for x in arrays]


def to_jax_arrays(
    mappings: Iterable[WeightMapping],
    torch_arrays: Mapping[str, np.ndarray],
    expected: str,
    keep: Callable[[np.ndarray], Any] = np.asarray,
) -> dict[str, Any]:
    """JAX arrays by name. PyTorch arrays that are missing, left over or do not fit together are an error, which begins
    with `expected`. `keep` says what to keep of each array, such as its shape.
    """
    mappings = list(mappings)
    known = {name for mapping in mappings for name in mapping.torch_names}
    problems = {"missing": sorted(known - torch_arrays.keys()), "unused": sorted(torch_arrays.keys() - known)}
    if any(problems.values()):
        raise ValueError(f"{expected}, got {list_problems(problems)}.")
    converted: dict[str, np.ndarray] = {}
    for mapping in mappings:
        arrays = [torch_arrays[name] for name in mapping.torch_names]
        try:
            results = mapping.to_jax(arrays)
        except (ValueError, IndexError):
            shown = [f"{name} {describe_array(x)}" for name, x in zip(mapping.torch_names, arrays, strict=True)]
            raise ValueError(f"{expected}, got shapes that do not fit: {list_names(shown)}.") from None
        converted |= {name: keep(x) for name, x in zip(mapping.jax_names, results, strict=True)}
    return converted


def to_torch_arrays(mappings: Iterable[WeightMapping], jax_arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """PyTorch arrays by name, from JAX arrays by name."""
    converted: dict[str, np.ndarray] = {}
    for mapping in mappings:
        converted |= zip(
            mapping.torch_names, mapping.to_torch([jax_arrays[name] for name in mapping.jax_names]), strict=True
        )
    return converted
