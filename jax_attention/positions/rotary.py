"""Rotary position embedding (RoPE): pairs of features are rotated by an angle proportional to the position."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jax_attention.core.checks import check_operand, check_positions
from jax_attention.core.numerics import compute_dtype
from jax_attention.core.short_repr import FactoryRepr
from jax_attention.core.struct import struct
from jax_attention.positions.scaling import Scaling, present_length
from jax_attention.positions.tables import angles, check_even, check_style

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int


@struct
class Rotary(FactoryRepr):
    """Rotate pairs of features by an angle that grows with the position; see `rotary`."""

    style: str = "half"
    base: float = 10000.0
    size: int | None = None
    scaling: Scaling = Scaling()

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
            raise ValueError(f"size: expected at most the head size {x.shape[-1]}, got {size}.")
        dtype = compute_dtype(x)
        positions = positions.reshape((1,) * (x.ndim - 1 - positions.ndim) + positions.shape)
        if length.ndim:
            length = length.reshape((1,) * (x.ndim - 1 - length.ndim) + length.shape)
        angle = angles(positions, self.scaling.frequencies(size, self.base, length), dtype)
        factor = self.scaling.attention_factor()
        cos, sin = jnp.cos(angle) * factor, jnp.sin(angle) * factor
        features, rest = x[..., :size].astype(dtype), x[..., size:]
        # Su et al. (2021), eq. 34: (a, b) -> (a cos - b sin, b cos + a sin) for each pair of features.
        if self.style == "half":
            a, b = jnp.split(features, 2, axis=-1)
            rotated = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
        else:
            a, b = features[..., 0::2], features[..., 1::2]
            rotated = jnp.stack([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(features.shape)
        return jnp.concatenate([rotated.astype(x.dtype), rest], axis=-1)


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
