"""A language model without attention whose text is known and whose calls are counted; a tokenizer of letters; and a
small Transformer with room for generation.
"""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp

from jax_attention.core.struct import data_field, struct
from tests.models import small

VOCAB_SIZE, CONTEXT = 26, 4096
CALL_COUNTS: Counter = Counter()
"""How often the model was traced for `"prefill"` and `"decode"`, and how often it was `"run"`."""


@struct
class Successor:
    """The token after t is t + stride, modulo the vocabulary: "abc" goes on with "def" if the stride is 1."""

    stride: jax.Array = data_field()

    @property
    def config(self) -> SimpleNamespace:
        return SimpleNamespace(vocab_size=VOCAB_SIZE, context=CONTEXT, position="none")

    def init_cache(self, batch: tuple[int, ...] = (), capacity: int | None = None) -> jax.Array:
        return jnp.zeros((*batch, capacity))

    def hidden(self, tokens: jax.Array, *, positions: jax.Array, cache: jax.Array) -> tuple[jax.Array, jax.Array]:
        CALL_COUNTS["prefill" if tokens.shape[-1] > 1 else "decode"] += 1
        jax.debug.callback(lambda: CALL_COUNTS.update(["run"]))
        return 8.0 * jax.nn.one_hot((tokens + self.stride) % VOCAB_SIZE, VOCAB_SIZE), cache + 1

    def unembed(self, hidden: jax.Array) -> jax.Array:
        return hidden


class LetterTokenizer:
    """Token 0 is "a", token 25 is "z"."""

    def decode(self, ids: Any) -> str:
        return "".join(chr(ord("a") + int(i)) for i in ids)


def successor_model(stride: int = 1) -> Successor:
    return Successor(jnp.int32(stride))


def letter_ids(text: str) -> list[int]:
    return [ord(c) - ord("a") for c in text]


def transformer(scheme: str = "rotary", **changes: Any) -> Any:
    """A small Transformer with a context of 40."""
    return small.model(scheme, **{"context": 40, "depth": 1} | changes)
