"""What training and decoding require of a model: any class with these members will do, no base class is needed."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax


@runtime_checkable
class TokenModel(Protocol):
    """A model with hidden states and a head, which is enough to train it."""

    def hidden(self, tokens: Any, **options: Any) -> tuple[jax.Array, Any]:
        """Hidden states `[..., T, D]` of tokens `[..., T]`, and the new cache or None.

        Options: `positions`, `segment_ids` and `rng` in training, `positions` and `cache` in decoding.
        """

    def unembed(self, hidden: jax.Array) -> jax.Array:
        """Logits `[..., V]` of hidden states `[..., D]`."""


@runtime_checkable
class LanguageModel(TokenModel, Protocol):
    """A token model that can generate, such as `models.TransformerLM` or `models.ConditionedDecoder`.

    `config` has `vocab_size` and `context`. It may have `position`, `scan`, `endless` and `sees_future`, with the
    meaning of `LMConfig` and `RNNConfig`.
    """

    config: Any

    def init_cache(self, batch: tuple[int, ...] = (), capacity: int | None = None) -> Any:
        """An empty cache for tokens `[*batch, T]`."""


@runtime_checkable
class Seq2Seq(Protocol):
    """A model that reads a source before it writes a target, such as `models.EncoderDecoder` or `models.RNNSeq2Seq`."""

    def hidden(self, source: Any, target: Any, *, source_positions: Any = None, rng: Any = None) -> jax.Array:
        """Hidden states `[..., T, D]` of the target, given the source."""

    def unembed(self, hidden: jax.Array) -> jax.Array:
        """Logits `[..., V]` of hidden states `[..., D]`."""

    def condition(self, source: Any, *, positions: Any = None) -> LanguageModel:
        """The decoder given one source, as a language model of the target."""
