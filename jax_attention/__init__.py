"""jax_attention: every attention rule as one pure function, exact and differentiable to any order.

    scores  = score(q, k)
    scores  = mod(scores, q_pos, k_pos)
    weights = normalize(scores, where=mask(q_pos, k_pos))
    output  = weights @ value

A rule is a choice of four parts: a score, mods, a mask, a normalizer. `attend` evaluates the formula.
Importing this package loads neither Flax nor any optional dependency; `jax_attention.nn` holds the Flax modules.
"""

from jax_attention import cache, masks, mods, normalizers, parts, positions, scores
from jax_attention.attention.attend import (
    attend,
    attend_heads,
    attend_with_stats,
    attend_with_stats_heads,
    attention_weights,
    attention_weights_heads,
)
from jax_attention.attention.explain import Explanation, explain
from jax_attention.attention.flax_adapter import flax_attention_fn
from jax_attention.attention.jax_nn import dot_product_attention
from jax_attention.attention.merge import Partial, merge_partials
from jax_attention.attention.recurrent import FeatureState, attend_step
from jax_attention.dropout import Dropout
from jax_attention.implementations.blockwise import Blockwise
from jax_attention.implementations.call import AttentionOutput
from jax_attention.implementations.cudnn import Cudnn
from jax_attention.implementations.dense import Dense
from jax_attention.implementations.linear_attention import LinearAttention

__version__ = "0.2.0"

__all__ = [
    "AttentionOutput",
    "Blockwise",
    "Cudnn",
    "Dense",
    "Dropout",
    "Explanation",
    "FeatureState",
    "LinearAttention",
    "Partial",
    "attend",
    "attend_heads",
    "attend_with_stats_heads",
    "attend_step",
    "attend_with_stats",
    "attention_weights",
    "attention_weights_heads",
    "cache",
    "dot_product_attention",
    "explain",
    "flax_attention_fn",
    "masks",
    "merge_partials",
    "mods",
    "normalizers",
    "parts",
    "positions",
    "scores",
]
