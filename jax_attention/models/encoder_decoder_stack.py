"""An encoder–decoder Transformer over vectors, as `torch.nn.Transformer` is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
from flax import nnx

from jax_attention.models.config import LMConfig
from jax_attention.models.results import Capture, StackOutput
from jax_attention.models.transformer_stack import TransformerStack
from jax_attention.nn.listing import unlisted
from jax_attention.nn.short_repr import ShortRepr

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray


class EncoderDecoderStack(ShortRepr, nnx.Module):
    """Two stacks, the second with cross-attention to the output of the first.

        y = decoder(target, memory = encoder(source))

    Args:
        encoder: config of the encoder, usually with `mask=None`.
        decoder: config of the decoder, with `memory_size` = the encoder's width.
        rngs: random keys, used here and not kept.

    Returns:
        A module: `stacks(source, target, mask=)` gives the vectors `[..., T, D]` of the decoder; `stacks.read` also
        captured arrays. With a mask for the source too: `stacks.decoder(target, stacks.encoder(source, mask=))`.

    Raises:
        ValueError: by the call, if shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from jax_attention import masks, models
        >>> encoder = models.LMConfig(vocab_size=1, width=8, depth=1, num_heads=2, mask=None)
        >>> decoder = models.LMConfig(vocab_size=1, width=8, depth=1, num_heads=2, mask=None, memory_size=8)
        >>> stacks = models.EncoderDecoderStack(encoder, decoder, rngs=nnx.Rngs(0))
        >>> stacks(jnp.ones((2, 5, 8)), jnp.ones((2, 3, 8)), mask=masks.causal()).shape
        (2, 3, 8)

    Reference:
        Vaswani et al. (2017), "Attention is all you need", figure 1.
    """

    def __init__(self, encoder: LMConfig, decoder: LMConfig, *, rngs: nnx.Rngs):
        self.encoder, self.decoder = TransformerStack(encoder, rngs=rngs), TransformerStack(decoder, rngs=rngs)

    def __call__(
        self,
        source: Float[Array, "*batch S D"],
        target: Float[Array, "*batch T D"],
        *,
        mask: Any = None,
        mods: tuple = (),
        memory_mask: Any = None,
        memory_mods: tuple = (),
        source_positions: Int[Array, "*#batch S"] | None = None,
        target_positions: Int[Array, "*#batch T"] | None = None,
        rng: PRNGKeyArray | None = None,
    ) -> Float[Array, "*batch T D"]:
        """The decoder's output for the target, `[..., T, D]`.

        mask, mods: for self-attention of the target. The mask is combined with the config's by &.
        memory_mask, memory_mods: for cross-attention of the target to the source, `[..., T, S]`.
        source_positions, target_positions: padding has position `cache.EMPTY`.
        """
        return self.read(
            source,
            target,
            mask=mask,
            mods=mods,
            memory_mask=memory_mask,
            memory_mods=memory_mods,
            source_positions=source_positions,
            target_positions=target_positions,
            rng=rng,
        ).hidden

    def read(
        self,
        source: Float[Array, "*batch S D"],
        target: Float[Array, "*batch T D"],
        *,
        source_positions: Int[Array, "*#batch S"] | None = None,
        target_positions: Int[Array, "*#batch T"] | None = None,
        rng: PRNGKeyArray | None = None,
        capture: Capture | None = None,
        **options: Any,
    ) -> StackOutput:
        """The same call with a choice of arrays of the decoder to capture: vectors and captured arrays."""
        rngs = (None, None) if rng is None else jax.random.split(rng)
        states = self.encoder(source, positions=source_positions, rng=rngs[0])
        memory = unlisted(self.decoder.project_memory)(states, source_positions)
        options |= {"positions": target_positions, "memory": memory, "rng": rngs[1], "capture": capture}
        return unlisted(self.decoder.read)(target, **options)
