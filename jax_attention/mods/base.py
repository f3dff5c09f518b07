"""The contract of a mod: change each score by itself, given the positions of its query and key."""

from __future__ import annotations

from typing import Any

import jax

from jax_attention.core.part_checks import check_kind, check_parameters, check_returned
from jax_attention.core.short_repr import FactoryRepr
from jax_attention.core.struct import UserFunction, struct


class Mod(FactoryRepr):
    """`mod(scores[..., t, s], q_pos[..., t, 1], k_pos[..., 1, s]) -> scores[..., t, s]`.

    A mod acts on every score by itself: it may use the score, the two positions and its own arrays, but not the
    neighbouring scores (blockwise evaluation calls it one tile at a time, and passes masked-out scores as 0).
    """

    part = "mods"

    may_forbid_pairs = True  # it may turn a finite score into -inf, which forbids the pair as a mask would

    def __call__(self, scores: jax.Array, q_pos: jax.Array, k_pos: jax.Array) -> jax.Array:
        """Return the changed scores."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__(scores, q_pos, k_pos)")


@struct
class UserMod(UserFunction, Mod):
    """A user's function with the signature of a mod."""

    def __call__(self, scores: jax.Array, q_pos: jax.Array, k_pos: jax.Array) -> jax.Array:
        scores = self.merge_heads(scores)
        changed = self.function(scores, self.merge_heads(q_pos), self.merge_heads(k_pos))
        check_returned(f"mod {self!r}", changed, scores.shape)
        return self.split_heads(changed)


def as_mod(x: Any) -> Mod:
    """A mod, or a plain function made into one: what `attend` does with its `mods` argument.

        as_mod(mod) = mod,        as_mod(f)(z, q_pos, k_pos) = f(z, q_pos, k_pos)

    Args:
        x: a mod, or `f(scores[..., t, s], q_pos[..., t, 1], k_pos[..., 1, s]) -> scores[..., t, s]`.

    Returns:
        A mod; arrays that `f` closes over stay differentiable.

    Raises:
        ValueError: when the mod is called, if `f` returns another shape.

    Example:
        >>> from jax_attention import mods
        >>> mods.as_mod(lambda z, q, k: z / 2), mods.as_mod(mods.soft_cap(50.0))
        (<lambda>, soft_cap(cap=50.0))

    Reference:
        `score_mod` of https://docs.pytorch.org/docs/stable/nn.attention.flex_attention.html
    """
    check_kind("mods", x)
    if isinstance(x, Mod):
        return x
    check_parameters("mods", x, ("scores", "q_pos", "k_pos"))
    return UserMod(x)
