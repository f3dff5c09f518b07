"""How a module keeps a part of a rule: trained (`LearnedPart`) or fixed (a static constant that does not retrace)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jax_attention.nn.scores import ScoreModule


class LearnedPart(nnx.Module):
    """Any value of a rule with its float arrays as trained parameters.

        LearnedPart(mods.alibi(slopes)).part()  =  mods.alibi(the present slopes)

    A module keeps a bare value as a constant; wrap it in `LearnedPart` to train it: slopes, bias tables, sinks, scales.

    Args:
        value: a score, mod, mask or normalizer with arrays inside.

    Returns:
        A module whose parameters are the value's float arrays, as `parameters`, in the order of its fields.

    Raises:
        ValueError: if the value holds no float array.

    Example:
        >>> from jax_attention import mods, nn, positions
        >>> nn.LearnedPart(mods.alibi(positions.alibi_slopes(4))).part()
        alibi(slopes=float32[4])

    Reference:
        Press, Smith, Lewis (2022), appendix: learned slopes.
    """

    def __init__(self, value: Any):
        arrays, structure = jax.tree.flatten(value)
        trained = [jnp.issubdtype(jnp.result_type(x), jnp.floating) for x in arrays]
        if not any(trained):
            raise ValueError(f"value: expected a value with at least one float array to train, got {value!r}.")
        self.parameters = nnx.List([nnx.Param(jnp.asarray(x)) for x, t in zip(arrays, trained, strict=True) if t])
        fixed = tuple(None if t else Constant(x) for x, t in zip(arrays, trained, strict=True))
        self.structure = nnx.static((structure, fixed))

    def part(self) -> Any:
        """The value with the present parameters."""
        structure, fixed = self.structure
        parameters = iter(self.parameters)
        return jax.tree.unflatten(structure, [next(parameters)[...] if x is None else x.value for x in fixed])


@jax.tree_util.register_static
class Constant:
    """Something that a module keeps but does not train: static, compared by content."""

    def __init__(self, value: Any):
        leaves, structure = jax.tree.flatten(value)
        if any(isinstance(x, jax.core.Tracer) for x in leaves):
            raise ValueError(
                f"{value!r}: expected known arrays to keep as constants, got traced ones. Build the value outside of "
                "jit, or wrap it in nn.LearnedPart to make it a parameter."
            )
        # Python numbers stay what they are: as float64 arrays they would promote float32 scores in x64 mode.
        kept = [np.asarray(x) if hasattr(x, "dtype") else x for x in leaves]
        self.value = jax.tree.unflatten(structure, kept)
        self._content = (structure, tuple(_content(x) for x in kept))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)

    def __repr__(self) -> str:
        return repr(self.value)


def _content(x: Any) -> Any:
    """What two equal leaves have in common, hashable: functions by themselves, numbers by their text."""
    if hasattr(x, "dtype"):
        return x.shape, x.dtype, x.tobytes()
    return x if callable(x) else (type(x), repr(x))


def freeze(part: Any) -> Any:
    """What a module stores for a part of the rule given by the user."""
    return part if isinstance(part, nnx.Module) else Constant(part)


def unfreeze(held: Any) -> Any:
    """The part as `attend` takes it."""
    if isinstance(held, ScoreModule):
        return held.as_score()
    return held.part() if isinstance(held, LearnedPart) else held.value
