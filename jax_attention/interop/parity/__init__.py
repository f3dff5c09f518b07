"""The report on two models: what is compared, what rounding may do, what else it can be."""

from jax_attention.interop.parity.compare import compare
from jax_attention.interop.parity.diagnose import Diagnosis
from jax_attention.interop.parity.report import ParityReport
from jax_attention.interop.parity.rounding import ParityRow

__all__ = ["Diagnosis", "ParityReport", "ParityRow", "compare"]
