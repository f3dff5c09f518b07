"""Comparisons with PyTorch: two arrays, one attention rule, or two whole models layer by layer."""

from jax_attention.interop.parity.compare import compare
from jax_attention.interop.parity.compare_rule import Comparison, compare_rule
from jax_attention.interop.parity.diagnose import Diagnosis
from jax_attention.interop.parity.difference import Difference, difference
from jax_attention.interop.parity.report import ParityReport
from jax_attention.interop.parity.rounding import ParityRow

__all__ = [
    "Comparison",
    "Diagnosis",
    "Difference",
    "ParityReport",
    "ParityRow",
    "compare",
    "compare_rule",
    "difference",
]
