"""What the models that read a source share, and the decoder of one source as a language model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx

from jax_attention.cache import EMPTY
from jax_attention.core.buckets import bucket
from jax_attention.core.checks import check_positions, check_tokens, fail_unless

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray

    from jax_attention.models.results import Capture, LMOutput


class ConditionedDecoder(nnx.Module):
    """A decoder and what it remembers of a source: a language model like any other, for `decoding.generate`."""

    def __init__(self, decoder: Any, memory: Any):
        self.decoder, self.memory, self.config = decoder, nnx.data(memory), decoder.config

    def __call__(self, tokens: Int[Array, "*batch T"], **options: Any) -> LMOutput:
        """Logits of the next token at every place."""
        return self.decoder(tokens, memory=self.memory, **options)

    def hidden(self, tokens: Int[Array, "*batch T"], **options: Any) -> tuple[Float[Array, "*batch T D"], Any]:
        """What the head sees, and the new cache."""
        return self.decoder.hidden(tokens, memory=self.memory, **options)

    def unembed(self, hidden: Float[Array, "*batch D"]) -> Float[Array, "*batch V"]:
        """Logits of hidden states."""
        return self.decoder.unembed(hidden)

    def init_cache(self, batch: tuple[int, ...] = (), capacity: int | None = None, **options: Any) -> Any:
        """An empty cache of the decoder."""
        return self.decoder.init_cache(batch, capacity, **options)


class Seq2SeqModel(nnx.Module):
    """Base of the models that read a source and write a target: they say how a source is remembered, the rest follows.

    The `decoder` takes what `encode_memory` returns as its `memory`.
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
        """Logits `[..., T, V]` of the token behind each of the target.

        source_positions: padding stands at `cache.EMPTY`; so in target_positions.
        rng: for dropout in both halves.
        capture: of the decoder; `Capture(cross="all")` gives the maps over the source.
        """
        options = self._read(source, target, source_positions, rng)
        return self.decoder(target, positions=target_positions, capture=capture, **options)

    def hidden(
        self,
        source: Int[Array, "*batch S"],
        target: Int[Array, "*batch T"],
        *,
        source_positions: Int[Array, "*#batch S"] | None = None,
        target_positions: Int[Array, "*#batch T"] | None = None,
        rng: PRNGKeyArray | None = None,
    ) -> Float[Array, "*batch T D"]:
        """What the head sees: the same call without the logits, which are large."""
        options = self._read(source, target, source_positions, rng)
        return self.decoder.hidden(target, positions=target_positions, **options)[0]

    def unembed(self, hidden: Float[Array, "*batch D"]) -> Float[Array, "*batch V"]:
        """Logits of hidden states."""
        return self.decoder.unembed(hidden)

    def encode_memory(self, source: Any, positions: Any = None, rng: Any = None) -> Any:
        """What the decoder knows of a source: its `memory`."""
        raise NotImplementedError(f"{type(self).__name__} must define encode_memory(source, positions, rng)")

    def room(self, count: int) -> int:
        """To how many tokens `given` fills a source up."""
        return bucket(count)

    def condition(
        self, source: Int[Array, "*batch S"], *, positions: Int[Array, "*#batch S"] | None = None
    ) -> ConditionedDecoder:
        """The decoder of one source, or of a batch of them: a language model of the target.

        Compiled; lengths are rounded up (16, 32, 64, 128, 256, …) and hidden by position, so that nearby ones run the
        same programs here and in `decoding.generate`.
        """
        source = check_tokens("source", source)
        return ConditionedDecoder(
            self.decoder, _remembered(self, *_filled_up(source, positions, self.room(source.shape[-1])))
        )

    def _read(self, source: Any, target: Any, positions: Any, rng: jax.Array | None) -> dict[str, Any]:
        """What the decoder is given besides the target and its positions."""
        batch = tuple(jnp.shape(x)[:-1] for x in (source, target))
        fail_unless(
            batch[0] == batch[1],
            f"target: expected the leading axes of the source, {batch[0]}, got {batch[1]}. Give one for each.",
        )
        rngs = (None, None) if rng is None else jax.random.split(rng)
        return {"memory": self.encode_memory(source, positions, rngs[0]), "rng": rngs[1]}


@jax.jit
def _remembered(model: Seq2SeqModel, source: jax.Array, places: jax.Array) -> Any:
    return model.encode_memory(source, places)


def _filled_up(source: jax.Array, positions: Any, size: int) -> tuple[jax.Array, jax.Array]:
    """Tokens and positions `[..., size]`: what is added stands at `EMPTY`, where nobody looks."""
    count, batch = source.shape[-1], source.shape[:-1]
    places = jnp.arange(count) if positions is None else check_positions("positions", positions, count, batch)
    behind = lambda x: [(0, 0)] * (x.ndim - 1) + [(0, size - count)]  # noqa: E731
    return jnp.pad(source, behind(source)), jnp.pad(places, behind(places), constant_values=EMPTY)
