"""Attention tile by tile: memory linear in T and S, in the forward pass and in every derivative, for any rule."""

from jax_attention.implementations.blockwise.blockwise import Blockwise

__all__ = ["Blockwise"]
