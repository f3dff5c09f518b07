"""The linear layer of every module here, one product of two matrices, and the input projections made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx

from jax_attention.core.explicit_axes import flatten_rows
from jax_attention.core.numerics import matmul
from jax_attention.nn.listing import unlisted
from jax_attention.nn.short_repr import ShortRepr

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class Linear(ShortRepr, nnx.Linear):
    """Flax's linear layer, over two dimensions.

        y = x W + b,        [..., D] -> [R, D] -> [R, F] -> [..., F]

    Batch dimensions are flattened before the product: otherwise XLA on CPU computes the gradient of W as one small
    product for each sequence, 7 times as slow (measured).

    Args:
        in_features: D.
        out_features: F.
        use_bias: whether there is a `b`.
        options: other keywords of `flax.nnx.Linear` (`dtype`, `param_dtype`, `precision`, `kernel_init`, `rngs`, …),
            except `dot_general`.

    Returns:
        A module with `kernel [D, F]` and `bias [F]` or None; call it as `layer(x)`.

    Raises:
        ValueError: by the call, if the last axis does not have D entries.
        TypeError: if `dot_general` is passed, which would be ignored.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from jax_attention import nn
        >>> nn.Linear(3, 5, rngs=nnx.Rngs(0))(jnp.ones((2, 4, 3))).shape
        (2, 4, 5)

    Reference:
        https://flax.readthedocs.io/en/latest/api_reference/flax.nnx/nn/linear.html
    """

    def __init__(self, in_features: int, out_features: int, *, use_bias: bool = True, **options: Any):
        if "dot_general" in options:
            raise TypeError(
                "dot_general: expected no such argument, as this layer has a product of its own. Use flax.nnx.Linear."
            )
        super().__init__(in_features, out_features, use_bias=use_bias, **options)

    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch F"]:
        """`[..., D] -> [..., F]`."""
        return self._apply(x, self.kernel[...], None if self.bias is None else self.bias[...])

    def columns(self, x: jax.Array, columns: slice) -> jax.Array:
        """A slice of the output features: `x W[:, columns] + b[columns]`."""
        bias = None if self.bias is None else self.bias[...][columns]
        return self._apply(x, self.kernel[...][:, columns], bias)

    def _apply(self, x: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
        if x.shape[-1] != self.in_features:
            raise ValueError(f"x: expected {self.in_features} features in the last axis, got shape {x.shape}.")
        flat, kernel, bias = self.promote_dtype((flatten_rows(x), kernel, bias), dtype=self.dtype)
        y = matmul(flat, kernel, self.precision, self.preferred_element_type)
        y = y if bias is None else y + bias.reshape((1,) * (y.ndim - 1) + bias.shape)
        return y.reshape(*x.shape[:-1], y.shape[-1])


class SeparateProjections(ShortRepr, nnx.Module):
    """Three linear layers: `query`, `key`, `value`."""

    def __init__(self, sizes: tuple[int, int, int], heads: tuple[int, int, int], **options: Any):
        self.query, self.key, self.value = (
            Linear(size, width, **options) for size, width in zip(sizes, heads, strict=True)
        )

    @property
    def size(self) -> int:
        """Features of the query input."""
        return self.query.in_features

    def __call__(
        self, query: jax.Array, key: jax.Array | None, value: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Project the three inputs; None for key is self-attention, None for value takes key."""
        key = query if key is None else key
        return (self.project_query(query), *self.project_key_value(key, value))

    def project_query(self, query: jax.Array) -> jax.Array:
        """Project a query without key and value."""
        return _project("query", self.query, query)

    def project_key_value(self, key: jax.Array, value: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Project a key and a value without the query; None for value takes key."""
        return _project("key", self.key, key), _project("value", self.value, key if value is None else value)


class PackedProjections(ShortRepr, nnx.Module):
    """One linear layer whose columns are query, key and value; self-attention is a single product."""

    def __init__(self, size: int, heads: tuple[int, int, int], **options: Any):
        # Named in checkpoints of every version: do not rename.
        self.joined = Linear(size, sum(heads), **options)
        self.ends = (heads[0], heads[0] + heads[1])

    @property
    def size(self) -> int:
        """Features of the query input."""
        return self.joined.in_features

    def __call__(
        self, query: jax.Array, key: jax.Array | None, value: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Project the three inputs; None for key is self-attention, None for value takes key."""
        if key is None:
            return tuple(jnp.split(self.joined(query), self.ends, axis=-1))
        return (self.project_query(query), *self.project_key_value(key, value))

    def project_query(self, query: jax.Array) -> jax.Array:
        """Project a query without key and value."""
        return unlisted(self.joined.columns)(query, slice(self.ends[0]))

    def project_key_value(self, key: jax.Array, value: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Project a key and a value without the query; None for value takes key."""
        first, second = self.ends
        value = key if value is None else value
        columns = unlisted(self.joined.columns)
        return columns(key, slice(first, second)), columns(value, slice(second, None))


def _project(name: str, linear: Linear, x: jax.Array) -> jax.Array:
    if x.shape[-1] != linear.in_features:
        raise ValueError(
            f"{name}: expected {linear.in_features} features in the last axis, got shape {x.shape}. "
            "A missing key is the query, a missing value the key; sizes are key_size= and value_size= of the layer."
        )
    return linear(x)
