"""Layers of `torch.nn` from and to layers of this library: the same sizes, options and numbers, bit by bit.

`converter.py` defines what a converter is; `layers.py`, `attention.py`, `recurrent.py` and `transformer.py` are tables
of them; `convert.py` holds the four public functions, which read the tables.
"""

from jax_attention.interop.torch.convert import from_state_dict, from_torch, to_state_dict, to_torch

__all__ = ["from_state_dict", "from_torch", "to_state_dict", "to_torch"]
