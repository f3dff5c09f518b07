"""Rotary position embedding (RoPE): pairs of features are rotated by an angle that belongs to the position."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp

from jax_attention.core.checks import check_array, check_operand, check_positions, describe_array, fail_unless
from jax_attention.core.numerics import EMPTY_POSITION, compute_dtype
from jax_attention.core.short_repr import FactoryRepr, describe
from jax_attention.core.struct import array_field, struct
from jax_attention.positions.scaling import Scaling, present_length
from jax_attention.positions.tables import angles, check_even, check_style, learned

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int


@struct
class Rotary(FactoryRepr):
    """Rotate pairs of features by an angle that grows with the position; see `rotary`."""

    size_cure: ClassVar[str] = ""
    style: str = "half"
    base: float = 10000.0
    size: int | None = None
    scaling: Scaling = Scaling()

    @property
    def table_length(self) -> int | None:
        """Number of positions that have an angle, or None where all have one."""
        return None

    def __call__(
        self,
        x: Float[Array, "*batch T H"],
        positions: Int[Array, "*#batch T"],
        *,
        length: Int[Array, "*#batch 1"] | int | None = None,
    ) -> Float[Array, "*batch T H"]:
        """Rotate `x[..., T, H]` by its `positions[..., T]`; the result has the dtype of x, angles are at least float32.

        `length` is the current length of the sequence, or one per row `[..., 1]`, for `dynamic_scaling` only; None
        takes it from the positions of each row.
        """
        x = check_operand("x", x, 2, "[..., T, H]")
        positions = check_positions("positions", positions, x.shape[-2], x.shape[:-2])
        return self._rotate(x, positions, self._present_length(positions, length))

    def heads(
        self,
        x: Float[Array, "*batch T N H"],
        positions: Int[Array, "*#batch T"],
        *,
        length: Int[Array, "*#batch 1"] | int | None = None,
    ) -> Float[Array, "*batch T N H"]:
        """Rotate `x[..., T, N, H]`, the layout of `attend_heads`, by its `positions[..., T]`; see `__call__`."""
        x = check_operand("x", x, 3, "[..., T, N, H]")
        positions = check_positions("positions", positions, x.shape[-3], x.shape[:-3])
        length = self._present_length(positions, length)
        return self._rotate(x, positions[..., None], length[..., None] if length.ndim else length)

    def _present_length(self, positions: jax.Array, length: Any) -> jax.Array:
        if length is None and self.scaling.needs_length:
            return present_length(positions)
        return jnp.asarray(0 if length is None else length)

    def _rotate(self, x: jax.Array, positions: jax.Array, length: jax.Array) -> jax.Array:
        size = x.shape[-1] if self.size is None else self.size
        check_even("x: rotated size", size)
        if size > x.shape[-1]:
            raise ValueError(f"size: expected at most the head size {x.shape[-1]}, got {size}.{self.size_cure}")
        dtype = compute_dtype(x)
        positions = positions.reshape((1,) * (x.ndim - 1 - positions.ndim) + positions.shape)
        if length.ndim:
            length = length.reshape((1,) * (x.ndim - 1 - length.ndim) + length.shape)
        cos, sin = self._cos_sin(positions, size, length, dtype)
        features, rest = x[..., :size].astype(dtype), x[..., size:]
        # Su et al. (2021), eq. 34: (a, b) -> (a cos - b sin, b cos + a sin) for each pair of features.
        if self.style == "half":
            a, b = jnp.split(features, 2, axis=-1)
            rotated = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
        else:
            a, b = features[..., 0::2], features[..., 1::2]
            rotated = jnp.stack([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(features.shape)
        return jnp.concatenate([rotated.astype(x.dtype), rest], axis=-1)

    def _cos_sin(
        self, positions: jax.Array, size: int, length: jax.Array | int, dtype: jnp.dtype
    ) -> tuple[jax.Array, jax.Array]:
        """Cosines and sines `[..., size / 2]` of the angles at these positions."""
        angle = angles(positions, self.scaling.frequencies(size, self.base, length), dtype)
        factor = self.scaling.attention_factor()
        return jnp.cos(angle) * factor, jnp.sin(angle) * factor


@struct
class RotaryTables(Rotary):
    """Rotate pairs of features by angles whose cosines and sines are given; see `rotary_tables`."""

    size_cure: ClassVar[str] = " Tables of Hugging Face have every column twice: pass cos[:, :F] and sin[:, :F]."
    cos: jax.Array = array_field("L", "F", default=None)
    sin: jax.Array = array_field("L", "F", default=None)

    @property
    def table_length(self) -> int:
        """Number of rows of the tables."""
        return self.cos.shape[0]

    def __repr__(self) -> str:
        return f"rotary_tables({describe(self.cos)}, {describe(self.sin)}, style={self.style!r})"

    def _cos_sin(
        self, positions: jax.Array, size: int, length: jax.Array | int, dtype: jnp.dtype
    ) -> tuple[jax.Array, jax.Array]:
        # Padding is outside of the tables. Nothing attends to it, so any row will do, but NaN would alarm debug_nans.
        rows = jnp.where(positions == EMPTY_POSITION, 0, positions)
        return learned(self.cos, rows).astype(dtype), learned(self.sin, rows).astype(dtype)


def rotary(
    *, style: str = "half", base: float = 10000.0, size: int | None = None, scaling: Scaling | None = None
) -> Rotary:
    """Rotary position embedding: scores depend on positions only through their difference.

        (x_a, x_b) -> (x_a cos p theta_i - x_b sin p theta_i,  x_b cos p theta_i + x_a sin p theta_i)
        theta_i = base^(-2 i / size),        (a, b) = (i, i + size / 2) for "half", (2 i, 2 i + 1) for "interleaved"

    Args:
        style: "half" (GPT-NeoX, Llama in Hugging Face, Gemma, Qwen) or "interleaved" (the paper, GPT-J, Meta's Llama).
        base: `rope_theta`.
        size: rotate only the first `size` features (`partial_rotary_factor`); None rotates all.
        scaling: `positions.linear_scaling`, `dynamic_scaling`, `llama3_scaling`, `yarn_scaling` or None.

    Returns:
        A `Rotary`: call it as `rope(x[..., T, H], positions[..., T])`, or `rope.heads(x[..., T, N, H], positions)`.
        Angles are accurate to 1e-4 at position 100000, also for bfloat16 x. Under `dynamic_scaling` they are accurate
        to about 5e-3, because the frequencies depend on the length and are computed in float32.

    Raises:
        ValueError: if `style` is unknown, the rotated size is odd or too large, or positions do not fit x.
        TypeError: if positions are not integers.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import positions
        >>> positions.rotary()(jnp.array([[1., 0.], [1., 0.]]), jnp.arange(2)).round(4)
        Array([[1.    , 0.    ],
               [0.5403, 0.8415]], dtype=float32)

    Reference:
        Su et al. (2021), "RoFormer: enhanced transformer with rotary position embedding", eq. 34.
    """
    check_style(style)
    if size is not None:
        check_even("size", size)
    if scaling is not None and not isinstance(scaling, Scaling):
        raise TypeError(f"scaling: expected a scaling such as positions.linear_scaling(2.0), got {scaling!r}.")
    return Rotary(style, float(base), size, scaling or Scaling())


def rotary_tables(cos: Float[Array, "L F"], sin: Float[Array, "L F"], *, style: str = "half") -> Rotary:
    """Rotary position embedding by given cosines and sines: those of a file, a cache, or angles of your own.

        (x_a, x_b) -> (x_a cos[p, i] - x_b sin[p, i],  x_b cos[p, i] + x_a sin[p, i])

    Args:
        cos: `[L, F]`, one row for each position and one column for each pair of features. The first 2 F features of a
            head are rotated. Tables of Hugging Face have every column twice: pass `cos[:, :F]`.
        sin: `[L, F]`.
        style: which features are a pair, as in `rotary`.

    Returns:
        A `Rotary`, called like that of `rotary` and taken wherever that is; the tables are differentiable. Positions
        outside of them give NaN: a traced position cannot raise an error.

    Raises:
        ValueError: if the tables are not `[L, F]`, both of the same shape, or `style` is unknown.
        TypeError: if they hold no real numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> from jax_attention import positions
        >>> quarter_turns = jnp.array([[0.0], [0.5], [1.0]]) * jnp.pi
        >>> rope = positions.rotary_tables(jnp.cos(quarter_turns), jnp.sin(quarter_turns))
        >>> abs(rope(jnp.array([[1., 0.], [1., 0.]]), jnp.array([1, 2])).round(4))
        Array([[0., 1.],
               [1., 0.]], dtype=float32)

    Reference:
        https://onnx.ai/onnx/operators/onnx__RotaryEmbedding.html: `cos_cache` and `sin_cache`.
    """
    check_style(style)
    cos, sin = check_array("cos", cos, ("L", "F")), check_array("sin", sin, ("L", "F"))
    fail_unless(
        cos.ndim == 2 and cos.shape == sin.shape and min(cos.shape) > 0,
        f"cos: expected tables [L, F] of one shape, got {describe_array(cos)} and {describe_array(sin)}. Tables of a "
        "batch: take the rows of its positions.",
    )
    return RotaryTables(style, size=2 * cos.shape[1], cos=cos, sin=sin)
