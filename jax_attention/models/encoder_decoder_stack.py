"""An encoder–decoder Transformer over vectors, as `torch.nn.Transformer` is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
from flax import nnx

from jax_attention.models.config import LMConfig
from jax_attention.models.results import StackOutput
from jax_attention.models.transformer_stack import TransformerStack
from jax_attention.nn.listing import unlisted

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray


class EncoderDecoderStack(nnx.Module):
    """Two stacks, the second with cross-attention to the output of the first.

        y = decoder(target, memory = encoder(source))

    Args:
        encoder: config of the encoder, usually with `mask=None`.
        decoder: config of the decoder, with `memory_size` = the encoder's width.
        rngs: random keys, used here and not kept.

    Returns:
        A module: `stacks(source, target, mask=)` gives `StackOutput(hidden, cache, captured)` of the decoder.

    Raises:
        ValueError: by the call, if shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from jax_attention import masks, models
        >>> encoder = models.LMConfig(vocab_size=1, width=8, depth=1, num_heads=2, mask=None)
        >>> decoder = models.LMConfig(vocab_size=1, width=8, depth=1, num_heads=2, mask=None, memory_size=8)
        >>> stacks = models.EncoderDecoderStack(encoder, decoder, rngs=nnx.Rngs(0))
        >>> stacks(jnp.ones((2, 5, 8)), jnp.ones((2, 3, 8)), mask=masks.causal()).hidden.shape
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
        source_positions: Int[Array, "*#batch S"] | None = None,
        target_positions: Int[Array, "*#batch T"] | None = None,
        rng: PRNGKeyArray | None = None,
        capture: Any = None,
    ) -> StackOutput:
        """The decoder's output for the target, `[..., T, D]`, captured arrays included.

        mask: for self-attention of the target, combined with the config's by &.
        source_positions, target_positions: padding has position `cache.EMPTY`.
        """
        rngs = (None, None) if rng is None else jax.random.split(rng)
        states = self.encoder(source, positions=source_positions, rng=rngs[0]).hidden
        memory = unlisted(self.decoder.project_memory)(states, source_positions)
        decode = unlisted(self.decoder.__call__)
        return decode(target, positions=target_positions, mask=mask, memory=memory, rng=rngs[1], capture=capture)
