"""The linear layer that every module here is built from: one product of two matrices, whatever the batch dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
from flax import nnx

from jax_attention.core.matmul import matmul

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class Linear(nnx.Linear):
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
        flat, kernel, bias = self.promote_dtype((self._flat(x), kernel, bias), dtype=self.dtype)
        y = matmul(flat, kernel, self.precision, self.preferred_element_type)
        y = y if bias is None else y + bias[None]
        return y.reshape(*x.shape[:-1], y.shape[-1])

    def _flat(self, x: jax.Array) -> jax.Array:
        if x.shape[-1] != self.in_features:
            raise ValueError(f"x: expected {self.in_features} features in the last axis, got shape {x.shape}.")
        return x.reshape(-1, self.in_features)
