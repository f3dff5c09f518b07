"""The contract of an implementation: one way to evaluate the formula."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax

from jax_attention.implementations.call import AttentionCall, AttentionOutput


@dataclasses.dataclass(frozen=True)
class Implementation:
    """A way to evaluate the formula. Its fields are its options; two with equal options share compiled programs.

    A subclass sets `name`, its short form as a string, and overrides `why_not` and what it can compute. All that it
    computes agrees with `Dense` to rounding. `attend` calls it with a call for which `why_not` returned None.

    name:            the string that users may pass instead of an instance
    only_by_name:    the reason why `implementation=None` never takes it, or None
    uses_cached_jit: whether `attend` compiles it once per shapes and rule, also outside of `jit`
    """

    name: ClassVar[str]
    only_by_name: ClassVar[str | None] = None
    uses_cached_jit: ClassVar[bool] = True

    def why_not(self, call: AttentionCall) -> str | None:
        """The first reason why it cannot compute what the call wants, or None.

        The reason names the argument, what is expected, what came, and the cure.
        """
        raise NotImplementedError(f"{type(self).__name__} must define why_not(call)")

    def attend(self, call: AttentionCall) -> jax.Array:
        """`weights @ value`, `[*batch, T, E]`, in the query's dtype."""
        raise NotImplementedError(f"{self.name} computes no output")

    def weights(self, call: AttentionCall) -> jax.Array:
        """What multiplies the values, `[*batch, T, S]`, dropout included, in the query's dtype."""
        raise NotImplementedError(f"{self.name} computes no weights")

    def attend_with_stats(self, call: AttentionCall) -> AttentionOutput:
        """The output of `attend`, and statistics of scores and weights before dropout."""
        raise NotImplementedError(f"{self.name} computes no statistics")
