"""The report on two models: what is compared, what rounding may do, what else it can be."""

from jax_attention.interop.report.compare import compare
from jax_attention.interop.report.recognise import Diagnosis
from jax_attention.interop.report.result import ParityReport
from jax_attention.interop.report.rounding import ParityRow

__all__ = ["Diagnosis", "ParityReport", "ParityRow", "compare"]
