"""Well-known shapes of language models; every field can be changed."""

from __future__ import annotations

from typing import Any

from jax_attention import scores
from jax_attention.models.config import LMConfig
from jax_attention.positions import rotary


def tiny(**changes: Any) -> LMConfig:
    """A small rotary pre-norm model without biases that trains in a minute or two on a CPU.

        depth 2, width 128, 4 heads, context 128

    Args:
        changes: any field of `LMConfig`; `vocab_size` is needed.

    Returns:
        A config.

    Raises:
        TypeError: if `vocab_size` is missing or a field is unknown.

    Example:
        >>> from jax_attention import models
        >>> models.tiny(vocab_size=65, depth=6).depth
        6

    """
    preset: dict[str, Any] = dict(
        context=128, width=128, depth=2, num_heads=4, position="rotary", norm="rms", use_bias=False
    )
    return LMConfig(**preset | changes)


def gpt2(**changes: Any) -> LMConfig:
    """GPT-2 small: learned positions, pre-layer-norm, tanh GELU, biases, tied head.

        depth 12, width 768, 12 heads, context 1024, vocabulary 50257

    Args:
        changes: any field of `LMConfig`.

    Returns:
        A config of 124 million parameters.

    Example:
        >>> from jax_attention import models
        >>> models.gpt2().activation
        'gelu_tanh'

    Reference:
        Radford et al. (2019), "Language models are unsupervised multitask learners".
    """
    preset: dict[str, Any] = dict(
        vocab_size=50257, context=1024, width=768, depth=12, num_heads=12, activation="gelu_tanh", scan=True
    )
    return LMConfig(**preset | changes)


def llama(**changes: Any) -> LMConfig:
    """Llama-like: rotary positions, RMS norm, SwiGLU, grouped queries, no biases, separate head.

        depth 16, width 2048, 32 heads sharing 8, F = 8192, context 8192, vocabulary 128256

    Args:
        changes: any field of `LMConfig`.

    Returns:
        A config of the shape of Llama 3.2 1B (which ties its head: `tied_head=True`).

    Example:
        >>> from jax_attention import models
        >>> models.llama(width=64, num_heads=4, kv_heads=2).resolved_head_size
        16

    Reference:
        Grattafiori et al. (2024), "The Llama 3 herd of models".
    """
    preset: dict[str, Any] = dict(
        vocab_size=128256,
        context=8192,
        width=2048,
        depth=16,
        num_heads=32,
        kv_heads=8,
        ff_size=8192,
        activation="swiglu",
        position="rotary",
        rope=rotary(base=500000.0),
        norm="rms",
        use_bias=False,
        tied_head=False,
        scan=True,
    )
    return LMConfig(**preset | changes)


def gemma2(**changes: Any) -> LMConfig:
    """Gemma-2-like: alternating windows, soft caps on scores and logits, norms on both sides, gated tanh GELU.

        depth 26, width 2304, 8 heads of 256 sharing 4, windows (4096, None), caps 50 and 30

    Args:
        changes: any field of `LMConfig`.

    Returns:
        A config of the shape of Gemma 2 2B.

    Example:
        >>> from jax_attention import models
        >>> [models.gemma2().window(layer) for layer in range(3)]
        [4096, None, 4096]

    Reference:
        Riviere et al. (2024), "Gemma 2: improving open language models at a practical size".
    """
    preset: dict[str, Any] = dict(
        vocab_size=256000,
        context=8192,
        width=2304,
        depth=26,
        num_heads=8,
        kv_heads=4,
        head_size=256,
        ff_size=9216,
        activation="geglu_tanh",
        position="rotary",
        norm="rms",
        norm_place="sandwich",
        norm_epsilon=1e-6,
        use_bias=False,
        scale_embedding=True,
        score=scores.scaled_dot(scale=256**-0.5),
        score_cap=50.0,
        logit_cap=30.0,
        windows=(4096, None),
        scan=True,
    )
    return LMConfig(**preset | changes)


PRESETS = {preset.__name__: preset for preset in (tiny, gpt2, llama, gemma2)}
"""Name -> preset, for the command line."""
