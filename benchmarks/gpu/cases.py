"""What is compared on a GPU: masks and score changes in the words of every library, in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

WIDTH = 1024
"""Heads times head size."""
TOKENS = 8192
"""Batch times length, where the length is shorter."""
WINDOW, CAP = 256, 30.0
KINDS = ("full", "causal", "window", "documents", "alibi", "soft_cap", "prefix")
DTYPES = ("bfloat16", "float32")
TOLERANCE = {"bfloat16": 3e-2, "float32": 1e-2}
"""Largest difference over largest entry, of outputs and gradients; float32 products are in TF32 on both sides."""


class Case(NamedTuple):
    """One row of the table."""

    kind: str
    length: int
    size: int
    dtype: str
    batch: int
    heads: int

    @property
    def name(self) -> str:
        """What it is called in the results."""
        return f"{self.kind} T={self.length} H={self.size} {self.dtype}"


def case_of(kind: str, length: int, size: int, dtype: str, smoke: bool = False) -> Case:
    """With as many batch elements and heads as make a fair load."""
    batch, heads = (1, 2) if smoke else (max(1, TOKENS // length), WIDTH // size)
    return Case(kind, length, size, dtype, batch, heads)


def operands(case: Case) -> list[np.ndarray]:
    """Query, key, value and the output's cotangent, float32 `[B, T, N, H]`."""
    rng = np.random.default_rng(0)
    shape = (case.batch, case.length, case.heads, case.size)
    return [rng.standard_normal(shape, dtype=np.float32) for _ in range(4)]


def documents(length: int) -> np.ndarray:
    """Segment ids `[T]`: documents of 64 to 1023 tokens."""
    lengths = np.random.default_rng(1).integers(64, 1024, size=length)
    return np.repeat(np.arange(length), lengths)[:length].astype(np.int32)


def slopes(heads: int) -> np.ndarray:
    """ALiBi's, `[N]`."""
    return (2.0 ** (-8 * np.arange(1, heads + 1) / heads)).astype(np.float32)


def prefix(length: int) -> int:
    """A quarter."""
    return math.ceil(length / 4)


def dense_mask(case: Case) -> np.ndarray | None:
    """bool `[T, T]`, True = may attend; None for all pairs."""
    q, k = np.arange(case.length)[:, None], np.arange(case.length)[None]
    if case.kind == "full":
        return None
    if case.kind == "documents":
        ids = documents(case.length)
        return (k <= q) & (ids[:, None] == ids[None])
    if case.kind == "window":
        return (k <= q) & (k > q - WINDOW)
    return (k <= q) | (k < prefix(case.length)) if case.kind == "prefix" else k <= q


def score_bytes(case: Case) -> int:
    """Of one array of all scores."""
    return case.batch * case.heads * case.length**2 * (2 if case.dtype == "bfloat16" else 4)


def softmax_attention(query: np.ndarray, key: np.ndarray, value: np.ndarray, mask: Callable | None) -> np.ndarray:
    """Scaled dot products and softmax in float64, `[B, T, N, H]`; rows without keys are 0."""
    query, key, value = (np.swapaxes(np.asarray(x, np.float64), 1, 2) for x in (query, key, value))
    key, value = (np.repeat(x, query.shape[1] // x.shape[1], axis=1) for x in (key, value))
    scores = query @ np.swapaxes(key, -1, -2) / math.sqrt(query.shape[-1])
    rows, columns = scores.shape[-2:]
    allowed = True if mask is None else np.asarray(mask(np.arange(rows)[:, None], np.arange(columns)[None]))
    scores = np.where(allowed, scores, -np.inf)
    largest = scores.max(axis=-1, keepdims=True)
    weights = np.exp(scores - np.where(np.isfinite(largest), largest, 0))
    total = weights.sum(axis=-1, keepdims=True)
    return np.swapaxes(weights / np.where(total > 0, total, 1) @ value, 1, 2)
