"""Flax modules that hold parameters and static configuration, and nothing else: each is a pytree, so plain `jax.jit`,
`grad`, `vmap`, `lax.scan` and optax work on it. Attention rules themselves are the pure functions of `jax_attention`.
"""

from jax_attention.nn.attn import Attn
from jax_attention.nn.feed_forward import FeedForward
from jax_attention.nn.freeze import LearnedPart
from jax_attention.nn.linear import Linear
from jax_attention.nn.lora import Adapters, apply_adapters, lora
from jax_attention.nn.multi_head import MultiHeadAttention
from jax_attention.nn.part_module import PartModule
from jax_attention.nn.recurrent import GRU, LSTM
from jax_attention.nn.scores import Additive, Concat, General, Location
from jax_attention.nn.self_attention import SelfAttention

__all__ = [
    "Adapters",
    "Additive",
    "Attn",
    "Concat",
    "FeedForward",
    "GRU",
    "General",
    "LSTM",
    "LearnedPart",
    "Linear",
    "Location",
    "MultiHeadAttention",
    "PartModule",
    "SelfAttention",
    "apply_adapters",
    "lora",
]
