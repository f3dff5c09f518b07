"""Frequency scalings of rotary embeddings for long contexts: the kinds of Hugging Face's `rope_scaling`."""

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
    """`base^(-2i / size)` radians per position, `[size / 2]`, in float64 on the host."""
    return 1.0 / base ** (np.arange(0, size, 2) / size)


def present_length(*positions: jax.Array) -> jax.Array:
    """The largest position in any of the arrays, plus one; padding at `EMPTY_POSITION` does not count."""
    real = [jnp.max(jnp.where(x < EMPTY_POSITION, x, -1), initial=-1) for x in positions]
    return functools.reduce(jnp.maximum, real) + 1


@dataclass(frozen=True)
class Scaling:
    """No scaling; the base of the others. `attention_factor` multiplies sines and cosines."""

    needs_length: ClassVar[bool] = False

    def frequencies(self, size: int, base: float, length: jax.Array | int) -> Frequencies:
        """Radians per position, `[size / 2]`; NumPy unless they depend on the present length."""
        return base_frequencies(size, base)

    def attention_factor(self) -> float:
        """Scale of the rotated vectors."""
        return 1.0


@dataclass(frozen=True)
class LinearScaling(Scaling):
    """Position interpolation; see `linear_scaling`."""

    factor: float

    def frequencies(self, size: int, base: float, length: jax.Array | int) -> Frequencies:
        return base_frequencies(size, base) / self.factor


@dataclass(frozen=True)
class DynamicScaling(Scaling):
    """NTK-aware scaling by the present length; see `dynamic_scaling`."""

    needs_length: ClassVar[bool] = True
    factor: float
    original_length: int

    def frequencies(self, size: int, base: float, length: jax.Array | int) -> Frequencies:
        dtype = jnp.result_type(float)
        length = jnp.maximum(length, self.original_length).astype(dtype)
        stretch = self.factor * length / self.original_length - (self.factor - 1)
        larger = base * stretch ** (size / (size - 2)) if size > 2 else base * stretch
        return 1.0 / larger ** (jnp.arange(0, size, 2, dtype=dtype) / size)


@dataclass(frozen=True)
class Llama3Scaling(Scaling):
    """Low frequencies stretched, high ones kept; see `llama3_scaling`."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_length: int

    def frequencies(self, size: int, base: float, length: jax.Array | int) -> Frequencies:
        plain = base_frequencies(size, base)
        turns = self.original_length * plain / (2 * math.pi)
        keep = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        keep = np.clip(keep, 0.0, 1.0)
        return keep * plain + (1 - keep) * plain / self.factor


@dataclass(frozen=True)
class YarnScaling(Scaling):
    """A ramp between interpolated and kept frequencies, and sharper scores; see `yarn_scaling`."""

    factor: float
    original_length: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention: float | None = None
    truncate: bool = True

    def frequencies(self, size: int, base: float, length: jax.Array | int) -> Frequencies:
        plain = base_frequencies(size, base)
        low, high = (self._dimension(turns, size, base) for turns in (self.beta_fast, self.beta_slow))
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, size - 1)
        width = high - low if high != low else 0.001
        interpolated = np.clip((np.arange(size // 2) - low) / width, 0.0, 1.0)
        return (1 - interpolated) * plain + interpolated * plain / self.factor

    def attention_factor(self) -> float:
        if self.attention is not None:
            return self.attention
        return 0.1 * math.log(self.factor) + 1.0 if self.factor > 1 else 1.0

    def _dimension(self, turns: float, size: int, base: float) -> float:
        """The pair that makes `turns` turns over the original length."""
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
    """Dynamic NTK: the base grows with the present length L (Hugging Face `rope_type: dynamic`).

        base' = base (factor L / L0 - (factor - 1))^(d / (d - 2)),        L = max(largest position + 1, L0)

    Args:
        factor: strength of the stretch.
        original_length: L0, the trained context length.

    Returns:
        A scaling for `positions.rotary`. L is taken from the positions of the call, or given: `rope(x, positions,
        length=L)`; queries and keys must share it. Keys in a cache would need turning again when L grows, so
        `nn.MultiHeadAttention.step` refuses this scaling.

    Raises:
        ValueError: if `factor` is smaller than 1 or `original_length` than 1.

    Example:
        >>> from jax_attention import positions
        >>> positions.dynamic_scaling(2.0, 2048)
        DynamicScaling(factor=2.0, original_length=2048)

    Reference:
        bloc97 (2023), "NTK-aware scaled RoPE"; Hugging Face `modeling_rope_utils.py`.
    """
    return DynamicScaling(_factor(factor), _length(original_length))


def llama3_scaling(
    factor: float = 8.0, low_freq_factor: float = 1.0, high_freq_factor: float = 4.0, original_length: int = 8192
) -> Llama3Scaling:
    """Llama 3.1: long wavelengths are stretched, short ones kept, a linear ramp between.

        theta_i' = keep_i theta_i + (1 - keep_i) theta_i / factor
        keep_i = clip((L0 theta_i / 2 pi - low) / (high - low), 0, 1)

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
