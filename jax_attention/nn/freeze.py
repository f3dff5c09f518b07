"""How a module stores a part of its rule: trained (`LearnedPart`), or as a static constant that does not retrace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jax_attention.core.checks import fail_unless
from jax_attention.core.short_repr import describe
from jax_attention.nn.listing import unlisted
from jax_attention.nn.part_module import PartModule
from jax_attention.nn.short_repr import ShortRepr


class LearnedPart(ShortRepr, nnx.Module):
    """A part of a rule with its float arrays as trained parameters.

        LearnedPart(mods.alibi(slopes)).part()  =  mods.alibi(the present slopes)

    A module keeps a bare part as a constant; wrap it in `LearnedPart` to train it: slopes, bias tables, sinks, scales.

    Args:
        value: a score, mod, mask or normalizer with arrays inside.

    Returns:
        A module whose `parameters` are the float arrays of the part, in the order of its fields; `module.part()` is
        the part with their present numbers.

    Raises:
        ValueError: if the part holds no float array.

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
            raise ValueError(f"value: expected a part with at least one float array to train, got {value!r}.")
        self.parameters = nnx.List([nnx.Param(jnp.asarray(x)) for x, t in zip(arrays, trained, strict=True) if t])
        constants = tuple(None if t else Constant(x) for x, t in zip(arrays, trained, strict=True))
        self.structure = nnx.static((structure, constants))

    def part(self) -> Any:
        """The part with the present parameters."""
        return self._fill(param[...] for param in self.parameters)

    @property
    def value(self) -> Any:
        """The part with whatever is in the place of the parameters, for `repr`: labels of an optimizer, shardings."""
        return self._fill(param.get_value() for param in self.parameters)

    def _fill(self, parameters: Iterator[Any]) -> Any:
        structure, constants = self.structure
        return jax.tree.unflatten(structure, [next(parameters) if x is None else x.value for x in constants])


@jax.tree_util.register_static
class Constant:
    """A part, or an array of one, that a module stores but does not train: static under `jit`, compared by content.

    An array field would be a parameter to the optimizer; a static field must hash, which arrays do not.
    """

    repr_is_short = True

    def __init__(self, value: Any):
        leaves, structure = jax.tree.flatten(value)
        if any(isinstance(x, jax.core.Tracer) for x in leaves):
            raise ValueError(
                f"{value!r}: expected known arrays to keep as constants, got traced ones. Build the part outside of "
                "jit, or wrap it in nn.LearnedPart to make it a parameter."
            )
        # Python numbers stay what they are: as float64 arrays they would promote float32 scores in x64 mode.
        kept = [np.asarray(x) if hasattr(x, "dtype") else x for x in leaves]
        self.value = jax.tree.unflatten(structure, kept)
        self._key = (structure, tuple(_hashable(x) for x in kept))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return describe(self.value)


def _hashable(x: Any) -> Any:
    """A leaf as something hashable, equal for equal leaves: arrays by their bytes, functions by identity.

    Python numbers by type and text, so that nan equals nan, and 1, 1.0 and True differ: they promote differently.
    """
    if hasattr(x, "dtype"):
        return x.shape, x.dtype, x.tobytes()
    return x if callable(x) else (type(x), repr(x))


def freeze(part: Any) -> Any:
    """A part of the rule as a module stores it: modules as they are, everything else as a static constant."""
    return part if isinstance(part, nnx.Module) else Constant(part)


def unfreeze(stored: Any, rows: Any = None) -> Any:
    """A stored part as `attend` takes it, the inverse of `freeze`; rows are what the layer reads, if it knows all."""
    if isinstance(stored, PartModule):
        fail_unless(
            rows is not None or not stored.reads_rows,
            f"{type(stored).__name__}: expected a call that has all rows, on which the part depends, got one with a "
            "cache or a memory, which keep keys and values only. Call the model without a cache.",
        )
        return unlisted(stored.as_part)(rows)
    return stored.part() if isinstance(stored, LearnedPart) else stored.value


def unfreeze_rule(rule: nnx.Dict, rows: Any = None) -> dict[str, Any]:
    """Score, mask and normalizer of a layer. By name: `nnx.tabulate` adds an entry of its own to the module `rule`."""
    return {name: unfreeze(rule[name], rows) for name in ("score", "mask", "normalize")}
