"""The dense sentence over the whole problem at once: the oracle for every other implementation."""

from jax_attention.implementations.sentence import attend, attend_with_stats, weights

__all__ = ["attend", "attend_with_stats", "weights"]
