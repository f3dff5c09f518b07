"""Base of sequence-to-sequence models, and their decoder given one source as a language model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx

from jax_attention.cache import EMPTY
from jax_attention.core.buckets import bucket
from jax_attention.core.checks import check_positions, check_tokens, fail_unless
from jax_attention.nn.listing import unlisted
from jax_attention.nn.short_repr import ShortRepr

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray

    from jax_attention.models.results import Capture, LMOutput


class ConditionedDecoder(ShortRepr, nnx.Module):
    """A decoder together with the memory of a source: a language model like any other, for `decoding.generate`."""

    def __init__(self, decoder: Any, memory: Any):
        self.decoder, self.config = decoder, decoder.config
        self.memory = nnx.Variable(memory)  # bare arrays would stop `nnx.tabulate`

    def __call__(self, tokens: Int[Array, "*batch T"], **options: Any) -> LMOutput:
        """Logits of the next token at every position."""
        return unlisted(self.decoder.__call__)(tokens, memory=self.memory.get_value(), **options)

    def hidden(self, tokens: Int[Array, "*batch T"], **options: Any) -> tuple[Float[Array, "*batch T D"], Any]:
        """Hidden states before the head, and the new cache."""
        return self.decoder.hidden(tokens, memory=self.memory.get_value(), **options)

    def unembed(self, hidden: Float[Array, "*batch D"]) -> Float[Array, "*batch V"]:
        """Logits of hidden states."""
        return self.decoder.unembed(hidden)

    def init_cache(self, batch: tuple[int, ...] = (), capacity: int | None = None, **options: Any) -> Any:
        """An empty cache of the decoder."""
        return self.decoder.init_cache(batch, capacity, **options)


class Seq2SeqModel(ShortRepr, nnx.Module):
    """Base of models that read a source and write a target.

    Subclasses have a `decoder` and define `encode_memory`, whose result the decoder takes as its `memory`.
    """

    decoder: Any

    def __call__(
        self,
        source: Int[Array, "*batch S"],
        target: Int[Array, "*batch T"],
        *,
        source_positions: Int[Array, "*#batch S"] | None = None,
        target_positions: Int[Array, "*#batch T"] | None = None,
        rng: PRNGKeyArray | None = None,
        capture: Capture | None = None,
    ) -> LMOutput:
        """Logits `[..., T, V]` of the next token at every position of the target.

        source_positions, target_positions: padding has position `cache.EMPTY`.
        rng: for dropout in encoder and decoder.
        capture: arrays of the decoder; `Capture(cross="all")` gives the attention weights over the source.
        """
        options = self._decoder_options(source, target, source_positions, rng)
        decode = unlisted(self.decoder.__call__)
        return decode(target, positions=target_positions, capture=capture, **options)

    def hidden(
        self,
        source: Int[Array, "*batch S"],
        target: Int[Array, "*batch T"],
        *,
        source_positions: Int[Array, "*#batch S"] | None = None,
        target_positions: Int[Array, "*#batch T"] | None = None,
        rng: PRNGKeyArray | None = None,
    ) -> Float[Array, "*batch T D"]:
        """Hidden states before the head, `[..., T, D]`: the same call without the large logits."""
        options = self._decoder_options(source, target, source_positions, rng)
        return self.decoder.hidden(target, positions=target_positions, **options)[0]

    def unembed(self, hidden: Float[Array, "*batch D"]) -> Float[Array, "*batch V"]:
        """Logits of hidden states."""
        return self.decoder.unembed(hidden)

    def encode_memory(self, source: Any, positions: Any = None, rng: Any = None) -> Any:
        """The decoder's `memory` of a source."""
        raise NotImplementedError(f"{type(self).__name__} must define encode_memory(source, positions, rng)")

    def padded_length(self, count: int) -> int:
        """The length that `condition` pads a source of `count` tokens to."""
        return bucket(count)

    def condition(
        self, source: Int[Array, "*batch S"], *, positions: Int[Array, "*#batch S"] | None = None
    ) -> ConditionedDecoder:
        """The decoder given one source, or a batch of them: a language model of the target.

        The encoder runs compiled. Sources are padded to one of few lengths (16, 32, 64, 128, 256, …), so that sources
        of similar lengths run the same programs here and in `decoding.generate`.
        """
        source = check_tokens("source", source)
        padded = _pad_source(source, positions, self.padded_length(source.shape[-1]))
        return ConditionedDecoder(self.decoder, _encode_memory(self, *padded))

    def _decoder_options(self, source: Any, target: Any, positions: Any, rng: jax.Array | None) -> dict[str, Any]:
        """Arguments of the decoder besides the target and its positions: the memory and the rng."""
        source_batch, target_batch = jnp.shape(source)[:-1], jnp.shape(target)[:-1]
        fail_unless(
            source_batch == target_batch,
            f"target: expected the batch dimensions of the source, {source_batch}, got {target_batch}. Give one target "
            "for each source.",
        )
        rngs = (None, None) if rng is None else jax.random.split(rng)
        return {"memory": unlisted(self.encode_memory)(source, positions, rngs[0]), "rng": rngs[1]}


@jax.jit
def _encode_memory(model: Seq2SeqModel, source: jax.Array, positions: jax.Array) -> Any:
    return model.encode_memory(source, positions)


def _pad_source(source: jax.Array, positions: Any, size: int) -> tuple[jax.Array, jax.Array]:
    """Tokens and positions `[..., size]`; the added tokens have position `EMPTY`, to which no token attends."""
    count, batch = source.shape[-1], source.shape[:-1]
    positions = (
        jnp.arange(count, dtype=jnp.int32)
        if positions is None
        else check_positions("positions", positions, count, batch)
    )

    def pad(x: jax.Array, fill: int) -> jax.Array:
        return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, size - count)], constant_values=fill)

    return pad(source, 0), pad(positions, EMPTY)
