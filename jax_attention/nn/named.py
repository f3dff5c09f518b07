"""Parameters by name: any module as a flat dictionary of arrays, and filled from one, strictly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jax_attention.core.checks import describe_array

Module = TypeVar("Module")
SHOWN = 8


def named(tree: Any) -> dict[str, Any]:
    """Arrays by their path, `"blocks.rest.0.attention.out.kernel"`; the `value` that Flax variables add is left out."""
    found = {}
    for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if not path:
            raise TypeError(f"module: expected a module with parameters, got a value of type {type(tree).__name__}.")
        names = [str(getattr(entry, "name", getattr(entry, "key", getattr(entry, "idx", entry)))) for entry in path]
        found[".".join(names[:-1] if names[-1] == "value" else names)] = x
    return found


def filled(module: Module, arrays: Mapping[str, Any], what: str) -> Module:
    """A copy of the module, which may be abstract, with these arrays; complete, without extra names, in its shapes."""
    wanted = named(module)
    missing, unknown = sorted(wanted.keys() - arrays.keys()), sorted(arrays.keys() - wanted.keys())
    shapes = [
        f"{name}: expected {describe_array(x)}, got {describe_array(arrays[name])}"
        for name, x in wanted.items()
        if name in arrays and tuple(jnp.shape(arrays[name])) != x.shape
    ]
    problems = {"missing": missing, "not of this model": unknown, "wrong shape": shapes}
    if any(problems.values()):
        raise ValueError(f"{what}, got {listed(problems)}.")
    return jax.tree.unflatten(jax.tree.structure(module), [arrays[name] for name in wanted])


def listed(problems: Mapping[str, list[str]]) -> str:
    """The first names of each kind of problem, and how many there are."""
    return "; ".join(
        f"{kind}: {', '.join(names[:SHOWN])}{f' … ({len(names)} in all)' if len(names) > SHOWN else ''}"
        for kind, names in problems.items()
        if names
    )
