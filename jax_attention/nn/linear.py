"""The linear layer that every module here is built from: one product of two matrices, whatever the leading axes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def product(x: jax.Array, kernel: jax.Array, precision: Any, dtype: Any) -> jax.Array:
    """`x[R, D] @ kernel[D, F]`, whose gradient of the kernel is `copy(x^T) @ g`.

    Without the copy, which the barrier keeps XLA from undoing, XLA on CPU multiplies with a transposed view, up to
    twice as slow. The rule is linear in the tangents, so forward mode and higher orders work as ever.
    """
    return jnp.matmul(x, kernel, precision=precision, preferred_element_type=dtype)


@product.defjvp
def _product_jvp(precision: Any, dtype: Any, primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    (x, kernel), (dx, dkernel) = primals, tangents
    columns = x.T
    if jax.default_backend() == "cpu":  # the inner barrier keeps the activation before it out of the copy
        columns = jax.lax.optimization_barrier(jax.lax.optimization_barrier(x).T)
    by_kernel = jax.lax.dot_general(
        columns, dkernel, (((0,), (0,)), ((), ())), precision=precision, preferred_element_type=dtype
    )
    # Not `product` itself: a remat policy that keeps products must see one, not a call of a custom rule.
    by_x = jnp.matmul(dx, kernel, precision=precision, preferred_element_type=dtype)
    return jnp.matmul(x, kernel, precision=precision, preferred_element_type=dtype), by_x + by_kernel


class Linear(nnx.Linear):
    """Flax's linear layer, over two dimensions.

        y = x W + b,        [..., D] -> [R, D] -> [R, F] -> [..., F]

    Leading axes are flattened before the product: otherwise XLA on CPU gets the gradient of W from one small product
    for each sequence, 7 times as slow.

    Args:
        in_features: D.
        out_features: F.
        use_bias: whether there is a `b`.
        options: what else `flax.nnx.Linear` takes, but for `dot_general`: `dtype`, `param_dtype`, `precision`,
            `kernel_init`, `rngs`, …

    Returns:
        A module with `kernel [D, F]` and `bias [F]` or None; call it as `layer(x)`.

    Raises:
        ValueError: by the call, if the last axis does not have D entries.
        TypeError: if `dot_general` is given, which would be ignored.

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
                "dot_general: expected nothing, as this layer has a product of its own. Use flax.nnx.Linear."
            )
        super().__init__(in_features, out_features, use_bias=use_bias, **options)

    def __call__(self, x: Float[Array, "*lead D"]) -> Float[Array, "*lead F"]:
        """`[..., D] -> [..., F]`."""
        return self._apply(x, self.kernel[...], None if self.bias is None else self.bias[...])

    def columns(self, x: jax.Array, columns: slice) -> jax.Array:
        """Only some of the outputs: `x W[:, columns] + b[columns]`."""
        bias = None if self.bias is None else self.bias[...][columns]
        return self._apply(x, self.kernel[...][:, columns], bias)

    def _apply(self, x: jax.Array, kernel: jax.Array, bias: jax.Array | None) -> jax.Array:
        flat, kernel, bias = self.promote_dtype((self._flat(x), kernel, bias), dtype=self.dtype)
        y = product(flat, kernel, self.precision, self.preferred_element_type)
        y = y if bias is None else y + bias[None]
        return y.reshape(*x.shape[:-1], y.shape[-1])

    def _flat(self, x: jax.Array) -> jax.Array:
        if x.shape[-1] != self.in_features:
            raise ValueError(f"x: expected {self.in_features} features in the last axis, got shape {x.shape}.")
        return x.reshape(-1, self.in_features)
