"""Models, layers and adapters from and to Hugging Face and PyTorch, and comparisons that say how equal two results are.

PyTorch is imported when a function that needs it is called; folders of safetensors need none.
"""

from jax_attention.interop.hf.load_save import load, save
from jax_attention.interop.hf.peft import load_adapters, save_adapters
from jax_attention.interop.parity import Diagnosis, ParityReport, ParityRow, compare
from jax_attention.interop.parity.compare_rule import Comparison, compare_rule
from jax_attention.interop.parity.difference import Difference, difference
from jax_attention.interop.torch import from_state_dict, from_torch, to_state_dict, to_torch

__all__ = [
    "Diagnosis",
    "Comparison",
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
    "to_state_dict",
    "to_torch",
]
