"""Frequency scalings of rotary embeddings for long contexts, named as in Hugging Face's `rope_scaling`."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jax_attention.core.numerics import EMPTY_POSITION

Frequencies = np.ndarray | jax.Array


def base_frequencies(size: int, base: float) -> np.ndarray:
    """Unscaled frequencies `theta_i = base^(-2i / size)`, radians per position, `[size / 2]`, float64 on the host.

    Hugging Face: `inv_freq`.
    """
    return 1.0 / base ** (np.arange(0, size, 2) / size)


def present_length(*positions: jax.Array) -> jax.Array:
    """The largest position of each row in any of the arrays `[..., T]`, plus one, as `[..., 1]`.

    Padding (at `EMPTY_POSITION`) does not count, and rows do not look at each other.
    """
    rank = max(x.ndim for x in positions)
    real = [jnp.max(jnp.where(x < EMPTY_POSITION, x, -1), axis=-1, keepdims=True, initial=-1) for x in positions]
    return functools.reduce(jnp.maximum, [x.reshape((1,) * (rank - x.ndim) + x.shape) for x in real]) + 1


@dataclass(frozen=True)
class Scaling:
    """No scaling, and the base class of all others."""

    needs_length: ClassVar[bool] = False

    def frequencies(self, size: int, base: float, length: jax.Array | int) -> Frequencies:
        """Frequencies in radians per position, `[size / 2]`; NumPy unless they depend on the current length.

        If they do, `length [...]` gives `[..., size / 2]`.
        """
        return base_frequencies(size, base)

    def attention_factor(self) -> float:
        """Factor of sines and cosines, and so of the rotated vectors."""
        return 1.0


@dataclass(frozen=True)
class LinearScaling(Scaling):
    """Position interpolation; see `linear_scaling`."""

    factor: float

    def frequencies(self, size: int, base: float, length: jax.Array | int) -> Frequencies:
        return base_frequencies(size, base) / self.factor


@dataclass(frozen=True)
class DynamicScaling(Scaling):
    """NTK-aware scaling by the current length; see `dynamic_scaling`."""

    needs_length: ClassVar[bool] = True
    factor: float
    original_length: int

    def frequencies(self, size: int, base: float, length: jax.Array | int) -> Frequencies:
        dtype = jnp.result_type(float)
        length = jnp.maximum(length, self.original_length).astype(dtype)
        # alpha = factor L / L0 - (factor - 1);  base' = base alpha^(d / (d - 2)): the slowest frequency, i = d/2 - 1,
        # is divided by alpha and the fastest, i = 0, is kept. For d = 2 these are one frequency, always 1.
        alpha = self.factor * length / self.original_length - (self.factor - 1)
        scaled_base = base * alpha ** (size / (size - 2)) if size > 2 else base * alpha
        exponents = jnp.arange(0, size, 2, dtype=dtype) / size
        return 1.0 / scaled_base[..., None] ** exponents[(None,) * scaled_base.ndim]


@dataclass(frozen=True)
class Llama3Scaling(Scaling):
    """Low frequencies are divided by the factor, high ones kept; see `llama3_scaling`."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_length: int

    def frequencies(self, size: int, base: float, length: jax.Array | int) -> Frequencies:
        theta = base_frequencies(size, base)
        turns = self.original_length * theta / (2 * math.pi)  # L0 / wavelength, wavelength = 2 pi / theta
        # Hugging Face: smooth_factor = (L0 / wavelen - low_freq_factor) / (high_freq_factor - low_freq_factor).
        # Clipped to [0, 1] it also covers the other two cases: 1 (high frequencies, kept), 0 (low ones, divided).
        smooth = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        smooth = np.clip(smooth, 0.0, 1.0)
        return smooth * theta + (1 - smooth) * theta / self.factor


