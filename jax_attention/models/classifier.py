"""A text encoder with a head that classifies the text, or every token of it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx

from jax_attention.cache import EMPTY
from jax_attention.core.checks import check_instance, check_int, check_positions, fail_unless
from jax_attention.core.numerics import compute_dtype
from jax_attention.models.config import LMConfig, model_dtype
from jax_attention.models.results import Capture, LMOutput
from jax_attention.models.transformer import TransformerLM
from jax_attention.nn import Linear
from jax_attention.nn.listing import unlisted
from jax_attention.nn.short_repr import ShortRepr

if TYPE_CHECKING:
    from jaxtyping import Array, Int, PRNGKeyArray


class Classifier(ShortRepr, nnx.Module):
    """Class logits of a text, or with `each=True` of every token, from a Transformer that reads the whole text.

        logits = mean over real tokens of h_t  W + b,   [..., classes];      logits_t = h_t W + b,   [..., T, classes]

    Args:
        config: config of the Transformer, usually with `mask=None`; its head is ignored.
        classes: number of classes.
        each: False for one class of the whole text, True for one class of each token.
        rngs: random keys, used here and not kept.

    Returns:
        A module: `model(tokens, positions=, rng=, capture=)` gives `LMOutput(logits, None, captured)`.

    Raises:
        TypeError: if a size is no int; by the call, if tokens are no integers.
        ValueError: if the config has a memory; by the call, if shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from jax_attention import models
        >>> config = models.LMConfig(vocab_size=11, width=8, depth=1, num_heads=2, mask=None)
        >>> models.Classifier(config, 3, rngs=nnx.Rngs(0))(jnp.zeros((2, 5), int)).logits.shape
        (2, 3)
        >>> models.Classifier(config, 3, each=True, rngs=nnx.Rngs(0))(jnp.zeros((2, 5), int)).logits.shape
        (2, 5, 3)

    Reference:
        Devlin et al. (2019), "BERT", section 4; with the mean over tokens instead of a [CLS] token.
    """

    def __init__(self, config: LMConfig, classes: int, *, each: bool = False, rngs: nnx.Rngs):
        check_instance("config", config, LMConfig, "models.LMConfig(...)")
        check_int("classes", classes, 1, "It is the number of classes.")
        fail_unless(
            config.memory_size is None,
            f"config: expected memory_size None, as a classifier reads nothing but tokens, got {config.memory_size}.",
        )
        check_instance("each", each, bool, "True for every token, False for the text")
        config = dataclasses.replace(config, tied_head=True, head_transform=False, head_bias=False)
        self.encoder = TransformerLM(config, rngs=rngs)
        options = {"dtype": model_dtype(config), "param_dtype": jnp.dtype(config.param_dtype), "rngs": rngs}
        self.head = Linear(config.width, classes, **options)
        self.config, self.each = config, each

    def __call__(
        self,
        tokens: Int[Array, "*batch T"],
        *,
        positions: Int[Array, "*#batch T"] | None = None,
        rng: PRNGKeyArray | None = None,
        capture: Capture | None = None,
    ) -> LMOutput:
        """Logits in at least float32. Padding, at position `cache.EMPTY`, is left out of the mean.

        The logits of a text without tokens are the bias.
        """
        hidden, _, captured = unlisted(self.encoder.read)(tokens, positions=positions, rng=rng, capture=capture)
        if not self.each:
            hidden = _mean_over_tokens(hidden, positions)
        logits = self.head(hidden)
        captured = None if capture is None else captured
        return LMOutput(logits.astype(compute_dtype(logits.dtype)), None, captured)


def _mean_over_tokens(hidden: jax.Array, positions: Any) -> jax.Array:
    """The mean over rows that hold a token; 0 where there are none."""
    if positions is None:
        return jnp.sum(hidden, axis=-2) / max(hidden.shape[-2], 1)
    is_token = check_positions("positions", positions, hidden.shape[-2], hidden.shape[:-2]) != EMPTY
    is_token = jnp.broadcast_to(is_token, hidden.shape[:-1])[..., None]
    # At least 1: the mean over no token would be 0 / 0.
    count = jnp.maximum(jnp.sum(is_token, axis=-2), 1).astype(hidden.dtype)
    return jnp.sum(jnp.where(is_token, hidden, 0), axis=-2) / count
