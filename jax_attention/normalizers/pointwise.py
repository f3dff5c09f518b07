"""Normalizers whose weights depend on one score each (sigmoid, ReLU, linear), or on none (uniform)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from jax_attention.core.checks import check_array, check_int
from jax_attention.core.numerics import per_tile
from jax_attention.core.struct import array_field, struct
from jax_attention.normalizers.base import Normalizer, count

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@struct
class Sigmoid(Normalizer):
    """`sigmoid(score + bias)`; see `sigmoid`."""

    bias: jax.Array | float = array_field(default=0.0)

    def numerator(self, scores: jax.Array, where: jax.Array, row_max: None) -> jax.Array:
        return jnp.where(where, jax.nn.sigmoid(scores + per_tile(self.bias)), 0)


class _Counting(Normalizer):
    """Base of normalizers that may divide by the number of keys the row may attend to."""

    mean = True

    def total(self, numerator: jax.Array, where: jax.Array) -> jax.Array:
        return count(where, numerator.dtype)

    def denominator(self, total: jax.Array, row_max: None) -> jax.Array | float:
        return jnp.maximum(total, 1) if self.mean else 1.0  # 1 for a row without keys: 0 / 0 would be NaN


@struct
class Relu(_Counting):
    """`max(score, 0) ** power / n`; see `relu`."""

    power: int = 1
    mean: bool = True

    def numerator(self, scores: jax.Array, where: jax.Array, row_max: None) -> jax.Array:
        return jnp.where(where, jax.nn.relu(scores) ** self.power, 0)


@struct
class Linear(_Counting):
    """`score` or `score / n`; see `linear`."""

    mean: bool = False

    def numerator(self, scores: jax.Array, where: jax.Array, row_max: None) -> jax.Array:
        return jnp.where(where, scores, 0)


@struct
class Uniform(_Counting):
    """`1 / n`; see `uniform`."""

    def numerator(self, scores: jax.Array, where: jax.Array, row_max: None) -> jax.Array:
        return where.astype(scores.dtype)


def sigmoid(bias: Float[Array, "*batch"] | float = 0.0) -> Sigmoid:
    """Sigmoid attention: the weight of a key depends on its own score alone.

        weight(t, s) = 1 / (1 + exp(-(z_ts + bias)))

    Args:
        bias: number or array over the batch dimensions. The paper recommends about `-log(S)`, so that the weights of
            a row sum to about 1 at the start of training.

    Returns:
        A normalizer; `bias` is differentiable.

    Raises:
        TypeError: if `bias` is not real.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import normalizers
        >>> normalizers.sigmoid()(jnp.array([[0., 100., -100.]]))
        Array([[0.5, 1. , 0. ]], dtype=float32)

    Reference:
        Ramapuram et al. (2025), "Theory, analysis, and best practices for sigmoid self-attention".
    """
    return Sigmoid(check_array("bias", bias))


def relu(power: int = 1, *, mean: bool = True) -> Relu:
    """ReLU attention, divided by the number of allowed keys.

        weight(t, s) = max(z_ts, 0)^power / n_t,        n_t = number of keys that t may attend to

    Args:
        power: 1, or 2 for squared ReLU.
        mean: False leaves out the division by `n_t`.

    Returns:
        A normalizer.

    Raises:
        TypeError: if `power` is not a Python int.
        ValueError: if it is smaller than 1.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import normalizers
        >>> normalizers.relu()(jnp.array([[2., -1., 0., 4.]]))
        Array([[0.5, 0. , 0. , 1. ]], dtype=float32)

    Reference:
        Wortsman, Lee, Gilmer, Kornblith (2023), "Replacing softmax with ReLU in vision transformers".
    """
    return Relu(check_int("power", power, 1, "1 is ReLU, 2 squared ReLU."), bool(mean))


def linear(*, mean: bool = False) -> Linear:
    """No normalization: the scores are the weights (linear attention before any feature map).

        weight(t, s) = z_ts          (mean: z_ts / n_t)

    Args:
        mean: divide by the number of keys the row may attend to.

    Returns:
        A normalizer.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import normalizers
        >>> normalizers.linear()(jnp.array([[2., -1.]]))
        Array([[ 2., -1.]], dtype=float32)

    Reference:
        Katharopoulos et al. (2020), "Transformers are RNNs", section 3.2, with the identity as feature map and
        without the denominator.
    """
    return Linear(bool(mean))


def uniform() -> Uniform:
    """The same weight for every allowed key: average pooling, the baseline that ignores the scores.

        weight(t, s) = 1 / n_t,        n_t = number of keys that t may attend to

    Returns:
        A normalizer. Gradients to scores are exactly 0.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import normalizers
        >>> normalizers.uniform()(jnp.array([[9., 1., 3.]]), where=jnp.array([[True, True, False]]))
        Array([[0.5, 0.5, 0. ]], dtype=float32)

    Reference:
        Zhang, Xiong, Su (2018), "Accelerating neural Transformer via an average attention network".
    """
    return Uniform()
