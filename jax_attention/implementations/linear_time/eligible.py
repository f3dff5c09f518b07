"""Which rules can be evaluated in O(T) time, and what stands in the way of the others."""

from __future__ import annotations

import jax
import numpy as np

from jax_attention.implementations.problem import Problem
from jax_attention.masks import Causal, Lengths, Prefix
from jax_attention.masks.base import joined_by_and
from jax_attention.normalizers import Linear, Proportional, Softmax, Uniform
from jax_attention.scores import Concat, PlainScore


def why_not(problem: Problem) -> str | None:
    """The part of a rule that needs every pair of query and key, or None if there is none."""
    if problem.dropout is not None:
        return f"dropout: linear_time makes no weights that could be dropped, got rate {problem.dropout.rate}"
    if problem.mods:
        return f"mods: linear_time looks at no single score that a mod could change, got {problem.mods!r}"
    if any(jax.typeof(x).sharding.mesh.explicit_axes for x in (problem.query, problem.key, problem.value)):
        return "mesh: linear_time needs mesh axes of type Auto, or shard_map, got explicit ones"
    return _rule(problem) or _mask(problem)


def _rule(problem: Problem) -> str | None:
    score, normalize = problem.score, problem.normalize
    if isinstance(normalize, (Proportional, Linear)):
        fits = score.product or isinstance(score, Concat)
        expected = "a score that is a product of rows (features, random_features, dot, scaled_dot, cosine, general, l2)"
    elif isinstance(normalize, Softmax):
        fits, expected = isinstance(score, Concat), "concat"
    elif isinstance(normalize, Uniform):
        fits, expected = not isinstance(score, PlainScore), "a built-in score"
    else:
        return f"normalize: linear_time needs proportional, linear or uniform, or softmax of concat, got {normalize!r}"
    return None if fits else f"score: under {normalize!r} linear_time needs {expected}, got {score!r}"


def _mask(problem: Problem) -> str | None:
    for part in joined_by_and(problem.mask):
        if type(part) not in (Causal, Lengths, Prefix):
            return f"mask: linear_time needs None, causal, lengths, prefix or `&` of them, got {part!r}"
        if isinstance(part, Causal):
            for name in ("query_positions", "key_positions"):
                if not isinstance(getattr(problem, name), np.ndarray):  # NumPy where none were given
                    return f"{name}: linear_time runs along the keys and needs the default positions 0, 1, 2, … here"
    return None
