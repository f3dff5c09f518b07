"""The dense sentence over the whole problem at once: the oracle for every other implementation."""

from __future__ import annotations

import jax

from jax_attention.ground.numerics import matmul_precision
from jax_attention.implementations import sentence
from jax_attention.implementations.problem import Attended, Problem


def attend(problem: Problem) -> jax.Array:
    """`[*lead, T, E]`."""
    with matmul_precision(problem.precision):
        return sentence.output(problem)


def weights(problem: Problem) -> jax.Array:
    """`[*lead, T, S]`."""
    with matmul_precision(problem.precision):
        return sentence.weights(problem)


def attend_with_stats(problem: Problem) -> Attended:
    """The same output, and row statistics."""
    with matmul_precision(problem.precision):
        return sentence.output_and_statistics(problem)
