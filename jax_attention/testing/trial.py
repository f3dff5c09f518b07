"""A rule with random operands: the sizes that its arrays declare, slices of it, and its differentiable arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.attention.attend import attend_heads
from jax_attention.core.struct import NamedArray, map_arrays, named_arrays

Rule = dict[str, Any]
"""The parts by argument: score, mods, mask, normalize."""
OPERANDS = ("query", "key", "value")
VALUE_SIZE = 2


@dataclasses.dataclass(frozen=True)
class Trial:
    """One rule, and the shapes, dtype and seed of the operands that it is tried with."""

    rule: Rule
    T: int
    S: int
    batch: tuple[int, ...]
    heads: int
    key_heads: int
    query_size: int
    key_size: int
    shapes: tuple[tuple[int, int], ...]
    """All `(T, S)` that fit the rule; this trial has the first."""
    seed: int
    dtype: str = "float32"

    def __str__(self) -> str:
        return f"T = {self.T}, S = {self.S}, N = {self.heads}, K = {self.key_heads}, {self.dtype}"

    def replace(self, **changes: Any) -> Trial:
        """The same trial with other fields."""
        return dataclasses.replace(self, **changes)

    def in_every_shape(self) -> list[Trial]:
        """The same trial in each of the shapes."""
        return [self.replace(T=T, S=S) for T, S in self.shapes]

    @property
    def key_rows(self) -> int:
        """T for a score with a key row for each query, else S."""
        return self.T if self.rule["score"].key_per_query else self.S

    @cached_property
    def operands(self) -> tuple[jax.Array, ...]:
        """Query `[*batch, T, N, H]`, key `[*batch, S, K, Hk]`, value `[*batch, S, K, E]`; the same for every dtype."""
        rng = np.random.default_rng(self.seed)
        shapes = (self.T, self.heads, self.query_size), (self.key_rows, self.key_heads, self.key_size)
        shapes = (*shapes, (self.S, self.key_heads, VALUE_SIZE))
        return tuple(jnp.asarray(rng.normal(size=(*self.batch, *shape)), self.dtype) for shape in shapes)

    @cached_property
    def arrays(self) -> dict[str, jax.Array]:
        """The floating-point arrays of the parts by name, such as `mods[0].slopes`."""
        entries = [entry for name, part in self.rule.items() for entry in named_arrays(part, name)]
        return {entry.name: jnp.asarray(entry.array, self.dtype) for entry in entries if _is_floating(entry.array)}

    @property
    def point(self) -> dict[str, jax.Array]:
        """Everything that the output is differentiated by: operands and arrays."""
        return {**dict(zip(OPERANDS, self.operands, strict=True)), **self.arrays}

    def direction(self) -> dict[str, jax.Array]:
        """A tangent of the point."""
        return {name: wave(x.shape, x.dtype, start=n) for n, (name, x) in enumerate(self.point.items())}

    def attend(self, *operands: jax.Array, **options: Any) -> jax.Array:
        """`attend_heads` by this rule, with the dense formula unless `options` say otherwise."""
        return attend_heads(*operands, **{"implementation": "reference", **self.rule, **options})

    def attend_at(self, point: dict[str, jax.Array], **options: Any) -> jax.Array:
        """The output as a function of operands and arrays."""
        rule = map_rule(lambda entry: point.get(entry.name, entry.array), self.rule)
        return self.attend(*(point[name] for name in OPERANDS), **rule, **options)

    def loss(self, output: jax.Array) -> jax.Array:
        """A number in which every entry of the output has a derivative of its own."""
        return jnp.sum(jnp.sin(output) * wave(output.shape, output.dtype))

    def take(self, axis: str, index: list[int]) -> tuple[tuple[jax.Array, ...], dict[str, Any]]:
        """Operands and options of the same call with some queries ("T") or keys ("S") only, at their positions."""

        def slice_array(entry: NamedArray) -> Any:
            found = entry.axes.index(axis) - len(entry.axes) if axis in entry.axes else None
            whole = found is None or np.shape(entry.array)[found] == 1
            return entry.array if whole else entry.array.take(np.asarray(index), axis=found)

        query, key, value = self.operands
        rows = np.asarray(index)
        if axis == "S":
            value = value[..., rows, :, :]
        else:
            query = query[..., rows, :, :]
        if (axis == "T") == self.rule["score"].key_per_query:
            key = key[..., rows, :, :]
        positions = {"query_positions" if axis == "T" else "key_positions": rows.astype(np.int32)}
        return (query, key, value), {**map_rule(slice_array, self.rule), **positions}


def fast_jit(f: Callable) -> Callable:
    """`jax.jit` that compiles quickly: every program of the checks is small, and runs a few times."""
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(f, compiler_options=options if jax.default_backend() == "cpu" else None)


def map_rule(fn: Any, rule: Rule) -> Rule:
    """`fn(array)` for every array of the parts."""
    return {name: map_arrays(fn, part, name) for name, part in rule.items()}


def wave(shape: tuple[int, ...], dtype: Any, start: float = 0.0) -> jax.Array:
    """Numbers without a pattern, for cotangents and tangents."""
    return jnp.asarray(np.cos(start + np.arange(np.prod(shape, dtype=int))).reshape(shape), dtype)


def _is_floating(x: Any) -> bool:
    return isinstance(x, float) or (hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating))
