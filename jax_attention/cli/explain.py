"""`jax-attention explain`: which implementation runs a rule at the given sizes, and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import jax

from jax_attention import explain
from jax_attention.cli.expressions import parse
from jax_attention.cli.own_code import OwnCode
from jax_attention.core.checks import fail_unless
from jax_attention.core.output import print_line

MAX_SIZE = 2**24
"""Largest size that is explained: the plan of tiles takes memory in proportion to the length."""


@dataclass(frozen=True, kw_only=True)
class Explain:
    """Name the implementation that a call of `attend_heads` would use, and for every other one the reason against it.

    Args:
        length: number of queries, T.
        keys: number of keys, S; T if None.
        batch: batch size, B.
        heads: number of query heads, N.
        kv_heads: number of key/value heads, K; N if None.
        head_size: head size, H.
        dtype: dtype of query, key and value.
        score: an expression such as 'cosine()'.
        mods: an expression such as 'soft_cap(30.0)'.
        mask: an expression such as 'causal() & sliding_window(64)'.
        normalize: an expression such as 'entmax15()'.
        implementation: name of the implementation to use; automatic choice if None.
        code: code of your own that may run.
    """

    length: int = 1024
    keys: int | None = None
    batch: int = 1
    heads: int = 8
    kv_heads: int | None = None
    head_size: int = 64
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    score: str | None = None
    mods: str | None = None
    mask: str | None = "causal()"
    normalize: str | None = None
    implementation: str | None = None
    code: OwnCode = field(default_factory=OwnCode)

    def run(self) -> None:
        """Print the report."""
        for name in ("length", "keys", "batch", "heads", "kv_heads", "head_size"):
            size = getattr(self, name)
            fail_unless(
                size is None or 1 <= size <= MAX_SIZE, f"{name}: expected 1 to {MAX_SIZE:,}, got {size}. It is a size."
            )
        rule = {
            name: parse(name, getattr(self, name), self.code.names)
            for name in ("score", "mods", "mask", "normalize")
            if getattr(self, name) is not None
        }
        keys = self.length if self.keys is None else self.keys
        kv_heads = self.heads if self.kv_heads is None else self.kv_heads
        fail_unless(
            self.heads % kv_heads == 0,
            f"kv_heads: expected a divisor of heads = {self.heads}, got {kv_heads}. Each serves as many query heads.",
        )
        shapes = [
            jax.ShapeDtypeStruct((self.batch, rows, heads, self.head_size), self.dtype)
            for rows, heads in ((self.length, self.heads), (keys, kv_heads), (keys, kv_heads))
        ]
        # Under eval_shape no array is allocated, so any size can be explained.
        jax.eval_shape(
            lambda *operands: print_line(
                str(explain(*operands, heads=True, **rule, implementation=self.implementation))
            ),
            *shapes,
        )
