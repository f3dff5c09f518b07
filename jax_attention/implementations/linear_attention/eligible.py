"""Which calls can be evaluated in O(T) time, and what prevents it in the others."""

from __future__ import annotations

from jax_attention.implementations.call import AttentionCall, ResultKind
from jax_attention.masks import Causal, Lengths, Prefix
from jax_attention.masks.base import and_terms
from jax_attention.normalizers import Linear, Proportional, Softmax, Uniform
from jax_attention.scores import Concat, UserScore


def why_not(call: AttentionCall) -> str | None:
    """The first reason why a call needs every pair of query and key, or None."""
    if call.result is not ResultKind.OUTPUT:
        return "weights and statistics: linear_attention forms none; 'reference' and 'blockwise' do"
    if call.dropout is not None:
        return f"dropout: linear_attention makes no weights that could be dropped, got rate {call.dropout.rate}"
    if call.mods:
        return f"mods: linear_attention looks at no single score that a mod could change, got {call.mods!r}"
    return _rule(call) or _mask(call)


def _rule(call: AttentionCall) -> str | None:
    score, normalize = call.score, call.normalize
    if isinstance(normalize, (Proportional, Linear)):
        fits = score.is_product or isinstance(score, Concat)
        expected = "a score that is a product of rows (features, random_features, dot, scaled_dot, cosine, general, l2)"
    elif isinstance(normalize, Softmax):
        fits, expected = isinstance(score, Concat), "concat"
    elif isinstance(normalize, Uniform):
        fits, expected = not isinstance(score, UserScore), "a built-in score"
    else:
        expected = "proportional, linear or uniform, or softmax of concat"
        return f"normalize: linear_attention needs {expected}, got {normalize!r}"
    return None if fits else f"score: under {normalize!r} linear_attention needs {expected}, got {score!r}"


def _mask(call: AttentionCall) -> str | None:
    for part in and_terms(call.mask):
        if type(part) not in (Causal, Lengths, Prefix):
            return f"mask: linear_attention needs None, causal, lengths, prefix or `&` of them, got {part!r}"
        if isinstance(part, Causal):
            for name in ("query_positions", "key_positions"):
                if name in call.given_positions:
                    return (
                        f"{name}: linear_attention runs along the keys and needs the default positions 0, 1, 2, … here"
                    )
    return None
