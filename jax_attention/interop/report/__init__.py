"""The report on two models: what is compared, what rounding may do, what else it can be."""

from jax_attention.interop.report.compare import compare
from jax_attention.interop.report.recognise import Cause
from jax_attention.interop.report.result import Report
from jax_attention.interop.report.rounding import Row

__all__ = ["Cause", "Report", "Row", "compare"]
