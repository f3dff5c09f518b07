"""A source as the models of pairs take it, and the decoder of one source as a language model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx

from jax_attention.cache import EMPTY
from jax_attention.ground.checks import check_positions, fail_unless

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int


def check_same_lead(source: Any, target: Any) -> None:
    """One target for each source."""
    lead = tuple(jnp.shape(x)[:-1] for x in (source, target))
    fail_unless(
        lead[0] == lead[1],
        f"target: expected the leading axes of the source, {lead[0]}, got {lead[1]}. Give one for each.",
    )


def filled_up(source: jax.Array, positions: Any, size: int) -> tuple[jax.Array, jax.Array]:
    """Tokens and positions `[..., size]`: what is added stands at `EMPTY`, where nobody looks."""
    count, lead = source.shape[-1], source.shape[:-1]
    places = jnp.arange(count) if positions is None else check_positions("positions", positions, count, lead)
    behind = lambda x: [(0, 0)] * (x.ndim - 1) + [(0, size - count)]  # noqa: E731
    return jnp.pad(source, behind(source)), jnp.pad(places, behind(places), constant_values=EMPTY)


class Given(nnx.Module):
    """A decoder and what it remembers of a source: a language model like any other, for `decoding.generate`."""

    def __init__(self, decoder: Any, memory: Any):
        self.decoder, self.memory, self.config = decoder, nnx.data(memory), decoder.config

    def __call__(self, tokens: Int[Array, "*lead T"], **options: Any) -> LMOutput:
        """Logits of the next token at every place."""
        return self.decoder(tokens, memory=self.memory, **options)

    def hidden(self, tokens: Int[Array, "*lead T"], **options: Any) -> tuple[Float[Array, "*lead T D"], Any]:
        """What the head sees, and the new cache."""
        return self.decoder.hidden(tokens, memory=self.memory, **options)

    def unembed(self, hidden: Float[Array, "*lead D"]) -> Float[Array, "*lead V"]:
        """Logits of hidden states."""
        return self.decoder.unembed(hidden)

    def init_cache(self, batch: tuple[int, ...] = (), capacity: int | None = None, **options: Any) -> Any:
        """An empty cache of the decoder."""
        return self.decoder.init_cache(batch, capacity, **options)
