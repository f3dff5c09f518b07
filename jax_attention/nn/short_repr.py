"""The printed text of a module: one line instead of a hundred for each layer."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Iterator
from typing import Any

import jax
from flax import nnx
from flax.nnx import reprlib

from jax_attention.core.short_repr import changed_texts


class ShortRepr:
    """Base of all modules here: `repr` is what the constructor was told, as far as it is kept, and the module's arrays.

        MultiHeadAttention(num_heads=4, size=64, kv_heads=4, head_size=16, mask=causal(), 16,640 parameters)

    Arrays inside of other modules are only counted; `nnx.display(model)` in a notebook and
    `treescope.render_to_text(model)` in a terminal list them.

    `repr` and `print` of Flax call `__nnx_repr__`, also for the modules inside of a user's module. The trees of
    treescope come from `__treescope_repr__` and stay as they are.
    """

    repr_is_short = True

    def __nnx_repr__(self) -> Iterator[reprlib.Object | reprlib.Attr]:
        yield reprlib.Object(type=type(self), kv_sep="", same_line=True)
        parameters = _parameters(type(self))
        found = self._find_arguments(parameters)
        defaults = {name: x.default for name, x in parameters.items() if x.default is not inspect.Parameter.empty}
        texts = [f"{name}={text}" for name, text in changed_texts(found, defaults).items()]
        # Arrays that two modules share are counted once.
        count = sum({id(x): getattr(x, "size", 0) for x in jax.tree.leaves(self)}.values())
        for text in [*texts, f"{count:,} parameter{'s' * (count != 1)}"]:
            yield reprlib.Attr("", text, use_raw_value=True, use_raw_key=True)

    def _find_arguments(self, names: Iterable[str]) -> dict[str, Any]:
        """Arguments of the constructor that are kept under their names: by the module, its `rule` or its `projections`.

        Then its other sizes; and its arrays, if it keeps no argument, as the parameters of a score do.
        """
        attributes = vars(self)
        holders = [self, *(attributes[name] for name in ("rule", "projections") if name in attributes)]
        found = {name: getattr(x, name) for x in reversed(holders) for name in names if hasattr(x, name)}
        found = {name: found[name] for name in names if name in found}
        shown = _is_size if found else _is_array
        others = {name: x for name, x in sorted(attributes.items()) if name not in found and name[0] != "_"}
        return found | {name: x for name, x in others.items() if shown(x)}


def _is_size(x: Any) -> bool:
    return isinstance(x, tuple) and bool(x) and all(isinstance(size, int) for size in x)


def _is_array(x: Any) -> bool:
    return isinstance(x, nnx.Variable)


@functools.cache
def _parameters(cls: type) -> dict[str, inspect.Parameter]:
    """Parameters of the constructor by name, and those of the base classes that it passes `**options` to."""
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters
        found = {**parameters, **found}
        if all(x.kind != x.VAR_KEYWORD for x in parameters.values()):
            break
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: x for name, x in found.items() if name not in ("self", "rngs") and x.kind not in variadic}
