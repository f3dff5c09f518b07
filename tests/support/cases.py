"""Test cases for every catalogue entry: a part of the library and the oracle's version of it, with equal arrays.

    part, oracle_part = case.build(Draw(rng, SHAPES["wide"], batch_shape=(4,), dtype="float32"))
    oracle_part(2)             # the oracle's function for batch index 2 (head 2)

Arrays are drawn with the batch dimensions `batch_shape`, rounded to `dtype`, and passed to the oracle in float64.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import masks, mods, normalizers, scores
from tests.support import oracle

HEAD, KEY_HEAD, VALUE_HEAD = 4, 3, 2
"""H, the size of keys for scores that allow it to differ from H, and E."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """Numbers of queries and keys, and their positions unless these are 0, 1, 2, …"""

    rows: int
    columns: int
    query_positions: tuple[int, ...] | None = None
    key_positions: tuple[int, ...] | None = None

    def positions(self) -> dict[str, Any]:
        """The positions as keyword arguments of `attend`, which the oracle takes too."""
        positions = {"query_positions": self.query_positions, "key_positions": self.key_positions}
        return {name: np.asarray(x, np.int32) for name, x in positions.items() if x is not None}


SHAPES = {
    "square": Shape(4, 4),
    "wide": Shape(3, 7),
    "tall": Shape(7, 3),
    "one": Shape(1, 7),
    "moved": Shape(4, 4, (3, 1, 8, 4), (6, 0, 9, 3)),
}
"""T = S, T < S, T > S, T = 1, primes, and positions that are neither sorted nor dense."""


class Param:
    """One array for both sides: `.jax` for the library, and `[batch index]` in float64 for the oracle."""

    def __init__(self, array: np.ndarray):
        self.array = array
        self.jax = jnp.asarray(array)

    def __getitem__(self, index: tuple[int, ...]) -> Any:
        entry = self.array[index]
        return entry.astype(np.float64) if np.issubdtype(entry.dtype, np.floating) else entry


@dataclasses.dataclass(frozen=True)
class Draw:
    """Source of the random arrays of a case."""

    rng: np.random.Generator
    shape: Shape
    batch_shape: tuple[int, ...] = ()
    dtype: str = "float32"

    def normal(self, *tail: int) -> Param:
        return Param(np.asarray(0.7 * self.rng.normal(size=self.batch_shape + tail), self.dtype))

    def between(self, low: float, high: float, *tail: int) -> Param:
        return Param(np.asarray(self.rng.uniform(low, high, self.batch_shape + tail), self.dtype))

    def integers(self, low: int, high: int, *tail: int) -> Param:
        return Param(np.asarray(self.rng.integers(low, high, self.batch_shape + tail), np.int32))

    def bools(self, *tail: int) -> Param:
        return Param(np.asarray(self.rng.random(self.batch_shape + tail) < 0.6))


BuiltCase = tuple[Any, Callable[..., Any]]


@dataclasses.dataclass(frozen=True)
class Case:
    """A named score, mod, mask or normalizer; `factory` is its catalogue entry, None for a plain function."""

    name: str
    factory: Callable | None
    build: Callable[[Draw], BuiltCase]


def from_params(
    name: str, factory: Callable, oracle_factory: Callable, draw: Callable[[Draw], tuple], **static: Any
) -> Case:
    """A case whose factory and oracle take the same random arrays."""

    def build(d: Draw) -> BuiltCase:
        params = draw(d)
        return factory(*(p.jax for p in params), **static), lambda *i: oracle_factory(*(p[i] for p in params), **static)

    return Case(name, factory, build)


def without_arrays(
    name: str, factory: Callable | None, make_part: Callable[[Shape], Any], make_oracle_part: Callable[[Shape], Any]
) -> Case:
    """A case without random arrays."""
    return Case(name, factory, lambda d: (make_part(d.shape), lambda *i: make_oracle_part(d.shape)))


# Plain functions: each closes over an array, as a user's function would


def plain_score(weight: jax.Array) -> Callable:
    """`sin(w_t . q_t k_s)`: a weight per feature, `[..., 1, H]`."""
    return lambda query, key: jnp.sin((query * weight) @ jnp.swapaxes(key, -1, -2))


def squares(x: jax.Array) -> jax.Array:
    """All products of two features; dot products of them are squares of dot products."""
    return (x[..., :, None] * x[..., None, :]).reshape(*x.shape[:-1], x.shape[-1] ** 2)


def plain_mod(weight: jax.Array) -> Callable:
    """`z cos(w (q_pos - k_pos))`, `w` of shape `[..., 1, 1]`."""
    return lambda z, q_pos, k_pos: z * jnp.cos(weight * (q_pos - k_pos).astype(z.dtype))


def plain_mask(q_pos: jax.Array, k_pos: jax.Array) -> jax.Array:
    """A mask that forbids every third pair."""
    return (q_pos + k_pos) % 3 != 0


def plain_normalizer(weight: jax.Array) -> Callable:
    """`w z^2 / (1 + sum z^2)`, `w` of shape `[..., 1, 1]`."""

    def normalize(z: jax.Array, where: jax.Array) -> jax.Array:
        square = jnp.where(where, z * z, 0)
        return weight * square / (1 + jnp.sum(square, axis=-1, keepdims=True))

    return normalize


PLAIN = {"score": (plain_score, (1, HEAD)), "mod": (plain_mod, (1, 1)), "normalize": (plain_normalizer, (1, 1))}
"""Factories of plain functions, and the shape of the array each closes over, without batch dimensions."""


def _plain_score(d: Draw) -> BuiltCase:
    w = d.normal(1, HEAD)
    oracle_part = lambda *i: (  # noqa: E731
        lambda query, key, t, s: np.sin(sum(w[i][0][h] * query[t][h] * key[s][h] for h in range(HEAD)))
    )
    return plain_score(w.jax), oracle_part


def _plain_mod(d: Draw) -> BuiltCase:
    w = d.normal(1, 1)
    return plain_mod(w.jax), lambda *i: lambda z, t, s, q, k: z * np.cos(w[i][0][0] * (q - k))


def _plain_normalizer(d: Draw) -> BuiltCase:
    w = d.normal(1, 1)
    oracle_part = lambda *i: lambda z: [w[i][0][0] * x * x / (1 + sum(y * y for y in z)) for x in z]  # noqa: E731
    return plain_normalizer(w.jax), oracle_part


# The table

SCORES = (
    without_arrays("dot", scores.dot, lambda _: scores.dot(), lambda _: oracle.dot()),
    without_arrays("scaled_dot", scores.scaled_dot, lambda _: scores.scaled_dot(), lambda _: oracle.scaled_dot()),
    from_params("scaled_dot(scale)", scores.scaled_dot, oracle.scaled_dot, lambda d: (d.between(0.4, 1),)),
    from_params("cosine", scores.cosine, oracle.cosine, lambda d: (d.between(1, 3),)),
    from_params("general", scores.general, oracle.general, lambda d: (d.normal(HEAD, KEY_HEAD),)),
    from_params("concat", scores.concat, oracle.concat, lambda d: (d.normal(HEAD), d.normal(KEY_HEAD), d.normal())),
    from_params(
        "additive",
        scores.additive,
        oracle.additive,
        lambda d: (d.normal(HEAD, 3), d.normal(KEY_HEAD, 3), d.normal(3), d.normal(3)),
    ),
    from_params(
        "additive(sum)", scores.additive, oracle.additive, lambda d: (d.normal(HEAD, 3), d.normal(KEY_HEAD, 3))
    ),
    from_params(
        "location",
        scores.location,
        oracle.location,
        lambda d: (d.normal(HEAD + KEY_HEAD, d.shape.columns), d.normal(d.shape.columns)),
    ),
    from_params("l2", scores.l2, oracle.l2, lambda d: (d.between(0.2, 0.5),)),
    *(
        without_arrays(
            f"features({name})",
            scores.features,
            lambda _, chosen=squares if name == "squares" else name: scores.features(chosen),
            lambda _, name=name: oracle.features(name),
        )
        for name in ("elu_plus_one", "relu", "hedgehog", "squares")
    ),
    from_params("random_features", scores.random_features, oracle.random_features, lambda d: (d.normal(5, HEAD),)),
    Case("plain", None, _plain_score),
)

MODS = (
    from_params("bias", mods.bias, oracle.bias, lambda d: (d.normal(d.shape.rows, d.shape.columns),)),
    from_params("alibi", mods.alibi, oracle.alibi, lambda d: (d.between(0.1, 0.5),)),
    from_params("relative", mods.relative, oracle.relative, lambda d: (d.normal(8),), max_distance=5),
    from_params(
        "relative(causal)",
        mods.relative,
        oracle.relative,
        lambda d: (d.normal(5),),
        bidirectional=False,
        max_distance=6,
    ),
    from_params("soft_cap", mods.soft_cap, oracle.soft_cap, lambda d: (d.between(1, 2),)),
    from_params("temperature", mods.temperature, oracle.temperature, lambda d: (d.between(0.7, 2),)),
    Case("plain", None, _plain_mod),
)

MASKS = (
    without_arrays("causal", masks.causal, lambda _: masks.causal(), lambda _: oracle.causal()),
    without_arrays(
        "causal(bottom right)",
        masks.causal,
        lambda x: masks.causal(x.columns - x.rows),
        lambda x: oracle.causal(x.columns - x.rows),
    ),
    without_arrays(
        "sliding_window",
        masks.sliding_window,
        lambda _: masks.sliding_window(2, 1, 1),
        lambda _: oracle.sliding_window(2, 1, 1),
    ),
    without_arrays(
        "sliding_window(left)",
        masks.sliding_window,
        lambda _: masks.sliding_window(3, None),
        lambda _: oracle.sliding_window(3, None),
    ),
    from_params("prefix", masks.prefix, oracle.prefix, lambda d: (d.integers(1, 4),)),
    from_params("lengths", masks.lengths, oracle.lengths, lambda d: (d.integers(1, 5), d.integers(1, 5))),
    from_params(
        "segments",
        masks.segments,
        oracle.segments,
        lambda d: (d.integers(0, 2, d.shape.rows), d.integers(0, 2, d.shape.columns)),
    ),
    without_arrays("dilated", masks.dilated, lambda _: masks.dilated(2), lambda _: oracle.dilated(2)),
    without_arrays("chunked", masks.chunked, lambda _: masks.chunked(3), lambda _: oracle.chunked(3)),
    from_params("dense", masks.dense, oracle.dense, lambda d: (d.bools(d.shape.rows, d.shape.columns),)),
    Case("block_sparse", masks.block_sparse, lambda d: _block_sparse(d)),
    from_params(
        "algebra",
        lambda n: (masks.causal() | masks.prefix(n)) & ~masks.dilated(3),
        lambda n: lambda t, s, q, k: (k <= q or k < n) and (q - k) % 3 != 0,
        lambda d: (d.integers(1, 4),),
    ),
    without_arrays("plain", None, lambda _: plain_mask, lambda _: lambda t, s, q, k: (q + k) % 3 != 0),
)


def _block_sparse(d: Draw) -> BuiltCase:
    blocks = d.bools(3, 4)
    return masks.block_sparse(blocks.jax, 2), lambda *i: oracle.block_sparse(blocks[i], 2)


NORMALIZERS = (
    without_arrays("softmax", normalizers.softmax, lambda _: normalizers.softmax(), lambda _: oracle.softmax()),
    from_params("softmax(sinks)", normalizers.softmax, oracle.softmax, lambda d: (d.normal(),)),
    without_arrays(
        "softmax(plus_one)",
        normalizers.softmax,
        lambda _: normalizers.softmax(plus_one=True),
        lambda _: oracle.plus_one(),
    ),
    from_params("sigmoid", normalizers.sigmoid, oracle.sigmoid, lambda d: (d.normal(),)),
    without_arrays("relu", normalizers.relu, lambda _: normalizers.relu(), lambda _: oracle.relu()),
    without_arrays(
        "relu(squared)",
        normalizers.relu,
        lambda _: normalizers.relu(2, mean=False),
        lambda _: oracle.relu(2, mean=False),
    ),
    without_arrays("linear", normalizers.linear, lambda _: normalizers.linear(), lambda _: oracle.linear()),
    without_arrays(
        "linear(mean)", normalizers.linear, lambda _: normalizers.linear(mean=True), lambda _: oracle.linear(True)
    ),
    without_arrays(
        "proportional",
        normalizers.proportional,
        lambda _: normalizers.proportional(eps=20.0),
        lambda _: oracle.proportional(20.0),
    ),
    without_arrays("sparsemax", normalizers.sparsemax, lambda _: normalizers.sparsemax(), lambda _: oracle.sparsemax()),
    without_arrays("entmax15", normalizers.entmax15, lambda _: normalizers.entmax15(), lambda _: oracle.entmax15()),
    without_arrays("uniform", normalizers.uniform, lambda _: normalizers.uniform(), lambda _: oracle.uniform()),
    without_arrays("hard", normalizers.hard, lambda _: normalizers.hard(), lambda _: oracle.hard()),
    Case("plain", None, _plain_normalizer),
)

PARTS = {"score": SCORES, "mod": MODS, "mask": MASKS, "normalize": NORMALIZERS}
CATALOGUES = {
    "score": scores.CATALOGUE,
    "mod": mods.CATALOGUE,
    "mask": masks.CATALOGUE,
    "normalize": normalizers.CATALOGUE,
}


def missing_cases() -> set[str]:
    """Names of the catalogue entries that no case covers, and of the parts without a case of a plain function."""
    missing = {
        f"{part}: {factory.__name__}"
        for part, catalogue in CATALOGUES.items()
        for factory in catalogue
        if factory not in [case.factory for case in PARTS[part]]
    }
    return missing | {f"{part}: plain" for part, cases in PARTS.items() if "plain" not in [c.name for c in cases]}


def find(part: str, name: str) -> Case:
    """The case of a part with this name."""
    return next(case for case in PARTS[part] if case.name == name)


def named_parts(*parts: str) -> list:
    """`(part, case)` of every case of these parts, or of all parts, for `pytest.mark.parametrize`."""
    chosen = [(part, case) for part in parts or PARTS for case in PARTS[part]]
    return [pytest.param(part, case, id=f"{part}-{case.name}") for part, case in chosen]


def rule_arguments(part: str, choice: Any) -> dict[str, Any]:
    """The keyword argument of `attend` that takes this part."""
    return {"mods": (choice,)} if part == "mod" else {part: choice}


def operands(d: Draw, score: Any = None, kv_batch_shape: tuple[int, ...] | None = None) -> tuple[Param, Param, Param]:
    """Query, key and value `[*batch_shape, rows, features]` that fit the score.

    Key and value have the batch dimensions `kv_batch_shape` unless it is None.
    """
    key_size = HEAD if getattr(score, "needs_equal_sizes", True) else KEY_HEAD
    key_rows = d.shape.rows if getattr(score, "key_per_query", False) else d.shape.columns
    kv = d if kv_batch_shape is None else dataclasses.replace(d, batch_shape=kv_batch_shape)
    return d.normal(d.shape.rows, HEAD), kv.normal(key_rows, key_size), kv.normal(d.shape.columns, VALUE_HEAD)
