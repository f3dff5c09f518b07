"""Modules that make a part of a rule for a layer: from their parameters, and from the rows that the layer reads."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
from flax import nnx

from jax_attention.nn.short_repr import ShortRepr


class PartModule(ShortRepr, nnx.Module):
    """Base of modules that make a score, a mod or a normalizer for an attention layer.

        part = module.as_part(x),        x [..., T, D] the rows that the layer reads, after its norm

    So a rule may depend on the content: a gate for each token, a temperature for each query. Subclasses define
    `as_part`, and `for_layer` to be named in a config: `LMConfig(mods=(ForgetGate,))` makes one for each layer. The
    arrays of the part have the batch dimensions of the scores, batch and then heads: `[..., N, T]` for an
    `array_field("T")`.

    With a cache only the new rows are known, so a layer whose part reads rows cannot decode with one; a module that
    reads none says so: `reads_rows = False`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> from jax_attention import models, mods, nn
        >>> class QueryTemperature(nn.PartModule):
        ...     def __init__(self, size, *, rngs):
        ...         self.kernel = nnx.Param(jnp.zeros((size,)))
        ...
        ...     @classmethod
        ...     def for_layer(cls, config, *, rngs):
        ...         return cls(config.width, rngs=rngs)
        ...
        ...     def as_part(self, x):
        ...         scale = jax.nn.softplus(x @ self.kernel[...])[..., None, :, None]  # one for each query
        ...         return mods.as_mod(lambda z, q_pos, k_pos: z * scale)
        >>> model = models.create(models.tiny(vocab_size=11, width=16, mods=(QueryTemperature,)))
        >>> model(jnp.arange(5)).logits.shape
        (5, 11)

    Reference:
        Lin et al. (2025), "Forgetting Transformer: softmax attention with a forget gate", a rule of this kind.
    """

    reads_rows: ClassVar[bool] = True
    """Whether `as_part` looks at the rows."""

    def as_part(self, x: jax.Array) -> Any:
        """The part for these rows `[..., T, D]`, with the present parameters."""
        raise NotImplementedError(f"{type(self).__name__} must define as_part(x)")

    @classmethod
    def for_layer(cls, config: Any, *, rngs: nnx.Rngs) -> PartModule:
        """The module of one layer of a model with this `LMConfig`."""
        raise ValueError(
            f"{cls.__name__}: expected a class with for_layer(config, rngs=...), which makes the module of a layer, "
            "got none. Define it, or pass a part."
        )
