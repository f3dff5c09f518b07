"""Linear attention: sums over keys that do not depend on the query."""

from jax_attention.implementations.linear_attention.linear_attention import LinearAttention, attend_from, empty_state
from jax_attention.implementations.linear_attention.products import State

__all__ = ["LinearAttention", "State", "attend_from", "empty_state"]
