"""Score modules: learned parameters of a score; `as_score()` gives the plain score that `attend` takes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jax_attention import scores
from jax_attention.nn.part_module import PartModule

Initializer = jax.nn.initializers.Initializer
_KERNEL = jax.nn.initializers.lecun_normal()


class ScoreModule(PartModule):
    """Base of the modules that hold the parameters of a score."""

    reads_rows = False

    def as_part(self, x: Any) -> scores.Score:
        """The score, whatever the rows are."""
        return self.as_score()

    def as_score(self) -> scores.Score:
        """The score with the present parameters."""
        raise NotImplementedError(f"{type(self).__name__} must define as_score()")


class Additive(ScoreModule):
    """Parameters of Bahdanau's additive score.

        score(t, s) = vector . tanh(q_t Wq + k_s Wk + bias)

    `Wq` and `Wk` are initialised as one layer over the concatenation `[q ; k]`, with fan-in Hq + Hk.

    Args:
        query_size: Hq.
        key_size: Hk.
        hidden_size: A.
        use_bias: whether there is a bias.
        use_vector: False for the plain sum of the hidden units.
        kernel_init: initializer of the concatenated kernels `[Hq + Hk, A]` and of the vector.
        param_dtype: dtype of the parameters.
        rngs: random keys, used here and not kept.

    Returns:
        A module with `query_kernel`, `key_kernel`, `bias` or None, `vector` or None.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from jax_attention import attend, nn
        >>> rule = nn.Additive(query_size=3, key_size=5, hidden_size=4, rngs=nnx.Rngs(0))
        >>> attend(jnp.ones((2, 3)), jnp.ones((6, 5)), jnp.ones((6, 7)), score=rule.as_score()).shape
        (2, 7)

    Reference:
        Bahdanau, Cho, Bengio (2015), "Neural machine translation by jointly learning to align and translate".
    """

    def __init__(
        self,
        query_size: int,
        key_size: int,
        hidden_size: int,
        *,
        use_bias: bool = True,
        use_vector: bool = True,
        kernel_init: Initializer = _KERNEL,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        kernel = kernel_init(rngs.params(), (query_size + key_size, hidden_size), param_dtype)
        self.query_kernel = nnx.Param(kernel[:query_size])
        self.key_kernel = nnx.Param(kernel[query_size:])
        self.bias = nnx.Param(jnp.zeros(hidden_size, param_dtype)) if use_bias else None
        vector = kernel_init(rngs.params(), (hidden_size, 1), param_dtype)[:, 0] if use_vector else None
        self.vector = None if vector is None else nnx.Param(vector)

    @classmethod
    def for_layer(cls, config: Any, *, rngs: nnx.Rngs) -> Additive:
        """One score for all heads of a layer, with as many hidden units as a head has features."""
        size, dtype = config.resolved_head_size, jnp.dtype(config.param_dtype)
        return cls(size, size, size, param_dtype=dtype, rngs=rngs)

    def as_score(self) -> scores.Additive:
        """The score with the present parameters."""
        return scores.additive(self.query_kernel[...], self.key_kernel[...], _array(self.bias), _array(self.vector))


class General(ScoreModule):
    """Parameters of Luong's general score.

        score(t, s) = q_t^T W k_s

    Args:
        query_size: Hq.
        key_size: Hk.
        kernel_init: initializer of `W`.
        param_dtype: dtype of the parameter.
        rngs: random keys, used here and not kept.

    Returns:
        A module with `kernel [Hq, Hk]`.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from jax_attention import attend, nn
        >>> rule = nn.General(query_size=3, key_size=5, rngs=nnx.Rngs(0))
        >>> attend(jnp.ones((2, 3)), jnp.ones((6, 5)), jnp.ones((6, 7)), score=rule.as_score()).shape
        (2, 7)

    Reference:
        Luong, Pham, Manning (2015), "Effective approaches to attention-based neural machine translation".
    """

    def __init__(
        self,
        query_size: int,
        key_size: int,
        *,
        kernel_init: Initializer = _KERNEL,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.kernel = nnx.Param(kernel_init(rngs.params(), (query_size, key_size), param_dtype))

    @classmethod
    def for_layer(cls, config: Any, *, rngs: nnx.Rngs) -> General:
        """One score for all heads of a layer."""
        size = config.resolved_head_size
        return cls(size, size, param_dtype=jnp.dtype(config.param_dtype), rngs=rngs)

    def as_score(self) -> scores.General:
        """The score with the present parameters."""
        return scores.general(self.kernel[...])


class Concat(ScoreModule):
    """Parameters of the tanh-free concat score, which cannot align: its softmax ignores the query.

        score(t, s) = w . [q_t ; k_s] + b

    Args:
        query_size: Hq.
        key_size: Hk.
        kernel_init: initializer of `w` as `[Hq + Hk, 1]`.
        param_dtype: dtype of the parameters.
        rngs: random keys, used here and not kept.

    Returns:
        A module with `query_kernel [Hq]`, `key_kernel [Hk]`, `bias []`.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from jax_attention import attend, nn
        >>> rule = nn.Concat(query_size=3, key_size=5, rngs=nnx.Rngs(0))
        >>> attend(jnp.ones((2, 3)), jnp.ones((6, 5)), jnp.ones((6, 7)), score=rule.as_score()).shape
        (2, 7)

    Reference:
        Luong, Pham, Manning (2015), eq. 7 (there with a tanh: `Additive`).
    """

    def __init__(
        self,
        query_size: int,
        key_size: int,
        *,
        kernel_init: Initializer = _KERNEL,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        kernel = kernel_init(rngs.params(), (query_size + key_size, 1), param_dtype)[:, 0]
        self.query_kernel = nnx.Param(kernel[:query_size])
        self.key_kernel = nnx.Param(kernel[query_size:])
        self.bias = nnx.Param(jnp.zeros((), param_dtype))

    @classmethod
    def for_layer(cls, config: Any, *, rngs: nnx.Rngs) -> Concat:
        """One score for all heads of a layer."""
        size = config.resolved_head_size
        return cls(size, size, param_dtype=jnp.dtype(config.param_dtype), rngs=rngs)

    def as_score(self) -> scores.Concat:
        """The score with the present parameters."""
        return scores.concat(self.query_kernel[...], self.key_kernel[...], self.bias[...])


class Location(ScoreModule):
    """Parameters of the location rule: one linear layer over `[q ; k]`, one output per position.

        score(t, s) = ([q_t ; k_t] W + b)_s

    Args:
        query_size: Hq.
        key_size: Hk.
        length: S, the number of rows of the value, which the parameters fix.
        kernel_init: initializer of `W`.
        param_dtype: dtype of the parameters.
        rngs: random keys, used here and not kept.

    Returns:
        A module with `kernel [Hq + Hk, S]` and `bias [S]`.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from jax_attention import attend, nn
        >>> rule = nn.Location(query_size=3, key_size=5, length=6, rngs=nnx.Rngs(0))
        >>> attend(jnp.ones((2, 3)), jnp.ones((2, 5)), jnp.ones((6, 7)), score=rule.as_score()).shape
        (2, 7)

    Reference:
        Luong, Pham, Manning (2015), eq. 8.
    """

    def __init__(
        self,
        query_size: int,
        key_size: int,
        length: int,
        *,
        kernel_init: Initializer = _KERNEL,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.kernel = nnx.Param(kernel_init(rngs.params(), (query_size + key_size, length), param_dtype))
        self.bias = nnx.Param(jnp.zeros(length, param_dtype))

    def as_score(self) -> scores.Location:
        """The score with the present parameters."""
        return scores.location(self.kernel[...], self.bias[...])


def _array(param: nnx.Param | None) -> jax.Array | None:
    return None if param is None else param[...]
