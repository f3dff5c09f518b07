"""Scores: how much does query t care about key s? `docs/rules/` has a page on each.

A score has two methods, `project` (once per row) and `tile` (on any block). A plain function
`(query[..., T, H], key[..., S, H]) -> [..., T, S]` is accepted wherever a score is.
"""

from jax_attention.scores.additive import Additive, Concat, additive, concat
from jax_attention.scores.base import Score, UserScore, as_score
from jax_attention.scores.distance import L2, l2
from jax_attention.scores.features import Features, RandomFeatures, features, random_features
from jax_attention.scores.location import Location, location
from jax_attention.scores.products import Cosine, Dot, General, ScaledDot, cosine, dot, general, scaled_dot

CATALOGUE = (dot, scaled_dot, cosine, general, concat, additive, location, l2, features, random_features)

__all__ = [
    "CATALOGUE",
    "Additive",
    "Concat",
    "Cosine",
    "Dot",
    "Features",
    "General",
    "L2",
    "Location",
    "UserScore",
    "RandomFeatures",
    "ScaledDot",
    "Score",
    "additive",
    "as_score",
    "concat",
    "cosine",
    "dot",
    "features",
    "general",
    "l2",
    "location",
    "random_features",
    "scaled_dot",
]
