"""Kernel scores: products of feature maps of query and key, the scores of linear attention."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from jax_attention.core.checks import check_array, describe_array, fail_unless
from jax_attention.core.short_repr import describe
from jax_attention.core.struct import array_field, struct
from jax_attention.scores.kernel import Kernel, LogKernel

if TYPE_CHECKING:
    from jaxtyping import Array, Float


def _elu_plus_one(x: jax.Array) -> jax.Array:
    """`x + 1` above 0, `exp(x)` below.

    The inner `where` keeps exp away from large x: there it would be inf, and its gradient 0 * inf = NaN.
    """
    return jnp.where(x > 0, x + 1, jnp.exp(jnp.where(x > 0, 0, x)))


def _hedgehog(x: jax.Array) -> jax.Array:
    """`[exp(x) ; exp(-x)]`, `[..., 2 H]`."""
    return jnp.exp(_log_hedgehog(x))


def _log_hedgehog(x: jax.Array) -> jax.Array:
    """`[x ; -x]`."""
    return jnp.concatenate([x, -x], axis=-1)


_MAPS: dict[str, Callable] = {"elu_plus_one": _elu_plus_one, "relu": jax.nn.relu, "hedgehog": _hedgehog}
_LOG_MAPS: dict[str, Callable] = {"hedgehog": _log_hedgehog}
"""Logarithms of the maps that over- or underflow for entries that are not extreme."""


@struct
class Features(Kernel):
    """`phi(q) . phi(k)`; see `features`."""

    feature_map: str | Callable

    def features(self, x: jax.Array) -> jax.Array:
        if isinstance(self.feature_map, str):
            return _MAPS[self.feature_map](x)
        mapped = self.feature_map(x)
        fail_unless(
            tuple(getattr(mapped, "shape", ())[:-1]) == x.shape[:-1] and getattr(mapped, "ndim", 0) == x.ndim,
            f"score {self!r}: expected feature_map to return [..., F] with {x.shape[:-1]} in the place of the dots, as "
            f"in its argument, got {describe_array(mapped)}. It maps each row by itself, so arrays that it closes over "
            "have no batch dimensions; transform query and key before the call where heads differ.",
        )
        return mapped

    def log_features(self, x: jax.Array) -> jax.Array:
        return _LOG_MAPS[str(self.feature_map)](x)

    def logarithm(self) -> LogKernel | None:
        return LogKernel(self) if isinstance(self.feature_map, str) and self.feature_map in _LOG_MAPS else None

    def __repr__(self) -> str:
        return f"features({describe(self.feature_map)})"


@struct
class RandomFeatures(Kernel):
    """An unbiased estimate of `exp(q . k / sqrt(H))`; see `random_features`."""

    directions: jax.Array = array_field("F", "Hq")

    def features(self, x: jax.Array) -> jax.Array:
        return jnp.exp(self.log_features(x))

    def log_features(self, x: jax.Array) -> jax.Array:
        count, size = self.directions.shape[-2:]
        # Choromanski et al. (2021), lemma 1, for x / H^(1/4) so that the kernel is exp(q . k / sqrt(H)):
        # phi(x) = exp(w . x - |x|^2 / 2) / sqrt(F). The `max` keep arrays of size 0 from dividing by 0.
        x = x * max(size, 1) ** -0.25
        half_square = 0.5 * jnp.sum(x * x, axis=-1, keepdims=True)
        return x @ jnp.swapaxes(self.directions, -1, -2) - half_square - 0.5 * math.log(max(count, 1))

    def logarithm(self) -> LogKernel:
        return LogKernel(self)


def features(feature_map: str | Callable) -> Features:
    """Kernel score: the inner product of a feature map of the query and the same map of the key.

        score(t, s) = phi(q_t) . phi(k_s)

        "elu_plus_one"   phi(x) = x + 1 where x > 0, else exp(x)        positive; Katharopoulos et al. (2020)
        "relu"           phi(x) = max(x, 0)                             sparse, may be 0; Choromanski et al. (2021)
        "hedgehog"       phi(x) = [exp(x) ; exp(-x)]                    spiky, F = 2 H; Zhang et al. (2024)

    With `normalizers.proportional()` this is linear attention; with `linear()` it is linear attention without a
    denominator. Both then take O(T) time (`implementation="linear_attention"`), and `attend_step` decodes with a state
    of fixed size. Under `proportional()` and without mods "hedgehog" is computed by its logarithms, which do not
    overflow.

    Args:
        feature_map: one of the three names, or `f(x[..., H]) -> features[..., F]` of each row by itself. Arrays that f
            closes over are differentiated; they have no batch dimensions, because x may have any number of them.

    Returns:
        A score.

    Raises:
        ValueError: if the name is unknown; by `attend`, if query and key differ in head size, or f returns another
            shape. TypeError: if `feature_map` is neither a name nor a function.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import scores
        >>> scores.features("elu_plus_one")(jnp.array([[1., 0.]]), jnp.array([[2., 1.], [0., 0.]]))
        Array([[8., 3.]], dtype=float32)
        >>> scores.features(lambda x: x * x)(jnp.array([[1., 2.]]), jnp.array([[3., 1.]]))
        Array([[13.]], dtype=float32)

    Reference:
        Katharopoulos et al. (2020), "Transformers are RNNs", eq. 5 and 7; Choromanski et al. (2021), "Rethinking
        attention with Performers" (ReLU); Zhang et al. (2024), "The Hedgehog & the Porcupine".
    """
    names = ", ".join(map(repr, _MAPS))
    if isinstance(feature_map, str):
        fail_unless(
            feature_map in _MAPS,
            f"feature_map: expected one of {names} or a function f(x[..., H]) -> [..., F], got {feature_map!r}.",
        )
    else:
        fail_unless(
            callable(feature_map) and not isinstance(feature_map, type) and not hasattr(feature_map, "part"),
            f"feature_map: expected one of {names} or a function f(x[..., H]) -> [..., F], got "
            f"{describe_array(feature_map)}. Directions as an array go into scores.random_features(directions).",
            TypeError,
        )
    return Features(feature_map)


def random_features(directions: Float[Array, "*#batch F H"]) -> RandomFeatures:
    """Positive random features (FAVOR+): in expectation the exponential of the scaled dot product.

        phi(x) = exp(w_f . x / H^(1/4) - |x|^2 / (2 sqrt(H))) / sqrt(F),        f = 1 … F
        score(t, s) = phi(q_t) . phi(k_s),        E_w score(t, s) = exp(q_t . k_s / sqrt(H))  for  w_f ~ N(0, 1)

    With `normalizers.proportional()` this estimates softmax attention in O(T) time; without mods it is then computed by
    logarithms, which do not underflow. The error falls as 1 / sqrt(F) and grows exponentially with |q + k|^2.

    Args:
        directions: `w`, `[..., F, H]`: draw them from a normal distribution, at best orthogonal in groups of H. Batch
            dimensions broadcast against those of the scores (`[N, F, H]`: other directions for each head).

    Returns:
        A score; `directions` is differentiable.

    Raises:
        ValueError: if `directions` has fewer than two axes, or (by `attend`) does not fit the head size.
        TypeError: if it is not a float array.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jax_attention import scores
        >>> rule = scores.random_features(jax.random.normal(jax.random.key(0), (4096, 4)))
        >>> q, k = jnp.array([[0.25, -0.25, 0., 0.5]]), jnp.array([[0.5, 0., 0., 0.5]])
        >>> bool(abs(rule(q, k) - jnp.exp(q @ k.T / 2))[0, 0] < 0.05)
        True

    Reference:
        Choromanski et al. (2021), "Rethinking attention with Performers", lemma 1 and section 2.4.
    """
    return RandomFeatures(check_array("directions", directions, ("F", "Hq")))
