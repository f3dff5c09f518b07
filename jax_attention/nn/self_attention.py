"""Self-attention with one head: projections to query, key and value, attention, and an output projection."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx

from jax_attention.attention.attend import attend, attention_weights
from jax_attention.nn.freeze import freeze, unfreeze, unfreeze_rule
from jax_attention.nn.linear import Linear
from jax_attention.nn.short_repr import ShortRepr

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class SelfAttention(ShortRepr, nnx.Module):
    """Every row attends to every row, through learned projections.

        output = attend(X W_q, X W_k, X W_v) W_out

    Args:
        size: D, of the input and output.
        head_size: H, of queries, keys and values; D if None.
        score: as in `attend`, or a module (`nn.Additive`, `nn.LearnedPart`).
        mods: as in `attend`; each may be an `nn.LearnedPart`.
        mask: as in `attend`.
        normalize: as in `attend`, or an `nn.LearnedPart`.
        use_bias: whether the four projections have biases.
        param_dtype: dtype of the parameters.
        rngs: random keys, used here and not kept.

    Returns:
        A module with `query`, `key`, `value`, `out`; call it as `layer(x)`.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from jax_attention import masks, nn
        >>> layer = nn.SelfAttention(8, mask=masks.causal(), rngs=nnx.Rngs(0))
        >>> layer(jnp.ones((2, 3, 8))).shape
        (2, 3, 8)
        >>> layer.weights(jnp.ones((2, 8)))
        Array([[1. , 0. ],
               [0.5, 0.5]], dtype=float32)

    Reference:
        Vaswani et al. (2017), "Attention is all you need", section 3.2.
    """

    def __init__(
        self,
        size: int,
        head_size: int | None = None,
        *,
        score: Any = None,
        mods: tuple = (),
        mask: Any = None,
        normalize: Any = None,
        use_bias: bool = False,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        head_size = size if head_size is None else head_size
        make = partial(Linear, use_bias=use_bias, param_dtype=param_dtype, rngs=rngs)
        self.query, self.key, self.value = (make(size, head_size) for _ in range(3))
        self.out = make(head_size, size)
        self.rule = nnx.Dict(score=freeze(score), mask=freeze(mask), normalize=freeze(normalize))
        self.mods = nnx.List([freeze(mod) for mod in (mods if isinstance(mods, (tuple, list)) else (mods,))])

    @property
    def size(self) -> int:
        """Features of input and output."""
        return self.query.in_features

    @property
    def head_size(self) -> int:
        """Features of queries, keys and values."""
        return self.query.out_features

    def __call__(self, x: Float[Array, "*batch T D"]) -> Float[Array, "*batch T D"]:
        """`[..., T, D] -> [..., T, D]`."""
        return self.out(attend(*self._project(x), **self._options(x)))

    def weights(self, x: jax.Array) -> jax.Array:
        """The attention weights `[..., T, T]`."""
        return attention_weights(*self._project(x), **self._options(x))

    def _project(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        return self.query(x), self.key(x), self.value(x)

    def _options(self, x: jax.Array) -> dict[str, Any]:
        mods = tuple(unfreeze(mod, x) for mod in self.mods)
        return {"mods": mods, **unfreeze_rule(self.rule, x)}
