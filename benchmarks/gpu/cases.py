"""Cases of the GPU benchmark: sizes, operands, masks and ALiBi slopes, in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

WIDTH = 1024
"""Number of heads times head size."""
TOKENS = 8192
"""Batch size times length, for shorter lengths."""
WINDOW, CAP = 256, 30.0
KINDS = ("full", "causal", "window", "documents", "alibi", "soft_cap", "prefix")
DTYPES = ("bfloat16", "float32")
TOLERANCE = {"bfloat16": 3e-2, "float32": 1e-2}
"""Largest difference over largest entry, of outputs and gradients; both sides compute float32 products in TF32."""


class Case(NamedTuple):
    """One case of the speed benchmark."""

    kind: str
    length: int
    size: int
    dtype: str
    batch: int
    heads: int

    @property
    def name(self) -> str:
        """Name of the case in the results."""
        return f"{self.kind} T={self.length} H={self.size} {self.dtype}"


def make_case(kind: str, length: int, size: int, dtype: str, smoke: bool = False) -> Case:
    """A case with TOKENS tokens (or one longer row) of WIDTH features; tiny with `smoke`."""
    batch, heads = (1, 2) if smoke else (max(1, TOKENS // length), WIDTH // size)
    return Case(kind, length, size, dtype, batch, heads)


def operands(case: Case) -> list[np.ndarray]:
    """Query, key, value and the cotangent of the output, float32 `[B, T, N, H]`."""
    rng = np.random.default_rng(0)
    shape = (case.batch, case.length, case.heads, case.size)
    return [rng.standard_normal(shape, dtype=np.float32) for _ in range(4)]


def documents(length: int) -> np.ndarray:
    """Segment ids `[T]`: documents of 64 to 1023 tokens."""
    lengths = np.random.default_rng(1).integers(64, 1024, size=length)
    return np.repeat(np.arange(length), lengths)[:length].astype(np.int32)


def slopes(heads: int) -> np.ndarray:
    """ALiBi slopes `[N]`."""
    return (2.0 ** (-8 * np.arange(1, heads + 1) / heads)).astype(np.float32)


def prefix(length: int) -> int:
    """Length of the prefix, a quarter of the sequence."""
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
    """Bytes of one array of all scores."""
    return case.batch * case.heads * case.length**2 * (2 if case.dtype == "bfloat16" else 4)


def softmax_attention(query: np.ndarray, key: np.ndarray, value: np.ndarray, mask: Callable | None) -> np.ndarray:
    """Scaled dot-product attention in float64, `[B, T, N, H]`; rows without keys are 0."""
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
