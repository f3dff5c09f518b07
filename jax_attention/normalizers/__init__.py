"""Normalizers: from scores to weights, over the keys a query may attend to.

A plain function `(scores[..., T, S], where[..., T, S]) -> weights` is accepted wherever a normalizer is.
"""

from jax_attention.normalizers.base import Normalizer, UserNormalizer, as_normalizer
from jax_attention.normalizers.pointwise import (
    Linear,
    Relu,
    Sigmoid,
    Uniform,
    linear,
    relu,
    sigmoid,
    uniform,
)
from jax_attention.normalizers.proportional import Proportional, proportional
from jax_attention.normalizers.softmax import Softmax, softmax
from jax_attention.normalizers.sparse import Entmax15, Hard, Sparsemax, entmax15, hard, sparsemax

CATALOGUE = (softmax, sigmoid, relu, linear, proportional, sparsemax, entmax15, uniform, hard)

__all__ = [
    "CATALOGUE",
    "Entmax15",
    "Hard",
    "Linear",
    "Normalizer",
    "UserNormalizer",
    "Proportional",
    "Relu",
    "Sigmoid",
    "Softmax",
    "Sparsemax",
    "Uniform",
    "as_normalizer",
    "entmax15",
    "hard",
    "linear",
    "proportional",
    "relu",
    "sigmoid",
    "softmax",
    "sparsemax",
    "uniform",
]
