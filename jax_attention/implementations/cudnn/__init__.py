"""NVIDIA's fused kernel, reached through jax.nn; taken by name only."""

from jax_attention.implementations.cudnn.cudnn import Cudnn

__all__ = ["Cudnn"]
