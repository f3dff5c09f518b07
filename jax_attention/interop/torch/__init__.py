"""Layers of `torch.nn` to ours and back: the same sizes, options and numbers, bit by bit.

`kind.py` says what a converter is, `layers.py`, `attention.py` and `recurrent.py` are tables of them, `convert.py` has
the four functions that read the tables.
"""

from jax_attention.interop.torch.convert import from_state_dict, from_torch, to_state_dict, to_torch

__all__ = ["from_state_dict", "from_torch", "to_state_dict", "to_torch"]
