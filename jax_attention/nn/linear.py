"""The linear layer that every module here is built from: one product of two matrices, whatever the leading axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx

if TYPE_CHECKING:
    from jaxtyping import Array, Float


class Linear(nnx.Linear):
    """Flax's linear layer, over two dimensions.

        y = x W + b,        [..., D] -> [R, D] -> [R, F] -> [..., F]

    Leading axes are flattened before the product. XLA on CPU otherwise transposes copies of the activations to get the
    gradient of W: a small GPT's training step took 1.7 times as long.

    Args:
        in_features: D.
        out_features: F.
        use_bias: whether there is a `b`.
        options: what else `flax.nnx.Linear` takes: `dtype`, `param_dtype`, `precision`, `kernel_init`, `rngs`.

    Returns:
        A module with `kernel [D, F]` and `bias [F]` or None; call it as `layer(x)`.

    Raises:
        ValueError: by the call, if the last axis does not have D entries.

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
        super().__init__(in_features, out_features, use_bias=use_bias, **options)

    def __call__(self, x: Float[Array, "*lead D"]) -> Float[Array, "*lead F"]:
        """`[..., D] -> [..., F]`."""
        y = super().__call__(self._flat(x))
        return y.reshape(*x.shape[:-1], self.out_features)

    def columns(self, x: jax.Array, columns: slice) -> jax.Array:
        """Only some of the outputs: `x W[:, columns] + b[columns]`."""
        bias = None if self.bias is None else self.bias[...][columns]
        flat, kernel, bias = self.promote_dtype((self._flat(x), self.kernel[...][:, columns], bias), dtype=self.dtype)
        y = jnp.matmul(flat, kernel, precision=self.precision)
        y = y if bias is None else y + bias[None]
        return y.reshape(*x.shape[:-1], y.shape[-1])

    def _flat(self, x: jax.Array) -> jax.Array:
        if x.shape[-1] != self.in_features:
            raise ValueError(f"x: expected {self.in_features} features in the last axis, got shape {x.shape}.")
        return x.reshape(-1, self.in_features)