@dataclass(frozen=True)
class YarnScaling(Scaling):
    """Slow frequencies are interpolated, fast ones kept, and scores sharpened; see `yarn_scaling`."""

    factor: float
    original_length: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention: float | None = None
    truncate: bool = True

    def frequencies(self, size: int, base: float, length: jax.Array | int) -> Frequencies:
        theta = base_frequencies(size, base)
        # Correction range (Hugging Face `find_correction_range`): the pairs between which the ramp rises from 0 to 1.
        low, high = (self._correction_dim(turns, size, base) for turns in (self.beta_fast, self.beta_slow))
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, size - 1)
        width = high - low if high != low else 0.001  # as in Hugging Face, against a division by 0
        ramp = np.clip((np.arange(size // 2) - low) / width, 0.0, 1.0)  # `linear_ramp_factor`
        # "NTK-by-parts": kept ("extrapolation") where the ramp is 0, divided ("interpolation") where it is 1.
        return (1 - ramp) * theta + ramp * theta / self.factor

    def attention_factor(self) -> float:
        if self.attention is not None:
            return self.attention
        return 0.1 * math.log(self.factor) + 1.0 if self.factor > 1 else 1.0  # the paper's sqrt(1 / t)

    def _correction_dim(self, turns: float, size: int, base: float) -> float:
        """The pair i that makes `turns` turns over the original length L0 (Hugging Face `find_correction_dim`).

        It solves `L0 base^(-2 i / size) = 2 pi turns`.
        """
        return size * math.log(self.original_length / (turns * 2 * math.pi)) / (2 * math.log(base))


def linear_scaling(factor: float) -> LinearScaling:
    """Position interpolation: positions are divided by `factor` (Hugging Face `rope_type: linear`).

        theta_i' = theta_i / factor

    Args:
        factor: new context length over the trained one.

    Returns:
        A scaling for `positions.rotary`.

    Raises:
        ValueError: if `factor` is smaller than 1.

    Example:
        >>> from jax_attention import positions
        >>> positions.linear_scaling(2.0)
        LinearScaling(factor=2.0)

    Reference:
        Chen et al. (2023), "Extending context window of large language models via positional interpolation".
    """
    return LinearScaling(_factor(factor))


def dynamic_scaling(factor: float, original_length: int) -> DynamicScaling:
    """Dynamic NTK: the base grows with the current length L (Hugging Face `rope_type: dynamic`).

        base' = base (factor L / L0 - (factor - 1))^(d / (d - 2)),        L = max(largest position + 1, L0)

    Args:
        factor: strength of the stretch.
        original_length: L0, the trained context length.

    Returns:
        A scaling for `positions.rotary`. L is taken from each row's positions of the call unless you pass it, `rope(x,
        positions, length=L)`; it must be the same for queries and keys. When L grows, all keys turn, so
        `nn.MultiHeadAttention.step` caches them unrotated and rotates them by the present L in each call. Up to L0 that
        equals the full pass. Beyond it only the first layer does: what later layers see of a token was computed when
        the sequence was shorter.

    Raises:
        ValueError: if `factor` is smaller than 1 or `original_length` than 1.

    Example:
        >>> from jax_attention import positions
        >>> positions.dynamic_scaling(2.0, 2048)
        DynamicScaling(factor=2.0, original_length=2048)

    Reference:
        bloc97 (2023), "NTK-aware scaled RoPE"; Hugging Face `modeling_rope_utils.py`; for the cache Peng et al. (2024),
        "YaRN", section 3.3. Hugging Face caches keys with the rotation of the length at which they came
        (https://github.com/huggingface/transformers/issues/25104).
    """
    return DynamicScaling(_factor(factor), _length(original_length))


def llama3_scaling(
    factor: float = 8.0, low_freq_factor: float = 1.0, high_freq_factor: float = 4.0, original_length: int = 8192
) -> Llama3Scaling:
    """Llama 3.1: long wavelengths are stretched, short ones kept, with a linear ramp in between.

        theta_i' = smooth_i theta_i + (1 - smooth_i) theta_i / factor
        smooth_i = clip((L0 theta_i / 2 pi - low) / (high - low), 0, 1)

    Args:
        factor: stretch of the longest wavelengths.
        low_freq_factor: pairs that make fewer turns over L0 are stretched fully.
        high_freq_factor: pairs that make more turns are kept.
        original_length: L0.

    Returns:
        A scaling for `positions.rotary`.

    Raises:
        ValueError: if `factor` < 1, `original_length` < 1, or low >= high.

    Example:
        >>> from jax_attention import positions
        >>> positions.llama3_scaling(factor=32.0).factor
        32.0

    Reference:
        Grattafiori et al. (2024), "The Llama 3 herd of models"; Hugging Face `rope_type: llama3`.
    """
    if not low_freq_factor < high_freq_factor:
        raise ValueError(
            f"low_freq_factor: expected less than high_freq_factor = {high_freq_factor}, got {low_freq_factor}."
        )
    return Llama3Scaling(_factor(factor), float(low_freq_factor), float(high_freq_factor), _length(original_length))


def yarn_scaling(
    factor: float,
    original_length: int,
    *,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    attention_factor: float | None = None,
    truncate: bool = True,
) -> YarnScaling:
    """YaRN: interpolate slow pairs, keep fast ones, and sharpen the scores.

        theta_i' = (1 - r_i) theta_i + r_i theta_i / factor,        r_i = ramp from beta_fast to beta_slow turns over L0
        sines and cosines are multiplied by attention_factor = 0.1 ln(factor) + 1

    Args:
        factor: new context length over the trained one.
        original_length: L0.
        beta_fast: pairs with more turns over L0 are kept.
        beta_slow: pairs with fewer turns are interpolated fully.
        attention_factor: None for the formula. For DeepSeek's `mscale` and `mscale_all_dim` pass
            `(0.1 mscale ln factor + 1) / (0.1 mscale_all_dim ln factor + 1)`.
        truncate: round the ends of the ramp to whole pairs (False: GPT-OSS).

    Returns:
        A scaling for `positions.rotary`.

    Raises:
        ValueError: if `factor` < 1 or `original_length` < 1.

    Example:
        >>> from jax_attention import positions
        >>> round(positions.yarn_scaling(4.0, 4096).attention_factor(), 4)
        1.1386

    Reference:
        Peng, Quesnelle, Fan, Shippole (2024), "YaRN: efficient context window extension of large language models".
    """
    attention = None if attention_factor is None else float(attention_factor)
    return YarnScaling(
        _factor(factor), _length(original_length), float(beta_fast), float(beta_slow), attention, bool(truncate)
    )


def _factor(factor: float) -> float:
    if not factor >= 1:
        raise ValueError(f"factor: expected at least 1, got {factor}. It is the new length over the trained one.")
    return float(factor)


def _length(length: int) -> int:
    if length < 1:
        raise ValueError(f"original_length: expected at least 1, got {length}. It is the trained context length.")
    return int(length)
