"""Models, layers and adapters from and to Hugging Face and PyTorch, and comparisons that say how equal two results are.

PyTorch is imported when a function that needs it is called; folders of safetensors need none.
"""

from jax_attention.interop.hf import load, load_adapters, save, save_adapters, stop_tokens
from jax_attention.interop.parity import (
    Comparison,
    Diagnosis,
    Difference,
    ParityReport,
    ParityRow,
    compare,
    compare_rule,
    difference,
)
from jax_attention.interop.torch import from_state_dict, from_torch, to_state_dict, to_torch

__all__ = [
    "Comparison",
    "Diagnosis",
    "Difference",
    "ParityReport",
    "ParityRow",
    "compare",
    "compare_rule",
    "difference",
    "from_state_dict",
    "from_torch",
    "load",
    "load_adapters",
    "save",
    "save_adapters",
    "stop_tokens",
    "to_state_dict",
    "to_torch",
]
